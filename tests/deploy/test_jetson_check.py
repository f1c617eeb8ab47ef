"""check.sh on boards that are folders: what it accepts, and the one fix for each problem."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from boards import OPENCV, Board

from edge_resnet.deployment.doctor import checks


def _remove(path: str) -> Callable[[Board], object]:
    return lambda board: (board.root / path).unlink()


#: Problem → how to create it on the board, the name of the check, the command that fixes it.
PROBLEMS: dict[str, tuple[Callable[[Board], object], str, str]] = {
    "no python": (_remove("usr/bin/python3"), "python", "sudo apt-get install -y python3 python3-venv"),
    "old python": (
        lambda b: b.write("usr/bin/python3", "#!/bin/bash\necho 3.8\n", executable=True),
        "python", "sudo apt-get install --reinstall -y python3-minimal",
    ),
    "no venv": (lambda b: b.module("ensurepip", "raise ImportError"), "venv", "sudo apt-get install -y python3-venv"),
    "no tensorrt": (lambda b: b.module("tensorrt", None), "tensorrt", "sudo apt-get install -y nvidia-jetpack"),
    "broken tensorrt": (
        lambda b: b.module("tensorrt", "raise ImportError('libnvinfer.so.10: cannot open shared object file')"),
        "tensorrt", "sudo apt-get install --reinstall -y python3-libnvinfer",
    ),
    "no nvcc": (_remove("usr/local/cuda/bin/nvcc"), "nvcc", "sudo apt-get install -y nvidia-jetpack"),
    "no opencv": (lambda b: b.module("cv2", None), "opencv", "sudo apt-get install -y python3-opencv"),
    "system's opencv without gstreamer": (
        lambda b: b.module("cv2", OPENCV.format(has=False)), "opencv", "sudo apt-get install --reinstall -y python3-opencv"
    ),
    "opencv for numpy 1": (
        lambda b: b.module("cv2", "raise ImportError('numpy.core.multiarray failed to import')"),
        "opencv", "ROOT/usr/bin/python3 -m pip install 'numpy<2'",
    ),
    "broken opencv": (
        lambda b: b.module("cv2", "raise ImportError('libopencv_core.so: no such file')"),
        "opencv", "sudo apt-get install --reinstall -y python3-opencv",
    ),
    "little memory": (lambda b: b.memory(7620, 300, 3810), "memory", "sudo systemctl isolate multi-user.target"),
    "too little to build an engine": (
        lambda b: b.memory(7620, 1500, 3810), "memory", "sudo systemctl isolate multi-user.target"
    ),
    "no swap on a small board": (
        lambda b: b.memory(7620, 5000, 0),
        "swap", "sudo fallocate -l 8G /swap && sudo chmod 600 /swap && sudo mkswap /swap && sudo swapon /swap",
    ),
    "no swap though JetPack can make it": (
        lambda b: (b.memory(7620, 5000, 0), b.write("etc/systemd/nvzramconfig.sh", "")),
        "swap", "sudo systemctl enable --now nvzramconfig",
    ),
    "full disk": (lambda b: b.environment.update(FREE_KIB="100000"), "disk", "sudo apt-get clean"),
    "not in video": (lambda b: b.environment.update(GROUPS_OF="nvidia sudo"), "group", "sudo usermod -aG video nvidia"),
}  # fmt: skip

NOTES: dict[str, tuple[Callable[[Board], object], str, str]] = {
    "a mode with a budget": (lambda b: b.mode(1), "power", "power.sh max"),
    "no mode": (_remove("var/lib/nvpmodel/status"), "power", "sudo nvpmodel -q"),
    "no meminfo": (_remove("proc/meminfo"), "memory", "cat /proc/meminfo"),
}


def _lines(board: Board) -> tuple[int, list[str]]:
    result = board.run("check.sh")
    assert result.stderr == ""
    return result.returncode, result.stdout.replace(str(board.root), "ROOT").splitlines()


@pytest.mark.parametrize(("l4t", "jetpack"), [("36.3.0", "6.0"), ("36.4.3", "6.2"), ("38.4.0", "7.1"), ("39.2.0", "7.2")])
def test_a_whole_board_is_ready(l4t: str, jetpack: str, board: Board) -> None:
    """JetPack 6 and 7 with everything installed: every line is ok, exit code 0, and the next command is named."""
    board.release(l4t)
    code, lines = _lines(board)
    assert code == 0
    assert lines[0].split() == f"ok jetpack {jetpack} (L4T {l4t}), NVIDIA Jetson Orin Nano Developer Kit Super".split()
    assert {line.split()[0] for line in lines[:-2]} == {"ok"}
    assert lines[-1].startswith("ready: ")
    assert lines[-1].endswith("/install.sh")


@pytest.mark.parametrize("lack", PROBLEMS)
def test_each_problem_has_its_remedy(lack: str, board: Board) -> None:
    """Its line says problem, the next is the one command that fixes it, the exit code is 1; no other check reports a problem."""
    spoil, name, remedy = PROBLEMS[lack]
    spoil(board)
    code, lines = _lines(board)
    found = [(line.split()[1], lines[at + 1].strip()) for at, line in enumerate(lines) if line.startswith("problem")]
    assert code == 1
    assert (name, remedy) in found
    assert lines[-1] == f"not ready: {len(found)} problem(s)"
    if "python" not in lack:
        assert [checked for checked, _ in found] == [name]


@pytest.mark.parametrize("lack", NOTES)
def test_what_could_be_better_is_no_problem(lack: str, board: Board) -> None:
    """A note names its fix, and the exit code stays 0."""
    spoil, name, remedy = NOTES[lack]
    spoil(board)
    code, lines = _lines(board)
    noted = {line.split()[1]: lines[at + 1].strip() for at, line in enumerate(lines) if line.startswith("note")}
    assert code == 0
    assert list(noted) == [name]
    assert noted[name].endswith(remedy)


@pytest.mark.parametrize(
    ("memory", "zram"),
    [
        pytest.param(memory, zram, marks=[pytest.mark.slow] * (zram and memory[1] != 1500))
        for memory in ((7620, 5000, 3810), (7620, 1500, 0), (7620, 300, 8), (62841, 1024, 0), (8192, 2048, 0))
        for zram in (True, False)
    ],
)
def test_memory_is_judged_as_doctor_judges_it(
    memory: tuple[int, int, int], zram: bool, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A problem for check.sh is one for doctor, with the same fix."""
    monkeypatch.setattr(checks, "check_backends", lambda _: [])
    board.memory(*memory)
    if zram:
        board.write("etc/systemd/nvzramconfig.sh", "")
    _, lines = _lines(board)
    found = {line.split()[1]: lines[at + 1].strip() for at, line in enumerate(lines) if line.startswith("problem")}
    judged = [check for check in checks.examine(board.root) if check.name in ("memory", "swap")]
    assert len(judged) == 2
    assert found == {check.name: check.fix for check in judged if check.status == "problem"}


