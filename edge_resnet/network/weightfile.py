"""Reads weights files: what kind of file one is, how large it may be, and its content, of which no code is executed.

Knows torch's and safetensors' formats, not which keys a network has.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import load_file
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from edge_resnet.core.errors import WeightsError, is_out_of_memory
from edge_resnet.core.records import Preprocess
from edge_resnet.core.text import printable

__all__ = ["FORMATS", "STATED", "read_weights_file", "shown", "stated_preprocess"]

FORMATS = "a .pth, .th, .pt, .ckpt or .safetensors file with a state dict"
#: The key of a safetensors file's metadata under which ``train`` states the preprocessing, as JSON.
STATED = "edge-resnet.preprocess"
#: ResNet-152 in float64 with an optimizer's two moments and an average needs 2 GiB.
_MAX_BYTES = 8 * 2**30
#: Of what is parsed before any tensor is read: a pickle, or safetensors' header. 1,202 layers, an optimizer and an average need
#: 3 MiB.
_MAX_HEADER = 4 * 2**20
#: Reads of a pickle that has no size of its own, in torch's format before 1.6: one to three for each of its operations.
_MAX_READS = 4_000_000
_MAX_MEMBERS = 100_000
_AGAIN = "download or copy the file again"
#: First bytes of files that are no weights, what they are, and what helps.
_STRANGERS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights", "git lfs pull, in its repository, fetches the file"),
    (
        b"<",
        "is a web page or XML, not weights",
        "the address answered with a page: open it in a browser, and save the file itself",
    ),
    (b"\x89HDF", "is an HDF5 file, as Keras writes them", "save the torch network's state dict instead"),
    (b"\x1f\x8b", "is compressed by gzip", "unpack it first"),
    (b"Rar!", "is a RAR archive", "unpack it first"),
    (b"7z\xbc\xaf", "is a 7-Zip archive", "unpack it first"),
)
#: What training scripts store beside the tensors: plain values, whose reconstruction runs no code. torch refuses them otherwise.
_SCALAR = np.float64(0).__reduce__()[0]
_PLAIN_VALUES: list[Any] = [
    argparse.Namespace,
    np.dtype,
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    *(type(np.dtype(code)) for code in "?bBhHiIqQefd"),
]


def read_weights_file(path: Path) -> Mapping[Any, object]:
    """The mapping in a weights file, of tensors or of whatever else its writer stored; no code in it is executed.

    The format is found by the content, not by the file's name. Raises WeightsError if the file is not one that torch.save or
    safetensors wrote, is damaged, cannot be read without executing code, or would unpack to more than it holds.
    """
    try:
        content = _read(path)
    except WeightsError:
        raise
    except Exception as error:  # RuntimeError, EOFError, KeyError, IndexError, SafetensorError and more, by where the damage is
        if is_out_of_memory(error):
            raise
        raise WeightsError(f"{path} is damaged or is not a weights file ({_first_sentence(error)})", hint=_AGAIN) from error
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise WeightsError(f"weights file {path} contains a {kind}, not a state dict", hint=f"weights are {FORMATS}")
    return content


def stated_preprocess(path: Path) -> Preprocess | None:
    """What the training that wrote a weights file says about preprocessing; None where it says nothing.

    The file must be one that ``read_weights_file`` has accepted. Raises WeightsError if what it says makes no sense.
    """
    with path.open("rb") as file:
        if file.read(9)[8:] != b"{":
            return None
    with safe_open(path, framework="pt") as tensors:
        text = (tensors.metadata() or {}).get(STATED)
    if text is None:
        return None
    try:
        return TypeAdapter(Preprocess).validate_python(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} states preprocessing that makes no sense", hint=_AGAIN) from error


def shown(name: str) -> str:
    """A name from a file as it may be shown: control characters escaped, and of at most 200 characters."""
    return printable(name[:200])


def _read(path: Path) -> object:
    if not path.is_file():
        fault = "is not a file" if path.exists() else "does not exist"
        raise WeightsError(f"weights file {path} {fault}", hint=f"weights are {FORMATS}")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
    if size > _MAX_BYTES:
        raise WeightsError(
            f"weights file {path} has {size / 2**30:.1f} GiB, {_MAX_BYTES // 2**30} are the maximum",
            hint="save only the state dict, without the optimizer",
        )
    _refuse_stranger(path, start)
    if zipfile.is_zipfile(path) or start.startswith(b"PK"):
        _check_archive(path, size)
    elif start[8:9] == b"{":
        header = struct.unpack("<Q", start[:8])[0]
        if header > min(size, _MAX_HEADER):
            raise WeightsError(
                f"weights file {path} is damaged: its header would have {header} bytes, of {size} in all", hint=_AGAIN
            )
        return load_file(path)
    return _unpickled(path, size)


def _refuse_stranger(path: Path, start: bytes) -> None:
    """Raise WeightsError that says what a file is that no training script writes as weights."""
    if not start:
        raise WeightsError(f"weights file {path} is empty", hint=_AGAIN)
    for magic, what, remedy in _STRANGERS:
        if start.lstrip().startswith(magic):
            raise WeightsError(f"weights file {path} {what}", hint=remedy)
    if start[257:262] == b"ustar":
        raise WeightsError(f"weights file {path} is a tar archive", hint="unpack it first")
    if path.suffix == ".onnx":
        raise WeightsError(f"weights file {path} is an ONNX graph", hint="save the torch network's state dict instead")
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        first = start.decode("ascii").strip().splitlines()[0][:40] if start.strip() else ""
        raise WeightsError(f"weights file {path} is text that begins with {first!r}", hint=f"weights are {FORMATS}")


def _check_archive(path: Path, size: int) -> None:
    """Refuse zip files that torch.save did not write, and those whose members hold more than the file does."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise WeightsError(f"weights file {path} is damaged or cut short ({_first_sentence(error)})", hint=_AGAIN) from error
    names = {member.filename.partition("/")[2]: member for member in members[:_MAX_MEMBERS]}
    if "constants.pkl" in names or any(name.startswith("code/") for name in names):
        load = f"torch.jit.load({str(path)!r}, map_location='cpu').state_dict()"
        raise WeightsError(f"{path} is a TorchScript program, not a state dict", hint=_save_command(load))
    if "data.pkl" not in names:
        raise WeightsError(f"{path} is a zip archive that torch.save did not write", hint=f"weights are {FORMATS}")
    total = sum(member.file_size for member in members)
    if len(members) > _MAX_MEMBERS or total > size or names["data.pkl"].file_size > _MAX_HEADER:
        raise WeightsError(
            f"{path} has {size} bytes and would unpack to {total} in {len(members)} members, as no file of torch.save does",
            hint=_AGAIN,
        )


