"""The project's CUDA kernels: PTX of this package, which a GPU's driver compiles, or else a cubin that nvcc makes here.

Does not know CUDA: whoever owns the GPU says whether it takes them. Needs no GPU itself.
"""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
import threading
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from edge_resnet.core.errors import BackendError, ConfigError, EdgeResnetError
from edge_resnet.core.files import cache_folder, replace_files
from edge_resnet.core.process import run_within
from edge_resnet.core.staging import sweep
from edge_resnet.device.machine import find_nvcc

__all__ = ["PTX_CAPABILITY", "PTX_CUDA", "Kernels", "compile_kernels", "ptx_with_digests", "shipped_ptx"]

#: The CUDA version whose NVRTC made the PTX, and the compute capability that it is for. A driver takes PTX of its own and of
#: older CUDA versions (PTX ISA, section "Release Notes"), for its GPU's and lower compute capabilities.
PTX_CUDA = "11.8"
PTX_CAPABILITY = "5.2"
_SOURCE = "resize.cu"
_PTX = "resize.ptx"
#: Lines of the header that ``ptx_with_digests`` writes.
_HEADER_LINES = 3
_TIMEOUT_S = 120.0
_log = logging.getLogger(__name__)


def shipped_ptx() -> bytes:
    """The PTX in this package; it ends with NUL, as the driver expects of PTX.

    Raises BackendError if it is missing, damaged, or not made from the source in this package.
    """
    folder, hint = resources.files(__package__), "pip install --force-reinstall --no-deps edge-resnet"
    try:
        source, ptx = (folder / _SOURCE).read_bytes(), (folder / _PTX).read_bytes()
    except OSError as error:
        name = Path(error.filename or _PTX).name
        raise BackendError(f"{name} of this package cannot be read: {error.strerror}", hint=hint) from error
    if ptx != ptx_with_digests(source, ptx.split(b"\n", _HEADER_LINES)[-1]):
        raise BackendError(f"{_PTX} of this package is damaged, or not made from its {_SOURCE}", hint=hint)
    return ptx + b"\0"


def ptx_with_digests(source: bytes, ptx: bytes) -> bytes:
    """PTX below a header that binds it to its source."""
    of_source, below = (hashlib.sha256(content).hexdigest() for content in (source, ptx))
    lines = ("Made by `make ptx`; do not edit.", f"sha256 of {_SOURCE}: {of_source}", f"sha256 of the lines below: {below}")
    return "".join(f"// {line}\n" for line in lines).encode() + ptx


def compile_kernels(nvcc: Path, compute_capability: str, folder: Path) -> Path:
    """The kernels' cubin for a GPU of that compute capability, such as ``8.7``, in ``folder``; compiled if it is not there.

    The file's name depends on source, compiler and GPU. The file appears whole or not at all, even if two processes compile it.
    Raises BackendError with the compiler's first error if it fails, and if the folder cannot be written.
    """
    if not re.fullmatch(r"\d+\.\d", compute_capability):
        raise ConfigError(f"a compute capability looks like 8.7, not {compute_capability!r}", hint="edge-resnet doctor")
    architecture = "sm_" + compute_capability.replace(".", "")
    options = ["-cubin", f"-arch={architecture}"]
    source = (resources.files(__package__) / _SOURCE).read_bytes()
    version = _run([str(nvcc), "--version"])
    digest = hashlib.sha256("\0".join([version, *options]).encode() + source).hexdigest()[:16]
    target = folder / f"resize-{architecture}-{digest}.cubin"
    sweep(folder)
    if not target.is_file():
        _log.info("compiling the CUDA kernels with %s", nvcc)
        try:
            _compile([str(nvcc), *options], source, target)
        except OSError as error:
            raise BackendError(
                f"the CUDA kernels cannot be written to {folder}: {error.strerror or error}",
                hint="set XDG_CACHE_HOME to a folder that you may write to",
            ) from error
    return target


def _compile(command: list[str], source: bytes, target: Path) -> None:
    def compiled(part: Path) -> None:
        with tempfile.TemporaryDirectory(dir=part.parent) as name:
            source_file = Path(name, _SOURCE)
            source_file.write_bytes(source)
            _run([*command, "-o", str(part), str(source_file)])
        if not part.is_file() or not part.stat().st_size:
            raise BackendError(f"{command[0]} wrote no CUDA kernels", hint="reinstall the CUDA toolkit")

    replace_files({target: compiled})


def _run(command: list[str]) -> str:
    """The command's output. Raises BackendError if it fails, hangs, or cannot be started."""
    try:
        done = run_within(command, _TIMEOUT_S)
    except OSError as error:
        raise BackendError(f"{command[0]} cannot be started: {error.strerror}", hint="reinstall the CUDA toolkit") from error
    if done is None:
        raise BackendError(f"{command[0]} did not end within {_TIMEOUT_S:g} s", hint="retry when the machine is idle")
    output = done.stderr + done.stdout
    if done.code:
        lines = [line.strip() for line in output.splitlines() if line.strip()] or [f"exit code {done.code}"]
        first = next((line for line in lines if re.search(r"\b(error|fatal)\b", line, re.IGNORECASE)), lines[0])
        raise BackendError(
            f"the CUDA kernels cannot be compiled: {first}",
            hint="install g++ and a CUDA toolkit for this GPU; CUDA_HOME or PATH selects one of several",
        )
    return output


class Kernels:
    """The kernels for a GPU of that compute capability, such as ``8.7``. Thread-safe.

    ``check``: raises an EdgeResnetError if the GPU refuses the kernels that it is given.
    """

    def __init__(self, compute_capability: str, check: Callable[[bytes], None]) -> None:
        self._compute_capability = compute_capability
        self._check = check
        self._module: bytes | None = None
        self._asked = False
        self._lock = threading.Lock()

    def module(self) -> bytes | None:
        """What the driver loads: the PTX of this package; a cubin, cached or compiled now, if it refuses that; None if both fail.

        The driver compiles PTX when it first meets it, and keeps the result in its own cache (CUDA_CACHE_PATH).
        """
        with self._lock:
            if not self._asked:
                self._module = self._shipped() or self._compiled()
                self._asked = True
        return self._module

    def _shipped(self) -> bytes | None:
        try:
            ptx = shipped_ptx()
            self._check(ptx)
        except EdgeResnetError as error:
            _log.warning("the kernels of this package are not used: %s", _first_line(error))
            return None
        _log.info("frames are resized on the GPU, by the kernels of this package")
        return ptx

    def _compiled(self) -> bytes | None:
        nvcc = find_nvcc()
        if nvcc is None:
            _log.warning("frames are resized on the CPU: no nvcc either (edge-resnet doctor shows how to install it)")
            return None
        try:
            cubin = compile_kernels(nvcc, self._compute_capability, cache_folder() / "kernels").read_bytes()
            self._check(cubin)
        except (EdgeResnetError, OSError) as error:
            _log.warning("frames are resized on the CPU: %s", _first_line(error))
            return None
        _log.info("frames are resized on the GPU, by kernels that %s compiled", nvcc)
        return cubin


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
