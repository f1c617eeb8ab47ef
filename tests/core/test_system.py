"""On anything but Linux the command and the Python API refuse in one line, before they import what only Unix has."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edge_resnet.core.errors import EdgeResnetError
from edge_resnet.core.system import check_system

#: Another system as far as Python can tell: its name, and no modules of Unix.
_ELSEWHERE = """
import sys
class Unix:
    def find_spec(self, name, path=None, target=None):
        if name in missing: raise ModuleNotFoundError(f"No module named {name!r}", name=name)
missing = ("fcntl", "resource", "pwd", "grp", "termios")
for name in missing: sys.modules.pop(name, None)
sys.meta_path.insert(0, Unix())
sys.platform, sys.argv = sys.argv[1], ["edge-resnet", "doctor"]
"""


def _elsewhere(system: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _ELSEWHERE + code, system], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(
    ("system", "name", "remedy"),
    [("win32", "Windows", "WSL2"), ("darwin", "macOS", "container"), ("freebsd14", "freebsd14", "container")],
)
def test_the_command_refuses(system: str, name: str, remedy: str) -> None:
    """Two lines on stderr, exit code 1, no traceback."""
    done = _elsewhere(system, "from edge_resnet.__main__ import main\nmain()")
    error, hint = done.stderr.splitlines()
    assert error == f"error: edge-resnet runs on Linux, and this is {name}"
    assert hint.startswith("hint: use ")
    assert remedy in hint
    assert (done.returncode, done.stdout) == (1, "")


def test_the_python_api_refuses() -> None:
    """The package and its errors can be imported; what needs Linux raises EdgeResnetError with the same remedy."""
    code = (
        "import edge_resnet as er\n"
        "try:\n    er.load('artifacts/mine')\nexcept er.EdgeResnetError as error:\n    print(error.message, error.hint, sep='; ')"
    )
    done = _elsewhere("win32", code)
    assert done.stderr == ""
    assert done.stdout.startswith("edge-resnet runs on Linux, and this is Windows; use WSL2")


def test_linux_is_accepted() -> None:
    """Also as WSL2 is, which calls itself Linux; the refusal is an EdgeResnetError."""
    check_system()
    check_system("linux")
    with pytest.raises(EdgeResnetError):
        check_system("win32")
