"""The checks of engines: compiled, kept, and refused where they belong to something else. Runs no network."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edge_resnet.artifact.enginecache import FACTS, LAYERS, PLAN, EngineFacts, engine_key, find_engine
from edge_resnet.artifact.folder import MODEL, Artifact, describe_files, open_artifact, read_record, write_json
from edge_resnet.core.errors import IncompatibleEngineError
from edge_resnet.core.records import Precision
from edge_resnet.deployment.doctor.check import is_importable
from edge_resnet.deployment.selftest.check import Finding, NotHereError, WrongResultError, warnings_heard
from edge_resnet.measurement.layers import read_layers
from edge_resnet.pipelines.engines import prepare_engine
from edge_resnet.runtime.backend import Variant, load_backend

__all__ = ["compiled", "engine_of", "kept", "layers", "refused"]

_META = "meta.json"


def compiled(artifact: Artifact, backend: str, variant: Variant = "native") -> Finding:
    """Derive the engine of an artifact for this machine. Raises NotHereError where onnx is not installed to derive it."""
    request = load_backend(backend).engine_request(artifact, variant)
    if request is None:
        return Finding("the graph is run as it is")
    if not is_importable("onnx"):
        raise NotHereError("deriving an engine needs onnx: pip install 'edge-resnet[compile]'")
    started = time.monotonic()
    _derive(artifact, backend, variant)
    seconds = time.monotonic() - started
    folder = engine_of(artifact, backend, variant)
    size = sum(path.stat().st_size for path in folder.iterdir())
    figures = {"compile_s": round(seconds, 2), "engine_bytes": size}
    return Finding(f"{request.form} engine of {size / 2**20:.1f} MiB in {seconds:.1f} s", figures)


def engine_of(artifact: Artifact, backend: str, variant: Variant = "native") -> Path:
    """The folder of the engine. Raises WrongResultError if it is not found again after it was derived."""
    request = load_backend(backend).engine_request(artifact, variant)
    folder = None if request is None else find_engine(artifact, request.key)
    if folder is None:
        raise WrongResultError("the engine that was just derived is not found")
    return folder


def kept(artifact: Artifact, backend: str) -> Finding:
    """A second compile finds the engine of the first and writes nothing."""
    folder = engine_of(artifact, backend)
    before = _stamps(folder.parent)
    started = time.monotonic()
    _derive(artifact, backend)
    if _stamps(folder.parent) != before:
        raise WrongResultError("a second compile wrote the engine again")
    return Finding(f"a second compile finds the engine in {1e3 * (time.monotonic() - started):.0f} ms")


def refused(artifact: Artifact, backend: str, folder: Path) -> Finding:
    """In copies under ``folder``: an engine of another source, of another GPU, and one with a changed byte are not opened."""
    engine = engine_of(artifact, backend).name
    changes: dict[str, Callable[[Path], None]] = {
        "of another network": _of_another_source,
        "with a changed byte": _with_a_changed_byte,
    }
    if (artifact.engine_folder(engine) / FACTS).is_file():
        changes["of another GPU"] = _of_another_gpu
    for number, (name, change) in enumerate(changes.items()):
        copy = Path(shutil.copytree(artifact.folder, folder / str(number)))
        change(copy / "engines" / engine)
        with warnings_heard() as heard:
            try:
                load_backend(backend).open(open_artifact(copy), "native").close()
            except IncompatibleEngineError:
                if heard:
                    continue
        raise WrongResultError(f"an engine {name} is opened, or refused without a word")
    return Finding(f"engines {', '.join(changes)} are not opened")


def layers(artifact: Artifact, backend: str, precision: Precision, *, judge: bool) -> Finding:
    """The types in which an engine computes its convolutions, from its listing.

    Raises NotHereError if there is no listing, and WrongResultError if ``judge`` and most of an INT8 engine does not compute in
    INT8.
    """
    path = engine_of(artifact, backend) / LAYERS
    if not path.is_file():
        raise NotHereError("this backend lists no layers")
    listing = read_layers(path)
    kinds = Counter(layer.precision for layer in listing.layers if layer.multiplies)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    figures = {"layers": len(listing.layers), **{f"convolutions_{kind.lower()}": count for kind, count in kinds.items()}}
    if judge and (not kinds or (precision == "int8" and kinds["INT8"] <= kinds.total() / 2)):
        raise WrongResultError(f"{len(listing.layers)} layers, convolutions and products: {told or 'none'}", figures)
    return Finding(f"{len(listing.layers)} layers, convolutions and products: {told or 'none'}", figures)


def _derive(artifact: Artifact, backend: str, variant: Variant = "native") -> None:
    """Derive the engine unless it is there, also one that this machine cannot run; without onnx an engine must be there."""
    if is_importable("onnx"):
        from edge_resnet.compiler.derive import compile_engine  # needs onnx

        compile_engine(artifact, backend, variant)
    else:
        prepare_engine(artifact, backend, variant)


def _stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def _of_another_source(engine: Path) -> None:
    meta = json.loads((engine / _META).read_text(encoding="utf-8"))
    (engine / _META).write_text(json.dumps({**meta, "truth": "0" * 64}), encoding="utf-8")


def _with_a_changed_byte(engine: Path) -> None:
    path = engine / (PLAN if (engine / PLAN).is_file() else MODEL)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _of_another_gpu(engine: Path) -> None:
    """A whole engine whose every record says that it was built on another GPU, or for another."""
    facts = read_record(engine / FACTS, EngineFacts)
    if facts.options.tuning.targets:
        facts = replace(facts, options=replace(facts.options, tuning=replace(facts.options.tuning, targets=("3.5",))))
    else:
        facts = replace(facts, gpu="NVIDIA Other", compute_capability="3.5")
    meta = json.loads((engine / _META).read_text(encoding="utf-8"))
    moved = engine.rename(engine.with_name(engine_key(facts)))
    write_json(moved / FACTS, facts)
    (moved / _META).unlink()
    files = {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in describe_files(moved).items()}
    (moved / _META).write_text(json.dumps({**meta, "key": moved.name, "files": files}), encoding="utf-8")
