"""install.sh with stand-ins for apt, pip and udev: the exact commands, their order, and none if nothing is missing."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import tomli
from boards import DEPLOY, JETSON, Board

RULES = "99-edge-resnet-cameras.rules"
PYTHON = "venv/bin/python -m pip"
SYSTEM = ("python3-venv", "python3-dev", "python3-opencv", "build-essential")
#: What `python3 -m venv` leaves behind, with a Python and a program that record their calls.
VENV_MODULE = """
[[ "$1 $2" == "-m venv" ]] || exit 0
folder=${@: -1}
mkdir -p "$folder/bin" "$folder/lib/python3.10/site-packages"
echo "include-system-site-packages = true" >"$folder/pyvenv.cfg"
for name in python edge-resnet; do
    printf '#!/bin/bash\\necho "venv/bin/%s $*  PATH=${PATH%%%%:*}" >>"$CALLS"\\n' "$name" >"$folder/bin/$name"
    chmod +x "$folder/bin/$name"
done
"""


@pytest.fixture
def bare(board: Board) -> Board:
    """A freshly flashed board with JetPack and nothing else."""
    board.write("usr/bin/python3", f'#!/bin/bash\necho "/usr/bin/python3" "$@" >>"$CALLS"\n{VENV_MODULE}', executable=True)
    board.environment["INSTALLED"] = ""
    board.environment["GROUPS_OF"] = "nvidia sudo"
    query = '[[ " $INSTALLED " == *" ${@: -1} "* ]] && printf "install ok installed"'
    board.quiet_stub("dpkg-query", query)
    return board


def _calls(board: Board) -> list[str]:
    home = board.environment["HOME"]
    return [call.replace(f"{home}/edge-resnet-venv", "VENV") for call in board.calls]


def _pip(arguments: str, path: str) -> str:
    return f"{PYTHON} {arguments}  PATH={path}"


def test_a_bare_board_gets_everything_in_order(bare: Board) -> None:
    """System packages, an environment that sees JetPack's, edge-resnet, PyCUDA with nvcc on PATH, rules, group, doctor."""
    result = bare.run("install.sh")
    assert result.returncode == 0, result.stderr
    assert _calls(bare) == [
        "apt-get update",
        f"apt-get install -y --no-install-recommends {' '.join(SYSTEM)}",
        "/usr/bin/python3 -m venv --system-site-packages VENV",
        _pip("install --no-cache-dir edge-resnet[compile] numpy<2", str(bare.bin)),
        _pip("install --no-cache-dir pycuda>=2024.1 numpy<2", "/usr/local/cuda/bin"),
        "udevadm control --reload",
        "udevadm trigger --subsystem-match=video4linux",
        "usermod -aG video nvidia",
        f"venv/bin/edge-resnet doctor  PATH={bare.bin}",
    ]
    assert (bare.root / "etc/udev/rules.d" / RULES).read_bytes() == (JETSON / RULES).read_bytes()
    assert "log out and in again" in result.stdout


def test_a_second_run_changes_nothing(bare: Board) -> None:
    """If everything is installed, only pip and doctor run."""
    bare.run("install.sh")
    bare.environment.update(INSTALLED=" ".join(SYSTEM), GROUPS_OF="nvidia video")
    done, before = len(bare.calls), bare.files()
    assert bare.run("install.sh").returncode == 0
    assert [call.split("  ")[0] for call in _calls(bare)[done:]] == [
        f"{PYTHON} install --no-cache-dir edge-resnet[compile] numpy<2",
        f"{PYTHON} install --no-cache-dir pycuda>=2024.1 numpy<2",
        "venv/bin/edge-resnet doctor",
    ]
    assert bare.files() == before


