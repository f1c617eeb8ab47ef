"""Reports of accuracy against latency: read from JSON, written as a page, charts and tables. Measures nothing."""

from edge_resnet.measurement.report.record import Report, read_report
from edge_resnet.measurement.report.write import PAGE, Questions, check_drawable, write_report

__all__ = ["PAGE", "Questions", "Report", "check_drawable", "read_report", "write_report"]