def test_pips_opencv_is_told_from_the_systems(board: Board) -> None:
    """An OpenCV without GStreamer outside the system's folder is pip's: it has to be removed, not reinstalled."""
    board.module("cv2", None)
    board.module("cv2", OPENCV.format(has=False), folder="usr/local/lib/python3.10/dist-packages")
    modules = board.root / "usr/local/lib/python3.10/dist-packages"
    python = board.root / "usr/bin/python3"
    python.write_text(python.read_text().replace('PYTHONPATH="', f'PYTHONPATH="{modules}:'), encoding="utf-8")
    code, lines = _lines(board)
    assert code == 1
    assert "ROOT/usr/bin/python3 -m pip uninstall -y opencv-python opencv-python-headless" in [line.strip() for line in lines]


def test_a_big_board_needs_no_swap(board: Board) -> None:
    """An AGX Orin without swap gets no note."""
    board.memory(62841, 50000, 0)
    code, lines = _lines(board)
    assert code == 0
    assert not [line for line in lines if line.startswith("note")]


def test_it_only_reads(board: Board) -> None:
    """No file of the board changes, and sudo is never called."""
    board.quiet_stub("sudo", 'echo sudo "$@" >>"$CALLS"')
    before = board.files()
    board.run("check.sh")
    assert board.files() == before
    assert board.calls == []


def test_a_dry_run_is_the_same(board: Board) -> None:
    """--dry-run is accepted and does not change the output."""
    assert board.run("check.sh", "--dry-run").stdout == board.run("check.sh").stdout
