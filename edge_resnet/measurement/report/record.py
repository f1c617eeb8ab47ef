"""What a report is made of, as frozen records, and its file: read back only if whole. Measures nothing and draws nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edge_resnet.core.files import parse_record, read_json
from edge_resnet.core.records import Precision
from edge_resnet.measurement.accuracy import Accuracy
from edge_resnet.measurement.bench.result import BenchResult

__all__ = ["KIND", "SCHEMA", "ClassChange", "Flip", "MissingResult", "Pair", "Report", "Row", "Setup", "read_report", "to_json"]

#: Of the file. A reader refuses a newer one.
SCHEMA = 1
KIND: Literal["edge-resnet report"] = "edge-resnet report"
_AGAIN = "run edge-resnet report again"


@dataclass(frozen=True)
class Row:
    """One network on one backend of one machine. ``latency``: single-stream, image after image; ``batches``: offline, one result
    per batch size. ``label``: short and unlike any other row's."""

    label: str
    model: str
    precision: Precision
    backend: str
    latency: BenchResult | None = None
    batches: tuple[BenchResult, ...] = ()
    accuracy: Accuracy | None = None


@dataclass(frozen=True)
class Flip:
    """An image on which two networks give different answers. ``truth``: its label, None where it has none. ``before`` and
    ``after``: (class, probability in [0, 1]). ``thumbnail``: a data URI, empty where there is none."""

    image: str
    truth: str | None
    before: tuple[str, float]
    after: tuple[str, float]
    kind: Literal["lost", "won", "both wrong", "unlabelled"]
    thumbnail: str = ""


@dataclass(frozen=True)
class ClassChange:
    """A class of ``images`` images, of which ``before`` and ``after`` are answered right."""

    name: str
    images: int
    before: int
    after: int


@dataclass(frozen=True)
class Pair:
    """Two rows on the same images: ``reference``, as FP32, and ``row``, as INT8, by their labels. ``agreement``: percent of
    the images with the same answer. ``only_reference``, ``only_row``: images that one alone answers right; None without labels.
    ``flips``: some of ``flipped`` images, those that matter first. ``classes``: those whose accuracy changed, the most first."""

    reference: str
    row: str
    images: int
    agreement: float
    flipped: int
    only_reference: int | None
    only_row: int | None
    flips: tuple[Flip, ...] = ()
    classes: tuple[ClassChange, ...] = ()


@dataclass(frozen=True)
class MissingResult:
    """What was asked for and is not there. ``what``: the cell. ``reason``, ``remedy``: for people."""

    what: str
    reason: str
    remedy: str = ""


@dataclass(frozen=True)
class Setup:
    """How it was measured, for people. ``data``, ``calibration``: the images, a sentence each. ``options``: name → value.
    ``notes``: what a reader must know to read the numbers right."""

    data: str
    calibration: str
    options: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """All of it. ``interrupted``: it holds what was measured until then."""

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
    """The whole report; ``read_report`` reads it back."""
    return json.dumps(asdict(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def read_report(path: Path) -> Report:
    """Read ``report.json``. Raises DataError where it is cut off, of a newer schema, or something else."""
    return parse_record(path, read_json(path, _AGAIN), Report, kind=KIND, schema=SCHEMA)
