"""The records of a report, and the JSON file that holds them. Does not measure or draw anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edge_resnet.core.files import parse_record, read_json
from edge_resnet.core.records import Precision
from edge_resnet.core.statistics import PairedDifference, paired_difference
from edge_resnet.measurement.accuracy import Accuracy
from edge_resnet.measurement.bench.result import BenchResult

__all__ = ["KIND", "SCHEMA", "ClassChange", "Flip", "MissingResult", "Pair", "Report", "Row", "Setup", "read_report", "to_json"]

#: Version of the file format. A file with a newer one is refused.
SCHEMA = 1
KIND: Literal["edge-resnet report"] = "edge-resnet report"
_AGAIN = "run edge-resnet report again"


@dataclass(frozen=True)
class Row:
    """One network on one backend of one machine. ``label`` is short and unique in the report.

    ``latency`` is measured single-stream, image by image; ``batches`` holds one offline result per batch size.
    """

    label: str
    model: str
    precision: Precision
    backend: str
    latency: BenchResult | None = None
    batches: tuple[BenchResult, ...] = ()
    accuracy: Accuracy | None = None

    @property
    def p90_ms(self) -> float:
        """The p90 of ``latency``, which must have been measured."""
        assert self.latency is not None
        return self.latency.p90_ms

    @property
    def top1(self) -> float:
        """The top-1 of ``accuracy`` in percent, which must have been measured."""
        assert self.accuracy is not None
        return self.accuracy.top1


@dataclass(frozen=True)
class Flip:
    """An image for which two networks predict different classes. ``truth`` is its label, None where it has none.

    ``before`` and ``after`` are (class, probability in [0, 1]); ``thumbnail`` is a data URI, or empty.
    """

    image: str
    truth: str | None
    before: tuple[str, float]
    after: tuple[str, float]
    kind: Literal["lost", "won", "both wrong", "unlabelled"]
    thumbnail: str = ""


@dataclass(frozen=True)
class ClassChange:
    """A class with ``images`` images; ``before`` and ``after`` count those that are classified correctly."""

    name: str
    images: int
    before: int
    after: int


@dataclass(frozen=True)
class Pair:
    """Two rows on the same images, by their labels: ``reference`` (FP32) and ``row`` (a lower precision).

    ``agreement`` is the percentage of images for which both predict the same class. ``only_reference`` and ``only_row`` count the
    images that one of the two alone classifies correctly; None without labels. ``flips`` are some of the ``flipped`` images, lost
    ones first. ``classes`` are those whose accuracy changed, the largest change first.
    """

    reference: str
    row: str
    images: int
    agreement: float
    flipped: int
    only_reference: int | None
    only_row: int | None
    flips: tuple[Flip, ...] = ()
    classes: tuple[ClassChange, ...] = ()

    @property
    def loss(self) -> PairedDifference | None:
        """Top-1 of ``reference`` minus that of ``row``; None without labels."""
        if self.only_reference is None or self.only_row is None:
            return None
        return paired_difference(self.only_reference, self.only_row, self.images)


@dataclass(frozen=True)
class MissingResult:
    """A result that was requested and could not be measured. ``reason`` and ``remedy`` are sentences for people."""

    what: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class Setup:
    """How the report was measured, for people.

    ``data`` and ``calibration`` describe the images in a sentence each; ``options`` maps names to values; ``notes`` are what a
    reader must know to interpret the numbers.
    """

    data: str
    calibration: str
    options: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """A whole report. ``holes`` are its missing results; ``interrupted`` means that it holds what was measured until then."""

    schema_version: int
    kind: Literal["edge-resnet report"]
    title: str
    created: str
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    holes: tuple[MissingResult, ...]
    setup: Setup
    interrupted: bool = False


def to_json(report: Report) -> str:
    """The report as JSON, which ``read_report`` reads back."""
    return json.dumps(asdict(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def read_report(path: Path) -> Report:
    """Read ``report.json``. Raises DataError for a truncated, newer or foreign file."""
    return parse_record(path, read_json(path, _AGAIN), Report, kind=KIND, schema=SCHEMA)
