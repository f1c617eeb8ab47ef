"""How a report says where it was measured."""

from __future__ import annotations

from reports import report, row

from edge_resnet.measurement.report.table import environment


def test_the_backend_is_named() -> None:
    """Once where all rows have the same; with each row where they differ."""
    same = report(row("a fp32", 9.0, None), row("a int8", 5.0, None, "int8"))
    assert dict(environment(same))["Backend"] == "onnxruntime"
    other = report(row("a fp32", 9.0, None), row("a int8", 5.0, None, "int8", "openvino"))
    assert dict(environment(other))["Backend"] == "onnxruntime (a fp32), openvino (a int8)"


def test_machine_and_versions_are_listed_once() -> None:
    """Two rows of one machine are one line each."""
    names = [name for name, _ in environment(report(row("a fp32", 9.0, None), row("a int8", 5.0, None, "int8")))]
    assert (names.count("Machine"), names.count("Versions")) == (1, 1)
