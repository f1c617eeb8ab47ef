"""Writes the details of an evaluation: JSON, the two charts, and a self-contained page with the images of the worst pairs."""

from __future__ import annotations

import base64
import logging
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from statistics import median

from PIL import Image

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.files import write_whole
from edge_resnet.core.records import Progress
from edge_resnet.images.imageset import ImageSet
from edge_resnet.measurement.accuracy import EvalOptions, Evaluation, evaluate_with
from edge_resnet.measurement.details.charts import confusion_chart, drawn_classes, reliability_chart
from edge_resnet.measurement.details.record import ClassAccuracy, ConfusedPair, Details, DetailsCollector, details_json
from edge_resnet.measurement.page.figure import save
from edge_resnet.measurement.page.html import Cell, Column, Row, Table, render
from edge_resnet.measurement.report import check_drawable

__all__ = ["PAGE", "check_details", "evaluate_into", "write_details"]

_log = logging.getLogger(__name__)

#: The page's name in its folder, and that of the record.
PAGE, RECORD = "details.html", "details.json"
#: Side of a thumbnail in pixels; smaller images are enlarged to it without smoothing.
_THUMBNAIL = 96
#: With fewer images the interval of a class is wider than 40 points around one half.
_FEW = 20


@dataclass(frozen=True)
class _Thumbnail:
    """``source``: a data URI, empty if the image cannot be read any more. ``alt``, ``caption``: texts."""

    source: str
    alt: str
    caption: str


@dataclass(frozen=True)
class _ShownPair:
    title: str
    text: str
    thumbnails: tuple[_Thumbnail, ...]


def check_details(folder: Path, *, force: bool) -> None:
    """Raise, before anything is measured, what ``write_details`` would: MissingDependencyError without matplotlib or jinja2, and
    ConfigError where the folder holds details already, unless ``force`` replaces them."""
    check_drawable()
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder", hint="--details takes a folder")
    if not force and any((folder / name).exists() for name in (PAGE, RECORD)):
        raise ConfigError(f"{folder} holds details already", hint="name another folder, or replace them with --force")


def evaluate_into(
    artifact: Artifact, images: ImageSet, options: EvalOptions, folder: Path | None, *, progress: Progress | None = None
) -> Evaluation:
    """Evaluate as ``evaluate_with`` does, and write the details into ``folder`` unless it is None."""
    if folder is None:
        return evaluate_with(artifact, images, options, progress=progress)
    tap = DetailsCollector(artifact, images)
    result = evaluate_with(artifact, images, replace(options, tap=tap), progress=progress)
    write_details(tap.details(result), images, folder)
    return result


def write_details(details: Details, images: ImageSet, folder: Path) -> Path:
    """Write ``details.json``, ``confusion`` and ``reliability`` as SVG and PNG, and ``details.html``, whose path is returned.

    ``images``: those that were evaluated. Each file is written atomically, JSON first. Raises BuildError.
    """
    write_whole(folder / RECORD, (details_json(details) + "\n").encode())
    confusion, curve = confusion_chart(details), reliability_chart(details)
    for chart in (confusion, curve):
        save(chart, folder)
    page = render(
        "details.html",
        "edge_resnet.measurement.details",
        title=f"{details.model} on {details.data}",
        details=details,
        findings=findings(details),
        pairs=[_shown(pair, images) for pair in details.pairs],
        confusion=confusion,
        confusion_note=_confusion_note(details),
        curve=curve,
        classes=_class_table(details),
        thresholds=_threshold_table(details),
    )
    return write_whole(folder / PAGE, page.encode())


def findings(details: Details) -> list[str]:
    """The answers in a few sentences: the weakest class, the worst pair, the trust in probabilities, and the threshold."""
    low, high = details.ci95
    found = [f"{details.top1:.2f} % of {details.images} images are right (95 % interval {low:.2f} to {high:.2f})."]
    seen = [entry for entry in details.classes if entry.accuracy is not None]
    typical = median(entry.images for entry in seen)
    if typical < _FEW:
        found.append(f"Half of the classes have {typical:g} images or fewer: single classes and pairs say little.")
    weakest = min(seen, key=_accuracy)
    found.append(f"Weakest class: {weakest.label}, {_share(weakest)}.")
    if details.pairs:
        worst = details.pairs[0]
        found.append(
            f"Most frequent confusion: {worst.count} of {details.classes[worst.true].images} images of {worst.true_label} are "
            f"called {worst.predicted_label}; {worst.reverse} the other way round."
        )
    curve = details.reliability
    sense = "overconfident" if curve.confidence > curve.accuracy else "underconfident"
    found.append(
        f"Probabilities are {sense} by {abs(curve.confidence - curve.accuracy):.2f} points on average (ECE {curve.ece:.2f})."
    )
    own = next((row for row in details.thresholds if row.own), None)
    if own is None:
        found.append("The artifact has no threshold for unknown: edge-resnet calibrate --threshold finds one.")
    elif own.wrong_share is not None:
        found.append(
            f"At its threshold, {own.threshold:.4g}, {own.coverage:.1f} % of the images are answered, {own.wrong_share:.2f} % of "
            "these wrongly; the other answers are unknown."
        )
    if details.missing:
        found.append(f"{len(details.missing)} of {len(details.classes)} classes have no image here: nothing is known of them.")
    return found


