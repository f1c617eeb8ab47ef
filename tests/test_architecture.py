"""The house rules that a machine can check: sizes, names, types of documentation, imports, start-up time."""

from __future__ import annotations

import ast
import resource
import statistics
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
PACKAGE = REPO / "edge_resnet"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((REPO / "tests").rglob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
#: Loaded only by commands that build or train.
HEAVY = ("torch", "torchvision", "onnx", "cv2", "onnxruntime", "openvino", "sklearn", "matplotlib")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def _module(path: Path) -> str:
    return ".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPO)


def test_files_stay_small() -> None:
    """No module exceeds 350 lines, and half of them have at most 150."""
    sizes = {path: _lines(path) for path in SOURCES}
    assert {path.name: size for path, size in sizes.items() if size > 350} == {}
    assert statistics.median(sizes.values()) <= 150


def test_functions_stay_small() -> None:
    """No function exceeds 60 lines, its decorator and docstring included; a command's option list is not counted."""
    long = {
        f"{path.name}:{node.name}": lines
        for path in SOURCES
        for node in ast.walk(_tree(path))
        if isinstance(node, FUNCTIONS) and (lines := _length(node, options_aside=_is_handler(path))) > 60
    }
    assert long == {}


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef, *, options_aside: bool) -> int:
    start = node.body[0].lineno if options_aside else node.lineno
    return (node.end_lineno or start) - start + 1


def _is_handler(path: Path) -> bool:
    """A command's signature is its option list, and a public function's its keywords: they grow with the options and not with the
    logic."""
    return path.parent.name == "cli" or path.name == "api.py"


def test_parameters_stay_few() -> None:
    """No function takes more than six parameters, self aside, but for the commands' handlers."""
    many = {
        f"{path.name}:{node.name}"
        for path in SOURCES
        for node in ast.walk(_tree(path))
        if isinstance(node, FUNCTIONS)
        and not _is_handler(path)
        and len([a for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")]) > 6
    }
    assert many == set()


def test_tests_outweigh_sources() -> None:
    """There are at least as many lines of tests as of package."""
    assert sum(map(_lines, TESTS)) >= sum(map(_lines, SOURCES))


def test_test_files_have_names_of_their_own() -> None:
    """Tests are no packages: of two files of one name, pytest can import the first only."""
    names = Counter(path.name for path in TESTS if path.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_module_says_what_it_does() -> None:
    """Each module has a docstring, and names what it offers in a sorted __all__ (entry points and data aside)."""
    assert {_module(path): lack for path in SOURCES if (lack := _lack_of(path))} == {}


def _lack_of(path: Path) -> str:
    tree = _tree(path)
    if not ast.get_docstring(tree):
        return "no docstring"
    exported = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    if path.name == "__main__.py" or _is_only_docstring(tree):
        return ""
    if len(exported) != 1:
        return "no __all__"
    return "" if sorted(exported[0]) == sorted(set(exported[0])) else "a name twice in __all__"


def _is_only_docstring(tree: ast.Module) -> bool:
    return len(tree.body) == 1


def test_public_names_are_documented() -> None:
    """Each public class, function and method outside private classes has a docstring."""
    assert {_module(path): bare for path in SOURCES if (bare := _bare(path))} == {}


def _bare(path: Path) -> list[str]:
    bare = []
    for node in _tree(path).body:
        if not isinstance(node, (ast.ClassDef, *FUNCTIONS)) or node.name.startswith("_"):
            continue
        members = [node, *(getattr(node, "body", []) if isinstance(node, ast.ClassDef) else [])]
        bare += [
            member.name
            for member in members
            if isinstance(member, (ast.ClassDef, *FUNCTIONS))
            and not member.name.startswith("_")
            and not ast.get_docstring(member)
        ]
    return bare


def test_nothing_prints_outside_the_command_line() -> None:
    """print() appears nowhere in the package."""
    calls = [
        f"{path.name}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == []


def test_help_loads_nothing_heavy() -> None:
    """--help imports no network library, no numpy and no OpenCV."""
    code = (
        "import sys; sys.argv = ['edge-resnet', '--help']\n"
        "import edge_resnet.cli\n"
        "try:\n    edge_resnet.cli.main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print('LOADED', sorted(set({(*HEAVY, 'numpy', 'pydantic')!r}) & set(sys.modules)))"
    )
    result = _run(code)
    assert result.returncode == 0, result.stderr
    assert "LOADED []" in result.stdout


def test_help_is_quick() -> None:
    """--help takes at most 0.3 s of a processor, interpreter and all, or on a slow machine 2.5 times what its libraries take
    there; the fastest of up to seven runs of each."""

    def seconds(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], check=True, capture_output=True, cwd=REPO)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    ours, libraries = float("inf"), float("inf")
    for _ in range(7):
        ours = min(ours, seconds("-m", "edge_resnet", "--help"))
        if ours <= 0.3:
            return
        libraries = min(libraries, seconds("-c", "import typer.rich_utils"))
    assert ours <= 2.5 * libraries


def test_the_device_side_loads_without_torch_and_onnx() -> None:
    """Evaluating and running import neither torch, torchvision nor onnx, directly or through others."""
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'onnx'): sys.modules[name] = None\n"
        "import edge_resnet.streaming.loop, edge_resnet.measurement.accuracy, edge_resnet.runtime.onnxruntime\n"
        "import edge_resnet.deployment.doctor.checks\n"
        "import edge_resnet.images.datasets, edge_resnet.quantization.recipes"
    )
    result = _run(code)
    assert result.returncode == 0, result.stderr


def test_the_package_loads_nothing() -> None:
    """Importing edge_resnet takes nothing but the standard library, and less than 20 ms of a processor."""
    code = (
        "import sys, time; before = set(sys.modules); start = time.process_time()\n"
        "import edge_resnet\n"
        "seconds = time.process_time() - start\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names) - {'edge_resnet'}), seconds)"
    )
    found, seconds = zip(*(_run(code).stdout.rsplit(maxsplit=1) for _ in range(3)), strict=True)
    assert set(found) == {"[]"}
    assert min(map(float, seconds)) < 0.02


def test_the_wings_are_few() -> None:
    """The package has at most sixteen entries beside __init__, __main__ and py.typed."""
    entries = {path.name for path in PACKAGE.iterdir()} - {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
    assert len(entries) <= 16


def test_imports_point_down() -> None:
    """import-linter's contracts in pyproject.toml hold."""
    result = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], capture_output=True, text=True, check=False, cwd=REPO
    )
    assert result.returncode == 0, result.stdout
