"""kernels.py: nvcc is found, kernels are compiled once and stored whole; and what source and PTX compute, run on the CPU."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import resources
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from standins.ptx import library_of

from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.core.records import Interpolation, Preprocess
from edge_resnet.device.machine import find_nvcc
from edge_resnet.images.preprocess import is_down_first, plan_crop, preprocess_bgr
from edge_resnet.runtime.tensorrt import kernels
from edge_resnet.runtime.tensorrt.kernels import compile_kernels
from edge_resnet.runtime.tensorrt.resampling import FRACTION_BITS, resampling_weights

REPO = Path(__file__).resolve().parents[3]
SOURCE = REPO / "edge_resnet/runtime/tensorrt/resize.cu"
GUARD = 64
needs_gxx = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to stand in for nvcc")
Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in of nvcc, not on the PATH, which logs its compilations to a file beside it."""
    path = Path(shutil.copy(REPO / "tests/standins/nvcc", tmp_path / "nvcc"))
    path.chmod(0o755)
    monkeypatch.setenv("NVCC_LOG", str(tmp_path / "log"))
    return path


@pytest.fixture(scope="module", params=["source", "ptx"])
def library(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> ctypes.CDLL:
    """The kernels for the CPU, which abort on undefined behaviour: the source compiled, and the shipped PTX translated."""
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    if request.param == "ptx":
        return library_of(SOURCE.with_suffix(".ptx").read_text(encoding="ascii"))
    path = tmp_path_factory.mktemp("kernels") / "resize.so"
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]
    subprocess.run(["g++", "-x", "c++", "-std=c++14", "-shared", "-fPIC", "-O2", *strict, "-o", path, SOURCE], check=True)
    return ctypes.CDLL(str(path))


def guarded(size: int) -> Pixels:
    return np.full(size + GUARD, 171, np.uint8)


