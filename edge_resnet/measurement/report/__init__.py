"""Reports of accuracy against latency: read as JSON, drawn as a page, charts and tables. Measures nothing."""

from edge_resnet.measurement.accuracy import Accuracy
from edge_resnet.measurement.report.record import ClassChange, Flip, MissingResult, Pair, Report, Row, Setup, read_report
from edge_resnet.measurement.report.write import Questions, check_drawable, write_report

__all__ = [
    "Accuracy",
    "ClassChange",
    "Flip",
    "MissingResult",
    "Pair",
    "Questions",
    "Report",
    "Row",
    "Setup",
    "check_drawable",
    "read_report",
    "write_report",
]
