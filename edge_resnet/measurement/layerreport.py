"""A report on the layers of a TensorRT engine: a table, and the causes that keep INT8 from being faster.

Knows where an artifact keeps its listings; does not parse them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_resnet.artifact.enginecache import FACTS, LAYERS, PROFILE
from edge_resnet.core.errors import ArtifactError, ConfigError
from edge_resnet.core.files import read_bounded
from edge_resnet.measurement.layers import UNKNOWN, Layer, LayerListing, read_layers
from edge_resnet.measurement.whyslow import Slowdown, why_not_faster

__all__ = ["LayerReport", "layers_of_artifact", "layers_of_file"]

_HEADS = ("ms", "%", "precision", "format", "tactic", "layer")
_TACTIC_WIDTH = 40
#: Layers that a cause names in the text; JSON names all.
_MAX_NAMES = 6


@dataclass(frozen=True)
class LayerReport:
    """The layers of an engine, and the causes that keep INT8 from being faster; None for an engine without INT8.

    ``source`` is the file of the listing. ``gpu``: its name, or the targets of TensorRT for RTX; None if neither is known.
    """

    source: Path
    listing: LayerListing
    gpu: str | None
    slowdowns: tuple[Slowdown, ...] | None

    def lines(self) -> list[str]:
        """A table with a line per layer in execution order, and the causes below it."""
        layers = self.listing.layers
        count = "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
        total = "" if self.listing.timed_ms is None else f", {self.listing.timed_ms:.4g} ms"
        gpu = "" if self.gpu is None else f", {self.gpu}"
        return [f"{self.source}: {count}{total}{gpu}", *_table(map(_row, layers)), *self._why()]

    def as_json(self) -> dict[str, object]:
        """The same for JSON, with all names in full and all tensors."""
        layers = [{**asdict(layer), "precision": layer.precision} for layer in self.listing.layers]
        slowdowns = None if self.slowdowns is None else [asdict(slowdown) for slowdown in self.slowdowns]
        return {
            "layer_info": str(self.source), "gpu": self.gpu, "timed_ms": self.listing.timed_ms,
            "tensors": list(self.listing.tensors), "layers": layers, "why_int8_is_not_faster": slowdowns,
        }  # fmt: skip

    def _why(self) -> list[str]:
        if self.slowdowns is None:
            return []
        if not self.slowdowns:
            return ["why is INT8 not faster: this listing shows no cause"]
        return ["why is INT8 not faster", *(line for slowdown in self.slowdowns for line in _slowdown_lines(slowdown))]


def layers_of_artifact(folder: Path, key: str | None) -> LayerReport:
    """The report on an artifact's engine ``key``, or on the engine that was built last.

    Raises ArtifactError if no engine has a listing, ConfigError if that engine has none.
    """
    found = {path.parent.name: path for path in folder.glob(f"engines/*/{LAYERS}") if not path.parent.name.startswith(".")}
    if not found:
        raise ArtifactError(
            f"no engine in {folder} has a listing of its layers",
            hint=f"run edge-resnet compile {folder} --backend tensorrt on the device",
        )
    if key is not None and key not in found:
        raise ConfigError(f"no engine {key} with a listing in {folder}", hint=f"choose one of {', '.join(sorted(found))}")
    return layers_of_file(found[key] if key is not None else max(found.values(), key=lambda path: path.stat().st_mtime_ns))


def layers_of_file(path: Path) -> LayerReport:
    """The report on a listing in any folder, with the ``profile.json`` and ``engine.json`` beside it, if there are any.

    Raises ArtifactError if the listing or the profile is damaged.
    """
    profile = path.parent / PROFILE
    listing = read_layers(path, profile if profile.is_file() and profile != path else None)
    facts = _facts(path.parent / FACTS)
    options = facts.get("options")
    precision = options.get("precision") if isinstance(options, dict) else None
    gpu, capability = (_text(facts, name) for name in ("gpu", "compute_capability"))
    is_int8 = precision == "int8" if precision is not None else any(layer.precision == "INT8" for layer in listing.layers)
    return LayerReport(path, listing, gpu or _targets(options), why_not_faster(listing, capability) if is_int8 else None)


def _facts(path: Path) -> dict[str, object]:
    """The engine's facts; empty if they cannot be read, which costs only the line about the GPU."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(read_bounded(path, 1 << 20, regular=True))
        return found if isinstance(found, dict) else {}
    return {}


def _text(facts: dict[str, object], name: str) -> str | None:
    """The text of a field; None for one that is absent or empty, or no text."""
    value = facts.get(name)
    return value if isinstance(value, str) and value else None


def _targets(options: object) -> str | None:
    """The GPUs that TensorRT for RTX compiled for; None for a plan of TensorRT."""
    tuning = options.get("tuning") if isinstance(options, dict) else None
    targets = tuning.get("targets") if isinstance(tuning, dict) else None
    return f"compute capability {', '.join(map(str, targets))}" if isinstance(targets, list) and targets else None


def _row(layer: Layer) -> tuple[str, ...]:
    time = (UNKNOWN, UNKNOWN) if layer.time is None else (f"{layer.time.milliseconds:.4f}", f"{layer.time.percent:.1f}")
    layout = next((tensor.layout for tensor in layer.outputs), UNKNOWN)
    tactic = layer.tactic if len(layer.tactic) <= _TACTIC_WIDTH else f"{layer.tactic[: _TACTIC_WIDTH - 1]}…"
    return (*time, layer.precision, layout, tactic, layer.name)


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Numbers aligned right, text left; the layer's name is last and in full, because it can be long."""
    cells = [_HEADS, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADS) - 1)]
    return [f"  {_aligned(row, widths)}  {row[-1]}" for row in cells]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, strict=False)
    return "  ".join(cell.rjust(width) if column < 2 else cell.ljust(width) for column, (cell, width) in enumerate(cells))


def _slowdown_lines(slowdown: Slowdown) -> list[str]:
    share = "" if slowdown.percent is None else f", {slowdown.percent:.1f} % of the time"
    rest = len(slowdown.layers) - _MAX_NAMES
    names = [f"      {name}" for name in slowdown.layers[:_MAX_NAMES]] + ([f"      and {rest} more"] if rest > 0 else [])
    return [f"  {slowdown.text}{share}", *names, *([f"    → {slowdown.remedy}"] if slowdown.remedy else [])]
