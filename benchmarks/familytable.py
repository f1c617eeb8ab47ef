"""docs/family.md from the record that family.py writes. Measures nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Json = Mapping[str, Any]

#: Share of the cores that other programs may use before a latency is marked.
_BUSY = 0.05
_NONE = "-"


def page(record: Json) -> str:
    """The page in Markdown: how it was measured, then a table for each question."""
    parts = ["# The family", _head(record), *_tables(record)]
    if missing := _missing(record["rows"]):
        parts += ["## Not measured", "\n".join(f"* {line}" for line in missing)]
    return "\n\n".join(parts) + "\n"


def _head(record: Json) -> str:
    machine, setting = record["machine"], record["setting"]
    libraries = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    int8 = f"--correct {setting['correct']}" if setting["correct"] else "the default of `quantize`"
    weights = f" WEIGHTS={setting['weights']}" if setting["weights"] else ""
    data = f" DATA={setting['data']}" if setting["data"] else ""
    dots = f"{'with' if machine['has_int8_dot_product'] else 'without'} INT8 dot products"
    lines = [
        f"Written on {record['created']} by `make family{weights}{data}`; all figures are in `family.json`.",
        f"{machine['cpu']}, {machine['usable_cores']} cores, {dots}, {machine['os']}, Python {machine['python']}; {libraries}.",
        f"INT8: {int8}, {setting['images']} calibration images where there are any; random weights are not corrected.",
        "† random weights: latency, memory, size and layers are those of any weights, and there is no accuracy.",
        f"\\* other programs used more than {100 * _BUSY:.0f} % of the cores meanwhile: the figure is too high.",
    ]
    if not record["complete"]:
        lines.insert(0, "**Interrupted: not all networks were measured.**")
    return "\n".join(lines)


def _tables(record: Json) -> Iterable[str]:
    rows, setting = record["rows"], record["setting"]
    kinds = [(precision, backend) for backend in setting["backends"] for precision in setting["precisions"]]
    heads = [f"{precision.upper()}, {backend}" for precision, backend in kinds]
    yield "## Latency on the CPU\n\nMilliseconds for one image, p50 / p90 of single-stream, preprocessing not included."
    yield _table(rows, [(head, _cell(f"latency {p} {b}", _latency)) for head, (p, b) in zip(heads, kinds, strict=True)])
    yield "## Memory on the CPU\n\nMiB: the peak of a new process that opens the artifact and classifies a few images."
    yield _table(rows, [(head, _cell(f"latency {p} {b}", _peak)) for head, (p, b) in zip(heads, kinds, strict=True)])
    yield "## Size\n\nMiB of the artifact."
    yield _table(rows, [(p.upper(), _cell(f"build {p}", lambda f: _mib(f["bytes"]))) for p in setting["precisions"]])
    yield (
        "## Plans of TensorRT for RTX\n\nMiB of the plan, its layers, and the convolutions and products among them by the type "
        "that they compute in. Built without a GPU; no plan was run."
    )
    yield _table(rows, [(p.upper(), _cell(f"plan {p}", _plan)) for p in ("fp32", "fp16", "int8")])
    if any(name.startswith("accuracy") for figures in rows.values() for name in figures):
        yield (
            f"## Accuracy\n\nTop-1 on images of {setting['data']} that were not calibrated on, in percent; the share of images "
            "for which INT8 and FP32 agree; the 95 % interval of the loss in points. TensorRT's INT8 is simulated."
        )
        shown = {name: figures for name, figures in rows.items() if any(cell.startswith("accuracy") for cell in figures)}
        wheres = [*setting["backends"], "TensorRT"]
        columns = [("images", _cell(f"accuracy {wheres[0]}", lambda f: str(f["images"])))]
        columns += [("FP32", _cell(f"accuracy {wheres[0]}", lambda f: f"{f['fp32_top1']:.1f}"))]
        columns += [(f"INT8, {where}", _cell(f"accuracy {where}", _accuracy)) for where in wheres]
        yield _table(shown, columns)


def _table(rows: Json, columns: list[tuple[str, Callable[[Json], str]]]) -> str:
    heads = ["network", *(head for head, _ in columns)]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * len(columns)}"]
    for name, figures in rows.items():
        mark = " †" if any(found.get("weights") == "random" for found in figures.values()) else ""
        lines.append(f"| {name}{mark} | {' | '.join(column(figures) for _, column in columns)} |")
    return "\n".join(lines)


def _cell(name: str, shown: Callable[[Json], str]) -> Callable[[Json], str]:
    """A column: what is shown of one measurement, where it was made."""

    def column(figures: Json) -> str:
        found = figures.get(name)
        return _NONE if found is None or "reason" in found else shown(found)

    return column


def _latency(found: Json) -> str:
    busy = (found["others_share"] or 0.0) > _BUSY
    return f"{found['p50_ms']:.2f} / {found['p90_ms']:.2f}" + (" \\*" if busy else "")


def _peak(found: Json) -> str:
    return _NONE if found["peak_mib"] is None else str(found["peak_mib"])


def _plan(found: Json) -> str:
    products = ", ".join(f"{count} {kind}" for kind, count in found["products"].items())
    return f"{_mib(found['bytes'])}; {found['layers']} ({products})"


def _accuracy(found: Json) -> str:
    low, high = found["drop_ci95"]
    return f"{found['top1']:.1f}; {found['agreement']:.1f} %; {low:.1f} to {high:.1f}"


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"


def _missing(rows: Json) -> list[str]:
    """Measurements that failed, with the reason; those of one reason once."""
    by_reason: dict[str, list[str]] = {}
    for name, figures in rows.items():
        for cell, found in figures.items():
            if "reason" in found:
                by_reason.setdefault(found["reason"], []).append(f"{name} {cell}")
    return [f"{', '.join(cells)}: {reason}" for reason, cells in by_reason.items()]
