"""The CUDA kernels without a GPU: makes the PTX that the package ships, and lists what NVIDIA's compilers make of it.

    python benchmarks/kernels.py            # tables: NVRTC's targets, and registers and spills of each architecture
    python benchmarks/kernels.py --write    # or make ptx: resize.ptx from resize.cu, by the NVRTC of CUDA 11.8

Takes NVRTC and ptxas from the wheels of ``dev`` and ptxas also from the PATH. Does not know what the kernels compute.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edge_resnet.core.files import write_whole
from edge_resnet.runtime.tensorrt.kernels import PTX_CAPABILITY, PTX_CUDA, ptx_with_digests

FOLDER = Path(__file__).resolve().parent.parent / "edge_resnet" / "runtime" / "tensorrt"
SOURCE, PTX = FOLDER / "resize.cu", FOLDER / "resize.ptx"
#: C++14 is what the host's compilers take the source as, too.
OPTIONS = ("-std=c++14",)
#: From Turing to Blackwell: the architectures of sm_75 and later that any ptxas knows.
ARCHITECTURES = (75, 80, 86, 87, 88, 89, 90, 100, 101, 103, 110, 120, 121)
KERNELS = ("resize_rows", "resize_columns")


@dataclass(frozen=True)
class Nvrtc:
    """One libnvrtc. ``version``: that of its CUDA, such as ``11.8``. ``targets``: its virtual architectures, 52 for 5.2."""

    library: ctypes.CDLL
    version: str
    targets: tuple[int, ...]

    def compile(self, source: bytes, target: int) -> tuple[bytes, str]:
        """The PTX and the compiler's log. Raises RuntimeError with the log if it fails."""
        # NVRTC leaves the thread that calls it in the locale C, in which Python decodes files as ASCII.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._compile, source, target).result()

    def _compile(self, source: bytes, target: int) -> tuple[bytes, str]:
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), source, SOURCE.name.encode(), 0, None, None)
        try:
            options = [option.encode() for option in (*OPTIONS, f"-arch=compute_{target}")]
            failed = self.library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
            log = self._text("ProgramLog", program).decode().strip()
            if failed:
                raise RuntimeError(f"NVRTC {self.version} for compute_{target}: {log}")
            return self._text("PTX", program), log
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _text(self, what: str, program: ctypes.c_void_p) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, text)
        return text.value

    def _call(self, name: str, *arguments: object) -> None:
        if code := getattr(self.library, name)(*arguments):
            raise RuntimeError(f"{name} of NVRTC {self.version} failed with {code}")


@dataclass(frozen=True)
class Usage:
    """What ptxas says of one kernel. ``spills``: bytes of spill stores and loads; ``shared``: bytes of shared memory."""

    kernel: str
    registers: int
    spills: int
    shared: int


@cache
def nvrtcs() -> tuple[Nvrtc, ...]:
    """Every NVRTC that a wheel has installed, the oldest first."""
    found = [_opened(path) for path in _installed("lib/libnvrtc.so.*")]
    return tuple(sorted(found, key=lambda nvrtc: [int(part) for part in nvrtc.version.split(".")]))


def assemblers() -> list[Path]:
    """ptxas of the wheel, and the one on the PATH."""
    on_path = shutil.which("ptxas")
    return [*_installed("bin/ptxas"), *([Path(on_path)] if on_path else [])]


