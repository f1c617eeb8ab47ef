"""Which colour and shape a row has in every chart: colour by precision, shape by backend. Knows no axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from edge_resnet.core.records import Precision
from edge_resnet.page.palette import MARKERS, SERIES
from edge_resnet.report.record import Row

__all__ = ["colour", "marker"]


def colour(row: Row) -> str:
    """The precision's colour."""
    return SERIES[get_args(Precision).index(row.precision)]


def marker(row: Row, rows: Sequence[Row]) -> str:
    """The shape of its backend among those of all rows (matplotlib's name)."""
    return MARKERS[sorted({other.backend for other in rows}).index(row.backend) % len(MARKERS)]
