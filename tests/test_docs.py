"""What the documentation says is so: commands exist, shell blocks run, the tree in the README is the tree on disk."""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tiny import as_trained
from typer.testing import CliRunner

import edge_resnet
from edge_resnet.artifact.folder import Artifact
from edge_resnet.cli import app, main
from edge_resnet.images.imageset import open_images
from edge_resnet.pipelines import demo
from edge_resnet.pipelines.demo import DemoResult
from edge_resnet.quantization import recipes
from edge_resnet.quantization.recipes import NamedRecipe, load_recipe

REPO = Path(__file__).resolve().parent.parent
README = (REPO / "README.md").read_text(encoding="utf-8")
COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
SUBCOMMANDS = [
    f"{group.name} {command.name}" for group in app.registered_groups for command in group.typer_instance.registered_commands
]
BLOCKS = re.findall(r"(<!--[^\n]*-->\n)?```sh\n(.*?)```", README, flags=re.DOTALL)
USER_PAGES = ("bench.md", "commands.md", "devices.md", "paper.md", "qat.md", "report.md", "run.md", "train.md", "unseen.md")
PAGES = sorted(path for place in ("", "docs/**/", "calibration/", "deploy/", "examples/") for path in REPO.glob(f"{place}*.md"))
PYTHON_PAGE = REPO / "docs" / "python.md"


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def help_of() -> Iterator[Callable[[str], str]]:
    """Gives what --help of a command prints, on lines of 200 characters; in this process."""
    patch = pytest.MonkeyPatch()
    patch.setenv("COLUMNS", "200")

    @functools.cache
    def printed(command: str) -> str:
        result = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="edge-resnet")
        assert result.exit_code == 0
        return result.stdout

    yield printed
    patch.undo()


@pytest.mark.parametrize("command", [*COMMANDS, *SUBCOMMANDS])
def test_every_command_has_help_with_an_example(help_of: Callable[[str], str], command: str) -> None:
    """--help of each command explains it and shows a line to type."""
    assert f"edge-resnet {command}" in " ".join(help_of(command).split()).replace("Usage: edge-resnet", "")


@pytest.mark.parametrize("command", [*COMMANDS, *SUBCOMMANDS])
def test_every_command_is_documented(command: str) -> None:
    """Each command is named in the README or in docs/."""
    text = README + "".join(path.read_text(encoding="utf-8") for path in (REPO / "docs").glob("*.md"))
    assert f"edge-resnet {command}" in text or f"`{command}" in text


def test_every_shell_block_is_run_or_says_why_not() -> None:
    """A shell block in the README carries a comment: run, or not run and the reason."""
    assert BLOCKS
    for comment, block in BLOCKS:
        assert re.match(r"<!-- (run|not run: .{10,}) -->", comment), block


def _runnable() -> list[str]:
    """The lines of the README's blocks that run."""
    script = "".join(block for comment, block in BLOCKS if comment.startswith("<!-- run "))
    return list(filter(None, script.splitlines()))


def _has_answers(jsonl: Path) -> None:
    lines = jsonl.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 60
    assert set(json.loads(lines[0])) == {
        "source",
        "frame",
        "captured_ns",
        "age_ms",
        "top",
        "stages_ms",
        "wall_ns",
        "time",
        "answer",
    }


@pytest.mark.slow
def test_the_shell_blocks_run(tmp_path: Path) -> None:
    """The README's runnable block works in an empty folder, line by line, and its JSON parses."""
    for line in _runnable():
        result = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, check=False, cwd=tmp_path, env=_environment()
        )
        assert result.returncode == 0, f"{line}\n{result.stderr}"
        if "--json " in f"{line} ":
            assert json.loads(result.stdout)["images"] > 0
    _has_answers(tmp_path / "out.jsonl")


def test_the_shell_blocks_run_with_less_training(
    demonstration: tuple[DemoResult, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same lines in this process, with a smaller network trained for less, and one pass over few images to learn ranges."""
    result, finished = demonstration

    def run_demo(output: Path, **_: object) -> DemoResult:
        shutil.copytree(finished, output)
        return result

    def short(name: str) -> NamedRecipe:
        named = load_recipe(name)
        return replace(named, recipe=replace(named.recipe, images=64, epochs=1))

    monkeypatch.setattr(demo, "run_demo", run_demo)
    monkeypatch.setattr(recipes, "load_recipe", short)
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)
    for line in _runnable():
        monkeypatch.setattr(sys, "argv", shlex.split(line, comments=True))
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert not end.value.code, f"{line}\n{printed.err}"
        if "--json " in f"{line} ":
            assert json.loads(printed.out)["images"] > 0
    signal.signal(signal.SIGTERM, handler)
    _has_answers(tmp_path / "out.jsonl")


def test_the_python_page_runs(
    tiny_artifacts: dict[str, Artifact], smooth_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its blocks run in order as one program, beside an artifact and a few images; those that do not run say why."""
    images = open_images(smooth_images)
    for index in range(24):
        for path in (tmp_path / "val" / tiny_artifacts["int8"].labels[index % 10], tmp_path / "photos"):
            path.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.load(index)).save(path / f"{index}.png")
    for name in ("cat.jpg", "dog.jpg"):
        Image.fromarray(images.load(len(name))).save(tmp_path / name)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    as_trained(tiny_artifacts["int8"], tmp_path / "artifacts" / "mine")
    monkeypatch.chdir(tmp_path)
    text = PYTHON_PAGE.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": "page"}
    for block in re.finditer(r"(<!--[^\n]*-->\n)?```python\n(.*?)```", text, flags=re.DOTALL):
        comment, program = block.groups()
        if comment is not None:
            assert re.match(r"<!-- not run: .{10,} -->", comment), program
            continue
        lines = text[: block.start(2)].count("\n")
        exec(compile("\n" * lines + program, PYTHON_PAGE, "exec"), namespace)
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == 30


def test_the_python_page_names_every_public_name() -> None:
    """A function, a record or an error that is added is described there."""
    text = PYTHON_PAGE.read_text(encoding="utf-8")
    assert [name for name in edge_resnet.__all__ if name != "__version__" and not re.search(rf"\b{name}\b", text)] == []


def test_the_tree_in_the_readme_is_the_tree_on_disk() -> None:
    """Each module and folder of the package has its line in the README, and each line its module."""
    tree = README.split("```text")[1].split("```")[0]
    named = set(re.findall(r"^  (\w+)(?:\.py|/)", tree, flags=re.MULTILINE))
    found = {
        path.stem for path in (REPO / "edge_resnet").iterdir() if not path.name.startswith("_") and path.suffix in ("", ".py")
    }
    assert named == found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link in the documentation names a file that exists."""
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_documented_options_exist(help_of: Callable[[str], str]) -> None:
    """Every long option that the README or a page for users shows for a command is one that the program takes."""
    text = README + "".join((REPO / "docs" / name).read_text(encoding="utf-8") for name in USER_PAGES)
    help_text = "".join(help_of(command) for command in (*COMMANDS, *SUBCOMMANDS))
    known = set(re.findall(r"--[a-z0-9-]+", help_text)) | {"--debug", "--system-site-packages", "--version"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", text)) - known == set()