def assemble(ptxas: Path, ptx: bytes, architecture: int) -> list[Usage] | None:
    """What each kernel uses; None if that ptxas does not know the architecture. Raises RuntimeError if it refuses the PTX."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernels.ptx")
        file.write_bytes(ptx)
        command = [str(ptxas), "-v", f"-arch=sm_{architecture}", "-o", f"{folder}/kernels.cubin", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if "is not defined for option 'gpu-name'" in said:
        return None
    if done.returncode:
        raise RuntimeError(f"{ptxas} for sm_{architecture}: {said.strip()}")
    return [_usage(part) for part in said.split("Compiling entry function")[1:]]


def made_ptx() -> bytes:
    """What resize.ptx should hold. Raises RuntimeError if the NVRTC of CUDA 11.8 is not installed."""
    nvrtc = next((nvrtc for nvrtc in nvrtcs() if nvrtc.version == PTX_CUDA), None)
    if nvrtc is None:
        raise RuntimeError(f"NVRTC {PTX_CUDA} is not installed: pip install nvidia-cuda-nvrtc-cu11==11.8.89")
    source = SOURCE.read_bytes()
    return ptx_with_digests(source, nvrtc.compile(source, int(PTX_CAPABILITY.replace(".", "")))[0])


def isa_of(ptx: bytes) -> str:
    """The version of the instruction set that PTX needs, such as ``7.8``."""
    version = re.search(rb"^\.version ([\d.]+)$", ptx, re.MULTILINE)
    assert version
    return version[1].decode()


def main() -> None:
    """Write the PTX, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make resize.ptx")
    if parser.parse_args().write:
        write_whole(PTX, made_ptx())
        print(f"{PTX.name}: {PTX.stat().st_size} bytes, ISA {isa_of(PTX.read_bytes())}")
        return
    _print_nvrtcs()
    _print_usage()


def _print_nvrtcs() -> None:
    source = SOURCE.read_bytes()
    print("| NVRTC | virtual architectures | ISA of its PTX |\n|---|---|---|")
    for nvrtc in nvrtcs():
        written: dict[str, None] = {}
        for target in nvrtc.targets:
            written[isa_of(nvrtc.compile(source, target)[0])] = None
        print(f"| {nvrtc.version} | {' '.join(map(str, nvrtc.targets))} | {' '.join(written)} |")


def _print_usage() -> None:
    ptx = PTX.read_bytes()
    head = [f"{kernel}: {what}" for kernel in KERNELS for what in ("registers", "spilled bytes", "shared bytes")]
    print(f"\n| architecture | ptxas | ISA | {' | '.join(head)} |\n|{'---|' * (len(head) + 3)}")
    for architecture in ARCHITECTURES:
        for ptxas in assemblers():
            found = assemble(ptxas, ptx, architecture)
            if found is not None:
                used = {usage.kernel: f"{usage.registers} | {usage.spills} | {usage.shared}" for usage in found}
                cells = " | ".join(used[kernel] for kernel in KERNELS)
                print(f"| sm_{architecture} | {_release_of(ptxas)} | {isa_of(ptx)} | {cells} |")


def _installed(pattern: str) -> list[Path]:
    """Files of NVIDIA's wheels, whose folders differ by the version of CUDA."""
    return [path for folder in dict.fromkeys(sys.path) for path in sorted(Path(folder, "nvidia").glob(f"*/{pattern}"))]


def _opened(path: Path) -> Nvrtc:
    # NVRTC 13 finds its built-in functions by name alone, so that they must be loaded already.
    for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
        if builtins.name.split(".so.")[1].split(".")[0] == path.name.split(".so.")[1].split(".")[0]:
            ctypes.CDLL(str(builtins))
    library = ctypes.CDLL(str(path))
    major, minor, count = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    targets = (ctypes.c_int * count.value)()
    library.nvrtcGetSupportedArchs(targets)
    return Nvrtc(library, f"{major.value}.{minor.value}", tuple(targets))


def _usage(said: str) -> Usage:
    def total(pattern: str) -> int:
        return sum(int(number) for number in re.findall(pattern, said))

    name, registers = re.search(r"'(\w+)'", said), total(r"Used (\d+) registers")
    if name is None or not registers or "bytes spill stores" not in said:
        raise RuntimeError(f"ptxas said nothing of registers and spills: {said}")
    return Usage(name[1], registers, total(r"(\d+) bytes spill (?:stores|loads)"), total(r"(\d+) bytes smem"))


@cache
def _release_of(ptxas: Path) -> str:
    said = subprocess.run([str(ptxas), "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release ([\d.]+)", said)
    return release[1] if release else "?"


if __name__ == "__main__":
    main()