def _accuracy(entry: ClassAccuracy) -> float:
    return entry.accuracy if entry.accuracy is not None else 0.0


def _share(entry: ClassAccuracy) -> str:
    assert entry.ci95 is not None  # of a class with images
    low, high = entry.ci95
    return f"{entry.right} of {entry.images} right, {_accuracy(entry):.1f} % (95 % interval {low:.1f} to {high:.1f})"


def _confusion_note(details: Details) -> str:
    note = "Each row is a true class and adds up to 100 %; the darker a cell, the larger its share."
    shown, seen = len(drawn_classes(details)), sum(entry.images > 0 for entry in details.classes)
    if shown < seen:
        note += f" Drawn are the {shown} classes of the worst pairs, of {seen}: details.json has all of them."
    return note


def _class_table(details: Details) -> Table:
    columns = (
        Column("Class"),
        Column("Right", numeric=True, note="% of the class"),
        Column("95 % interval", numeric=True),
        Column("Images", numeric=True),
        Column("Precision", numeric=True, note="% of the answers"),
        Column("Answers", numeric=True),
    )
    rows = []
    for entry in sorted((e for e in details.classes if e.images), key=_accuracy):
        assert entry.ci95 is not None  # of a class with images
        low, high = entry.ci95
        precise = Cell("none") if entry.precision is None else Cell(f"{entry.precision:.1f}", entry.precision)
        rows.append(
            Row(
                (
                    entry.label,
                    Cell(f"{_accuracy(entry):.1f}", entry.accuracy),
                    Cell(f"{low:.1f} to {high:.1f}", low),
                    Cell(str(entry.images), entry.images),
                    precise,
                    Cell(str(entry.predicted), entry.predicted),
                )
            )
        )
    return Table("classes", "Accuracy per class, the weakest first", columns, tuple(rows), sortable=True)


def _threshold_table(details: Details) -> Table:
    columns = (
        Column("Unknown below"),
        Column("Answered", numeric=True, note="% of the images"),
        Column("Answers", numeric=True),
        Column("Wrong", numeric=True),
        Column("Wrong, %", numeric=True, note="of the answers"),
        Column("95 % interval", numeric=True),
    )
    rows = []
    for row in details.thresholds:
        name = Cell(f"{row.threshold:.4g}", note="the artifact's threshold" if row.own else "")
        share = "none" if row.wrong_share is None else f"{row.wrong_share:.2f}"
        interval = "none" if row.ci95 is None else f"{row.ci95[0]:.2f} to {row.ci95[1]:.2f}"
        cells = (name, f"{row.coverage:.1f}", str(row.answered), str(row.wrong), share, interval)
        rows.append(Row(cells, "good" if row.own else ""))
    return Table("thresholds", "Wrong answers by threshold", columns, tuple(rows))


def _shown(pair: ConfusedPair, images: ImageSet) -> _ShownPair:
    text = f"{pair.count} images, {pair.share:.1f} % of the class; {pair.reverse} the other way round"
    thumbnails = []
    for example in pair.examples:
        alt = f"An image of {pair.true_label} that is called {pair.predicted_label}"
        thumbnails.append(_Thumbnail(_thumbnail(images, example.index), alt, f"{100 * example.probability:.1f} %"))
    return _ShownPair(f"{pair.true_label} called {pair.predicted_label}", text, tuple(thumbnails))


def _thumbnail(images: ImageSet, index: int) -> str:
    """An image as a data URI with a side of at most ``_THUMBNAIL`` pixels."""
    try:
        image = Image.fromarray(images.load(index))
    except DataError as error:
        _log.warning("no thumbnail: %s", error)
        return ""
    scale = _THUMBNAIL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
    file = BytesIO()
    small.save(file, "PNG" if scale > 1 else "JPEG", **({} if scale > 1 else {"quality": 85}))
    kind = "png" if scale > 1 else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
