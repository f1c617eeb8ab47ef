"""The board and the linters that the tests of deploy/ share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from boards import MODES, OPENCV, TENSORRT, Board, power_modes


@pytest.fixture
def board(tmp_path: Path) -> Board:
    """An Orin Nano with JetPack 6.2 and all that edge-resnet needs."""
    board = Board(tmp_path / "root", tmp_path / "bin")
    board.bin.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    board.environment = {
        "PATH": f"{board.bin}{os.pathsep}/usr/bin{os.pathsep}/bin",
        "ROOT": str(board.root), "CALLS": str(tmp_path / "calls"), "HOME": str(home), "LC_ALL": "C",
    }  # fmt: skip
    board.release("36.4.3")
    board.write("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit Super\0")
    board.write("etc/nvpmodel.conf", "# < POWER_MODEL ID=id_num NAME=mode_name >\n" + power_modes(MODES))
    board.mode(2)
    board.memory(7620, 5000, 3810)
    board.write("usr/local/cuda/bin/nvcc", "", executable=True)
    board.module("tensorrt", TENSORRT)
    board.module("cv2", OPENCV.format(has=True))
    modules = board.root / "usr/lib/python3/dist-packages"
    # A real Python that sees the board's modules and none of this machine's.
    board.write("usr/bin/python3", f'#!/bin/bash\nPYTHONPATH="{modules}" exec "{sys.executable}" -S -B "$@"\n', executable=True)
    board.quiet_stub("df", 'printf "Filesystem 1024-blocks Used Available\\n/dev/x 9 9 %s\\n" "${FREE_KIB:-20971520}"')
    board.quiet_stub("id", 'case $1 in -un) echo nvidia ;; -nG) echo "${GROUPS_OF:-nvidia video}" ;; esac')
    board.quiet_stub("sudo", 'exec "$@"')
    # In every test, so that no script can ever reach the real ones.
    for name in ("apt-get", "udevadm", "usermod"):
        board.stub(name)
    return board


@pytest.fixture
def tool() -> Callable[[str, str], str]:
    """The path of a linter beside this Python or on PATH; without it the test is skipped."""

    def find(name: str, package: str) -> str:
        beside = Path(sys.executable).parent / name
        found = str(beside) if beside.exists() else shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed: pip install {package}")
        return found

    return find