def _unpickled(path: Path, size: int) -> object:
    """What torch.save wrote, where it is tensors and plain values."""
    try:
        with _Counted(io.FileIO(path)) as file, warnings.catch_warnings(), safe_globals(_PLAIN_VALUES):
            warnings.simplefilter("ignore")  # torch warns about its internals before it raises what is mapped below
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _contains_code(path, error) from error
    # Elements are counted in the pickle and stored beside it: a count that is too large would read other memory as weights.
    if sum(_storages(content).values()) > size:
        raise WeightsError(f"weights file {path} is damaged: its tensors are larger than the file", hint=_AGAIN)
    return content


class _Counted(io.BufferedReader):
    """A file that ends a pickle of endless operations, of which each may also put something on the stack."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes. Raises EOFError after too many calls."""
        self._count()
        return super().read(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read a line. Raises EOFError after too many calls."""
        self._count()
        return super().readline(size)

    def _count(self) -> None:
        self.reads += 1
        if self.reads > _MAX_READS:
            raise EOFError(f"more than {_MAX_READS} operations")


def _storages(content: object) -> dict[int, int]:
    """The bytes of each storage in a checkpoint by its address. Containers are visited once: one may contain itself."""
    found, seen, waiting = dict[int, int](), set[int](), [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, torch.Tensor) and one.layout == torch.strided and not one.is_meta:
            storage = one.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(one, Mapping | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(one.values() if isinstance(one, Mapping) else one)
    return found


def _contains_code(path: Path, error: Exception) -> WeightsError:
    """What kind of object a pickle would construct by executing code, and how to get its tensors where its origin is trusted."""
    foreign: list[str] = []
    with suppress(Exception):  # what cannot be parsed has no names
        foreign = [shown(name) for name in sorted(get_unsafe_globals_in_checkpoint(str(path)))]
    foreign = foreign or re.findall(r"GLOBAL ([\w.]+)", str(error))
    if not foreign:
        return WeightsError(
            f"{path} contains code or is not a weights file", hint="save only the state dict, preferably as .safetensors"
        )
    load = f"torch.load({str(path)!r}, map_location='cpu', weights_only=False)"
    if any(name.startswith("torch.nn.") for name in foreign):
        what, load = "a pickled module instead of its state dict", f"{load}.state_dict()"
    else:
        what, load = f"objects of {', '.join(foreign[:3])}", f"{load}['state_dict']"
    return WeightsError(
        f"{path} contains code or is not a weights file: loading it would run the code of {what}",
        hint=f"if you trust its origin: {_save_command(load)}",
    )


def _save_command(tensors: str) -> str:
    return f'python -c "import torch; torch.save({tensors}, {"weights.pth"!r})"'


def _first_sentence(error: Exception) -> str:
    """The first sentence of another library's error, with the error's type if the text is a single word."""
    text = shown(re.split(r"\. |\n", str(error).strip())[0].rstrip("."))
    return text if " " in text else f"{type(error).__name__} {text}".strip()
