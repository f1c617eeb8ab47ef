"""Assembles the results of a sweep into a Report: rows, pairs of the same network, and the images on which they differ.

Does not know how a report is drawn. Images are included as thumbnails, so that the report can be read on another machine.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import DataError
from edge_resnet.images.imageset import ImageSet
from edge_resnet.measurement.accuracy import accuracy_of
from edge_resnet.measurement.bench.result import BenchResult
from edge_resnet.measurement.predictions import Predictions
from edge_resnet.measurement.report.record import KIND, SCHEMA, ClassChange, Flip, MissingResult, Pair, Report, Row, Setup
from edge_resnet.studies.sweep.merge import LoadedResults
from edge_resnet.studies.sweep.plan import SweepRequest, Target
from edge_resnet.studies.sweep.selection import ImageSplit

__all__ = ["Found", "Measured", "assemble"]

#: Maximum number of flips shown with an image per pair and per report, so that the page is small enough to send.
_MAX_PAIR_FLIPS, _MAX_FLIPS = 12, 48
#: Side and JPEG quality of a thumbnail, which is about four kilobytes.
_SIDE, _QUALITY = 144, 72
#: Maximum number of latencies per row.
_MAX_SAMPLES = 1000
#: Maximum number of changed classes per pair.
_MAX_CLASSES = 40
_ORDER: Mapping[str, int] = MappingProxyType({"lost": 0, "won": 1, "both wrong": 2, "unlabelled": 3})


@dataclass
class Measured:
    """The results of one artifact on one backend so far."""

    label: str
    target: Target
    backend: str
    artifact: Artifact | None = None
    answers: Predictions | None = None
    latencies: list[BenchResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """All results of a sweep. ``loaded``: those from result files."""

    measured: tuple[Measured, ...]
    loaded: LoadedResults
    missing: tuple[MissingResult, ...]
    interrupted: bool


def assemble(request: SweepRequest, images: ImageSplit, digest: str, found: Found) -> Report:
    """Assemble the report. ``digest``: of the images that accuracy was measured on.

    Raises DataError if nothing was measured at all.
    """
    rows = [_row(one, images.evaluation, digest) for one in found.measured if one.latencies or one.answers is not None]
    known = (*rows, *found.loaded.rows)
    if not known:
        missing = (*found.missing, *found.loaded.missing)
        first = missing[0] if missing else MissingResult("the files", "they contain no measurement that a report shows")
        raise DataError(f"nothing could be measured: {first.what}: {first.reason}", hint=first.remedy)
    own = () if images.evaluation is None else _pairs(found.measured, images.evaluation)
    return Report(
        schema_version=SCHEMA,
        kind=KIND,
        title=request.title,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z"),
        rows=_unique(known),
        pairs=(*own, *found.loaded.pairs),
        holes=_merged((*found.missing, *found.loaded.missing)),
        setup=_setup(request, images, found),
        interrupted=found.interrupted,
    )


def _row(one: Measured, images: ImageSet | None, digest: str) -> Row:
    thinned = [_thinned(result) for result in one.latencies]
    accuracy = None if one.answers is None or images is None else accuracy_of(one.answers, images, digest)
    return Row(
        label=one.label,
        model=one.target.model.name,
        precision=one.target.precision,
        backend=one.backend,
        latency=next((result for result in thinned if result.scenario == "single-stream"), None),
        batches=tuple(result for result in thinned if result.scenario == "offline"),
        accuracy=accuracy,
    )


def _thinned(result: BenchResult) -> BenchResult:
    every = max(1, -(-len(result.samples_us) // _MAX_SAMPLES))
    return replace(result, samples_us=result.samples_us[::every], samples_every=result.samples_every * every)


def _unique(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Number the labels that occur twice, as rows from files may have those of others."""
    seen: dict[str, int] = {}
    named = []
    for row in rows:
        seen[row.label] = seen.get(row.label, 0) + 1
        named.append(row if seen[row.label] == 1 else replace(row, label=f"{row.label} ({seen[row.label]})"))
    return tuple(named)


def _merged(missing: Sequence[MissingResult]) -> tuple[MissingResult, ...]:
    """Missing results with the same reason, combined."""
    merged: dict[tuple[str, str], list[str]] = {}
    for one in missing:
        merged.setdefault((one.reason, one.remedy), []).append(one.what)
    return tuple(MissingResult(", ".join(what), reason, remedy) for (reason, remedy), what in merged.items())