def pointer(array: npt.NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def on_the_processor(library: ctypes.CDLL, frame: Pixels, spec: Preprocess, block: int) -> Pixels:
    """The result of the two kernels for a frame in blocks of that size; they may write nothing else."""
    crop, tiles = spec.crop, -(-3 * spec.crop // block)
    down, across = (resampling_weights(axis, crop, spec.interpolation) for axis in plan_crop(*frame.shape[:2], spec))
    part = frame[down.low : down.high, across.low : across.high]
    pitch = -(-part.shape[1] * 3 // 4)
    rows = np.zeros((len(part), pitch * 4), np.uint8)
    rows[:, : part.shape[1] * 3] = part.reshape(len(part), -1)
    turned = is_down_first(*frame.shape[:2], spec)
    between, result = guarded(crop * pitch * 4 if turned else len(part) * crop * 3), guarded(crop * crop * 3)
    begin, middle, end = pointer(rows), pointer(between), pointer(result)
    if turned:
        wide = -(-pitch * 4 // block)
        library.resize_columns(begin, pitch * 4, pointer(down.table), crop, middle, crop, wide, block)
        library.resize_rows(middle, pitch, pointer(across.table), crop, end, crop, tiles, block)
    else:
        library.resize_rows(begin, pitch, pointer(across.table), crop, middle, len(part), tiles, block)
        library.resize_columns(middle, 3 * crop, pointer(down.table), crop, end, crop, tiles, block)
    assert (between[-GUARD:] == 171).all()
    assert (result[-GUARD:] == 171).all()
    return result[:-GUARD].reshape(crop, crop, 3)


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("method", get_args(Interpolation))
@settings(max_examples=60)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 64), st.integers(0, 64), st.integers(0, 99), st.integers(1, 64))
def test_any_frame_is_preprocessed_exactly(
    library: ctypes.CDLL, method: Interpolation, height: int, width: int, crop: int, extra: int, seed: int, pixels: int
) -> None:
    """Any size, crop, filter and block: the same bytes as preprocess_bgr, and nothing else is written."""
    assume(max(height, width) / min(height, width) < 60)
    frame, spec = noise(height, width, seed), Preprocess(crop + extra, crop, method)
    if seed % 2:
        frame = np.where(frame > 127, 255, 0).astype(np.uint8)
    np.testing.assert_array_equal(on_the_processor(library, frame, spec, 3 * pixels), preprocess_bgr(frame, spec))


SPECS = (
    Preprocess(256, 224),
    Preprocess(224, 224, "bicubic"),
    Preprocess(320, 288),
    Preprocess(235, 224, "bicubic"),
    Preprocess(32, 32),
)
SIZES = ((1, 1), (1, 4000), (4000, 1), (224, 224), (256, 256), (480, 640), (1920, 1080), (2160, 3840), (3001, 3007))
#: Frames of many pixels take most of the time: each filter once in every run.
LARGE = {(2160, 3840): (SPECS[0], SPECS[3]), (3001, 3007): (SPECS[1], SPECS[4])}


@pytest.mark.parametrize(
    ("size", "spec"),
    [
        pytest.param(size, spec, marks=pytest.mark.slow if spec not in LARGE.get(size, SPECS) else ())
        for size in SIZES
        for spec in SPECS
    ],
)
def test_usual_and_extreme_frames_are_preprocessed_exactly(library: ctypes.CDLL, size: tuple[int, int], spec: Preprocess) -> None:
    """The usual crops of camera frames, of lines, and of frames too large for the shared memory of a block."""
    frame = noise(*size)
    np.testing.assert_array_equal(on_the_processor(library, frame, spec, 96), preprocess_bgr(frame, spec))


def test_the_largest_sums_fit(library: ctypes.CDLL) -> None:
    """White stays white at every scale, even if rounded weights sum to more than one."""
    for side in (1, 7, 33, 100, 1023, 3001):
        frame, spec = np.full((side, side + 5, 3), 255, np.uint8), Preprocess(40, 32)
        assert (on_the_processor(library, frame, spec, 96) == preprocess_bgr(frame, spec)).all()


def test_both_sides_agree_on_the_weights_scale() -> None:
    """The kernels and the tables have the same number of fractional bits."""
    assert f"#define FRACTION_BITS {FRACTION_BITS}\n" in SOURCE.read_text(encoding="utf-8")


@pytest.mark.parametrize("capability", ["8.7", "9.0"])
def test_nvcc_takes_the_source(tmp_path: Path, capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real compiler makes a cubin with both functions, without a warning."""
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("no nvcc here")
    said: list[str] = []
    run = kernels._run
    monkeypatch.setattr(kernels, "_run", lambda command: said.append(run([*command])) or said[-1])
    cubin = compile_kernels(nvcc, capability, tmp_path).read_bytes()
    assert cubin.startswith(b"\x7fELF")
    assert b"resize_rows\0" in cubin
    assert b"resize_columns\0" in cubin
    assert said[1:] == [""]


@needs_gxx
def test_it_is_compiled_once(tmp_path: Path, nvcc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second call finds the file; another GPU, nvcc or source makes another file, and the first stays."""
    folder, log = tmp_path / "cache" / "kernels", tmp_path / "log"
    first = compile_kernels(nvcc, "8.7", folder)
    content = first.read_bytes()
    assert compile_kernels(nvcc, "8.7", folder) == first
    assert log.read_text().split() == ["-arch=sm_87"]
    others = [compile_kernels(nvcc, "12.0", folder)]
    monkeypatch.setenv("NVCC_VERSION", "release 99")
    others.append(compile_kernels(nvcc, "8.7", folder))
    changed = tmp_path / "changed"
    changed.mkdir()
    (changed / "resize.cu").write_text(SOURCE.read_text(encoding="utf-8") + "// more\n", encoding="utf-8")
    monkeypatch.setattr(resources, "files", lambda package: changed)
    others.append(compile_kernels(nvcc, "8.7", folder))
    assert len({first, *others}) == 4
    assert first.read_bytes() == content
    assert log.read_text().split() == ["-arch=sm_87", "-arch=sm_120", "-arch=sm_87", "-arch=sm_87"]
    assert sorted(folder.iterdir()) == sorted([first, *others])


@needs_gxx
def test_what_is_there_needs_no_writable_folder(tmp_path: Path, nvcc: Path) -> None:
    """An existing cache is used, even if it is read-only as in a container; a folder that cannot be made is an error."""
    folder = tmp_path / "cache"
    made = compile_kernels(nvcc, "8.7", folder)
    folder.chmod(0o500)
    assert compile_kernels(nvcc, "8.7", folder) == made
    folder.chmod(0o700)
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="cannot be written to") as caught:
        compile_kernels(nvcc, "8.7", tmp_path / "file" / "cache")
    assert "XDG_CACHE_HOME" in caught.value.hint


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("fail", r"compiled: resize\.cu\(7\): error: a stand-in's error$"),
        ("crash", "compiled: exit code 3$"),
        ("nothing", "wrote no CUDA kernels"),
        ("hang", r"did not end within 0\.3 s"),
    ],
)
def test_a_failed_compilation_is_one_line_and_leaves_nothing(
    tmp_path: Path, nvcc: Path, monkeypatch: pytest.MonkeyPatch, does: str, words: str
) -> None:
    """nvcc's first error, and no file, not even a part of one."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("NVCC_DOES", does)
    monkeypatch.setattr(kernels, "_TIMEOUT_S", 0.3)
    with pytest.raises(BackendError, match=words) as caught:
        compile_kernels(nvcc, "8.7", folder)
    assert caught.value.hint
    assert list(folder.iterdir()) == []
    if does == "hang":
        assert gone(int((tmp_path / "log.pid").read_text()))


def test_a_compiler_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    """A file that is not a program, and one that does not exist."""
    (tmp_path / "nvcc").write_text("no program")
    (tmp_path / "nvcc").chmod(0o755)
    for name in ("nvcc", "absent"):
        with pytest.raises(BackendError, match=f"{name} cannot be started"):
            compile_kernels(tmp_path / name, "8.7", tmp_path)


@pytest.mark.parametrize("capability", ["", "87", "8.x", "8.7; rm"])
def test_nonsense_is_no_compute_capability(tmp_path: Path, nvcc: Path, capability: str) -> None:
    """Text that does not look like 8.7 is refused before anything runs."""
    with pytest.raises(ConfigError, match="compute capability"):
        compile_kernels(nvcc, capability, tmp_path / "cache")
    assert not (tmp_path / "log").exists()


CODE = (
    "import sys; from pathlib import Path; from edge_resnet.runtime.tensorrt.kernels import compile_kernels\n"
    "print(compile_kernels(Path(sys.argv[1]), '8.7', Path(sys.argv[2])))"
)


def started(nvcc: Path, folder: Path, does: str) -> subprocess.Popen[str]:
    """A child process that compiles."""
    command = [sys.executable, "-c", CODE, str(nvcc), str(folder)]
    return subprocess.Popen(
        command, env={**os.environ, "NVCC_DOES": does}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def gone(process: int) -> bool:
    """Whether a process has ended, or ends within five seconds."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@needs_gxx
def test_two_processes_may_compile_at_once(tmp_path: Path, nvcc: Path) -> None:
    """Both get the same whole file, and nothing else is left."""
    folder = tmp_path / "cache"
    children = [started(nvcc, folder, "wait") for _ in range(2)]
    found = {child.communicate(timeout=60)[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0]
    assert [str(path) for path in folder.iterdir()] == list(found)
    assert ctypes.CDLL(found.pop()).resize_rows


def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path, nvcc: Path) -> None:
    """The compiler and its child processes end, and no partial file or folder is left."""
    folder, pid = tmp_path / "cache", tmp_path / "log.pid"
    with started(nvcc, folder, "hang") as child:
        deadline = time.monotonic() + 30
        while not (pid.exists() and pid.read_text().strip()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert [path.name[:8] for path in folder.iterdir()] == [".resize-"]
        time.sleep(0.5)  # on a busy machine the compiler may run before its parent has returned from starting it
        child.send_signal(signal.SIGINT)
        assert child.wait(30) != 0
    assert list(folder.iterdir()) == []
    assert gone(int(pid.read_text()))
