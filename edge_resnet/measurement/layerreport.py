"""A TensorRT engine's layers as a table, with what keeps INT8 from being faster. Knows where a listing lies in an artifact; parses none."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_resnet.artifact.enginecache import FACTS, LAYERS, PROFILE
from edge_resnet.core.errors import ArtifactError, ConfigError
from edge_resnet.measurement.layers import UNKNOWN, Layer, LayerListing, read_layers
from edge_resnet.measurement.whyslow import Slowdown, why_not_faster

__all__ = ["LayerReport", "layers_of_artifact", "layers_of_file"]


_TACTIC_WIDTH = 40


_HEADS = ("ms", "%", "precision", "format", "tactic", "layer")


#: Names shown of one finding; --json has all.
_SHOWN = 6


@dataclass(frozen=True)
class LayerReport:
    """A listing, and what was found in it; None where INT8 was not asked for. ``source`` is the listing's file."""

    source: Path
    listing: LayerListing
    gpu: str | None
    findings: tuple[Slowdown, ...] | None

    def lines(self) -> list[str]:
        """The table, a line per layer in the order they run, and below it the causes."""
        layers = self.listing.layers
        count = "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
        total = "" if self.listing.timed_ms is None else f", {self.listing.timed_ms:.4g} ms"
        gpu = "" if self.gpu is None else f", {self.gpu}"
        return [f"{self.source}: {count}{total}{gpu}", *_table(map(_row, layers)), *self._why()]

    def as_json(self) -> dict[str, object]:
        """The same, with every name whole and every tensor."""
        layers = [{**asdict(layer), "precision": layer.precision} for layer in self.listing.layers]
        findings = None if self.findings is None else [asdict(finding) for finding in self.findings]
        return {
            "layer_info": str(self.source), "gpu": self.gpu, "timed_ms": self.listing.timed_ms,
            "tensors": list(self.listing.tensors), "layers": layers, "why_int8_is_not_faster": findings,
        }  # fmt: skip

    def _why(self) -> list[str]:
        if self.findings is None:
            return []
        if not self.findings:
            return ["why is INT8 not faster: nothing in this listing keeps it from being so"]
        return ["why is INT8 not faster", *(line for finding in self.findings for line in _said(finding))]


def layers_of_artifact(folder: Path, key: str | None) -> LayerReport:
    """Of one engine of an artifact: that of ``key``, else the one that was built last. Raises ArtifactError where no engine
    has a listing, ConfigError where the one of that key has none."""
    found = {path.parent.name: path for path in folder.glob(f"engines/*/{LAYERS}") if not path.parent.name.startswith(".")}
    if not found:
        raise ArtifactError(
            f"no engine in {folder} has a listing of its layers",
            hint=f"edge-resnet compile {folder} --backend tensorrt, on the device",
        )
    if key is not None and key not in found:
        raise ConfigError(f"no engine {key} with a listing in {folder}", hint=f"there is {', '.join(sorted(found))}")
    return layers_of_file(found[key] if key is not None else max(found.values(), key=lambda path: path.stat().st_mtime_ns))


def layers_of_file(path: Path) -> LayerReport:
    """Of a listing anywhere, with ``profile.json`` and ``engine.json`` where they lie beside it. Raises ArtifactError where
    the listing or the profile is damaged."""
    profile = path.parent / PROFILE
    listing = read_layers(path, profile if profile.is_file() and profile != path else None)
    facts = _facts(path.parent / FACTS)
    options = facts.get("options")
    precision = options.get("precision") if isinstance(options, dict) else None
    gpu, capability = (value if isinstance(value := facts.get(name), str) else None for name in ("gpu", "compute_capability"))
    wanted = precision == "int8" if precision is not None else any(layer.precision == "INT8" for layer in listing.layers)
    return LayerReport(path, listing, gpu, why_not_faster(listing, capability) if wanted else None)


def _facts(path: Path) -> dict[str, object]:
    """What the engine says of itself. Its lack costs a line about the GPU: the engine cache judges the file, not we."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _row(layer: Layer) -> tuple[str, ...]:
    time = (UNKNOWN, UNKNOWN) if layer.time is None else (f"{layer.time.milliseconds:.4f}", f"{layer.time.percent:.1f}")
    layout = next((tensor.layout for tensor in layer.outputs), UNKNOWN)
    tactic = layer.tactic if len(layer.tactic) <= _TACTIC_WIDTH else f"{layer.tactic[: _TACTIC_WIDTH - 1]}…"
    return (*time, layer.precision, layout, tactic, layer.name)


def _table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Numbers to the right, words to the left; the layer's name last and whole, for it may be long."""
    cells = [_HEADS, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADS) - 1)]
    return [f"  {_aligned(row, widths)}  {row[-1]}" for row in cells]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = zip(row, widths, strict=False)
    return "  ".join(cell.rjust(width) if column < 2 else cell.ljust(width) for column, (cell, width) in enumerate(cells))


def _said(finding: Slowdown) -> list[str]:
    share = "" if finding.percent is None else f", {finding.percent:.1f} % of the time"
    rest = len(finding.layers) - _SHOWN
    names = [f"      {name}" for name in finding.layers[:_SHOWN]] + ([f"      and {rest} more"] if rest > 0 else [])
    return [f"  {finding.text}{share}", *names, *([f"    → {finding.remedy}"] if finding.remedy else [])]