def _pairs(measured: Sequence[Measured], images: ImageSet) -> tuple[Pair, ...]:
    """Pair each lower precision with FP32 of the same network, on the same backend if that was measured."""
    pairs: list[Pair] = []
    for one in measured:
        references = [other for other in measured if _is_reference(other, one)]
        references.sort(key=lambda other: other.backend != one.backend)
        if one.answers is not None and one.target.precision != "fp32" and references:
            remaining = _MAX_FLIPS - sum(len(pair.flips) for pair in pairs)
            pairs.append(_pair(references[0], one, images, min(_MAX_PAIR_FLIPS, remaining)))
    return tuple(pairs)


def _is_reference(other: Measured, one: Measured) -> bool:
    same = (
        other.artifact is not None and one.artifact is not None and other.artifact.manifest.model == one.artifact.manifest.model
    )
    return same and other.target.precision == "fp32" and other.answers is not None


def _pair(reference: Measured, one: Measured, images: ImageSet, max_flips: int) -> Pair:
    before, after = reference.answers, one.answers
    assert before is not None
    assert after is not None
    assert one.artifact is not None
    read = [index for index in range(len(images)) if before.best[index] >= 0 and after.best[index] >= 0]
    flipped = [index for index in read if before.best[index] != after.best[index]]
    labels = images.labels
    only = [
        None if labels is None else sum(first.best[i] == labels[i] != second.best[i] for i in flipped)
        for first, second in ((before, after), (after, before))
    ]
    names = one.artifact.labels
    flips = [(index, _flip(index, images, (before, after), names)) for index in flipped]
    flips.sort(key=lambda pair: (_ORDER[pair[1].kind], -pair[1].before[1] - pair[1].after[1]))
    shown = tuple(replace(flip, thumbnail=_thumbnail(images, index)) for index, flip in flips[:max_flips])
    agreement = 100 * (len(read) - len(flipped)) / max(1, len(read))
    classes = () if labels is None else _classes(read, labels, (before, after), names)
    return Pair(reference.label, one.label, len(read), agreement, len(flipped), only[0], only[1], shown, classes)


def _flip(index: int, images: ImageSet, answers: tuple[Predictions, Predictions], names: Sequence[str]) -> Flip:
    before, after = ((names[one.best[index]], one.probability[index]) for one in answers)
    name = Path(images.where(index)).name
    if images.labels is None:
        return Flip(name, None, before, after, "unlabelled")
    truth = images.labels[index]
    kinds = {answers[0].best[index]: "lost", answers[1].best[index]: "won"}
    return Flip(name, names[truth], before, after, kinds.get(truth, "both wrong"))  # type: ignore[arg-type]  # one of the literals


def _thumbnail(images: ImageSet, index: int) -> str:
    """The centre square of an image as a small JPEG; empty if the image can no longer be read."""
    try:
        image = Image.fromarray(images.load(index))
    except DataError:
        return ""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small = image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, (left, top, left + side, top + side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _classes(
    read: Sequence[int], labels: Sequence[int], answers: tuple[Predictions, Predictions], names: Sequence[str]
) -> tuple[ClassChange, ...]:
    """The classes whose accuracy changed most, the largest change first."""
    counts: dict[int, list[int]] = {}
    for index in read:
        count = counts.setdefault(labels[index], [0, 0, 0])
        count[0] += 1
        for place, one in enumerate(answers):
            count[place + 1] += one.best[index] == labels[index]
    changed = [ClassChange(names[label], *count) for label, count in counts.items() if count[1] != count[2]]
    changed.sort(key=lambda change: (-abs(change.after - change.before) / change.images, change.name))
    return tuple(changed[:_MAX_CLASSES])


def _setup(request: SweepRequest, images: ImageSplit, found: Found) -> Setup:
    labels_by_note: dict[str, list[str]] = {}
    for one in found.measured:
        warnings = () if one.artifact is None else one.artifact.manifest.warnings
        for note in dict.fromkeys((*one.notes, *warnings)):
            labels_by_note.setdefault(note, []).append(one.label)
    notes = tuple(f"{', '.join(dict.fromkeys(labels))}: {note}" for note, labels in labels_by_note.items())
    setups = found.loaded.setups
    if not found.measured and setups:
        options = setups[0].options if len(setups) == 1 else {}
        data, calibration = (
            "; ".join(dict.fromkeys(filter(None, parts)))
            for parts in zip(*((s.data, s.calibration) for s in setups), strict=True)
        )
        return Setup(data, calibration, options, tuple(note for setup in setups for note in setup.notes))
    return Setup(images.evaluation_note, images.calibration_note, request.options, notes)