def test_a_dry_run_shows_it_all_and_does_nothing(bare: Board) -> None:
    """No stand-in is called, no file appears, and the output is that of a real run."""
    before = bare.files()
    shown = bare.run("install.sh", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert bare.calls == []
    assert bare.files() == before
    assert list(Path(bare.environment["HOME"]).iterdir()) == []
    done = bare.run("install.sh").stdout.splitlines()
    assert shown.stdout.splitlines() == [line for line in done if line.startswith("+ ")]


def test_what_is_shown_can_be_pasted(bare: Board) -> None:
    """A line of a dry run, split as a shell does, is the command, with < inside the argument."""
    lines = bare.run("install.sh", "--dry-run").stdout.splitlines()
    words = [shlex.split(line.removeprefix("+ ")) for line in lines]
    assert any(line[-2:] == ["edge-resnet[compile]", "numpy<2"] for line in words)


@pytest.mark.parametrize("missing", ["usr/local/cuda/bin/nvcc", "usr/lib/python3/dist-packages/tensorrt.py"])
def test_jetpacks_own_pieces_are_fetched_where_they_lack(missing: str, bare: Board) -> None:
    """An image without the toolkit or TensorRT gets nvidia-jetpack."""
    (bare.root / missing).unlink()
    bare.environment["INSTALLED"] = " ".join(SYSTEM)
    assert bare.run("install.sh").returncode == 0
    assert _calls(bare)[:2] == ["apt-get update", "apt-get install -y --no-install-recommends nvidia-jetpack"]


def test_an_environment_that_sees_no_system_packages_is_mended(bare: Board) -> None:
    """An environment without --system-site-packages is recreated in place, which keeps its contents."""
    cfg = Path(bare.environment["HOME"]) / "edge-resnet-venv/pyvenv.cfg"
    cfg.parent.mkdir()
    cfg.write_text("include-system-site-packages = false\n", encoding="utf-8")
    bare.run("install.sh")
    assert "/usr/bin/python3 -m venv --system-site-packages VENV" in _calls(bare)


def test_pips_opencv_is_taken_out(bare: Board) -> None:
    """An OpenCV of pip in the environment would hide that of JetPack."""
    bare.run("install.sh")
    site = Path(bare.environment["HOME"]) / "edge-resnet-venv/lib/python3.10/site-packages"
    (site / "opencv_python-4.13.0.92.dist-info").mkdir()
    done = len(bare.calls)
    bare.run("install.sh")
    names = "opencv-python opencv-python-headless opencv-contrib-python opencv-contrib-python-headless"
    assert _pip(f"uninstall -y {names}", str(bare.bin)) in _calls(bare)[done:]


def test_a_wheel_and_a_folder_may_be_named(bare: Board, tmp_path: Path) -> None:
    """PACKAGE is what pip installs, --venv is where."""
    wheel = tmp_path / "edge_resnet-0.1-py3-none-any.whl"
    wheel.touch()
    assert bare.run("install.sh", "--venv", str(tmp_path / "here"), str(wheel)).returncode == 0
    assert f"/usr/bin/python3 -m venv --system-site-packages {tmp_path / 'here'}" in bare.calls
    assert _pip(f"install --no-cache-dir {wheel}[compile] numpy<2", str(bare.bin)) in bare.calls


def test_a_wheel_that_is_not_there_is_refused_first(bare: Board) -> None:
    """A mistyped wheel ends with 2 before anything is installed."""
    result = bare.run("install.sh", "nowhere.whl")
    assert (result.returncode, bare.calls) == (2, [])
    assert "error: there is no wheel nowhere.whl\nhint: " in result.stderr


def test_sudo_before_it_is_refused(bare: Board) -> None:
    """Under sudo the environment would belong to root."""
    bare.environment["SUDO_USER"] = "nvidia"
    result = bare.run("install.sh")
    assert (result.returncode, bare.calls) == (1, [])
    assert "without sudo" in result.stderr


@pytest.mark.parametrize("failing", ["apt-get", "udevadm"])
def test_it_stops_where_a_step_fails(failing: str, bare: Board) -> None:
    """The exit code is the failed command's, and nothing after it is called."""
    bare.stub(failing, "exit 100")
    result = bare.run("install.sh")
    assert result.returncode == 100
    assert bare.calls[-1].startswith(failing)


def test_versions_are_the_packages_own() -> None:
    """Every requirement that a script or a Dockerfile repeats has the lower bound that pyproject.toml has."""
    project = tomli.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = {*project["dependencies"], *(line for lines in extras.values() for line in lines)}
    wanted |= {line.replace("opencv-python", "opencv-python-headless") for line in extras["camera"]}
    files = [JETSON / "install.sh", *DEPLOY.glob("docker/*.Dockerfile")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    named = {word.strip("'") for word in text.split() if ">=" in word}
    assert named
    assert named - wanted == set()
