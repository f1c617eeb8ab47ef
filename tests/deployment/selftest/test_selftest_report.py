"""The report names neither its user nor the machine, and stays readable."""

from __future__ import annotations

import getpass
import json
import socket
from pathlib import Path

import pytest

from edge_resnet.deployment.selftest.check import Check
from edge_resnet.deployment.selftest.report import document, scrubbed
from edge_resnet.device.machine import describe


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("/opt/vendor/lib/libfoo.so.1: cannot open shared object file", "…/libfoo.so.1: cannot open shared object file"),
        ("cannot load '/mnt/disk 2/model.onnx'", "cannot load '…/disk 2/model.onnx'"),
        ("6 frames within 1/255 of the stored ones", "6 frames within 1/255 of the stored ones"),
        ("341 images/s, and/or 5 % off", "341 images/s, and/or 5 % off"),
        ("there is no /dev/video*", "there is no /dev/video*"),
        ("pip install 'edge-resnet[compile]'", "pip install 'edge-resnet[compile]'"),
        ("~/x/y.txt is missing", "…/y.txt is missing"),
        ("H2D 0.008, compute 30.575, D2H 0.017 of 30.758 ms", "H2D 0.008, compute 30.575, D2H 0.017 of 30.758 ms"),
    ],
)
def test_folders_leave_and_figures_stay(text: str, wanted: str) -> None:
    """A file keeps its name, which says what is broken, and loses its folder."""
    assert scrubbed(text) == wanted


def test_names_leave(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user's and the machine's name, as words, and a home folder with a blank in it."""
    home = tmp_path / "Ada Lovelace"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LOGNAME", "ada17")
    monkeypatch.setattr(socket, "gethostname", lambda: "kitchen.example.org")
    text = f"{home}/models/x.onnx of ada17 on kitchen.example.org (kitchen), not kitchenette, by Ada Lovelace"
    found = scrubbed(text)
    assert not any(word in found for word in ("Ada", "Lovelace", "ada17", "example", str(tmp_path)))
    assert "x.onnx" in found
    assert "kitchenette" in found


def test_a_report_is_what_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts, machine, details without folders, figures, and nothing that was for the screen alone."""
    monkeypatch.setattr(socket, "gethostname", lambda: "kitchen")
    checks = [
        Check("machine", "cameras", "ok", "1 V4L2", {"v4l2_cameras": 1}, local="/dev/video0 Ada's camera"),
        Check("openvino", "fp32 answers", "failed", f"crashed: {Path.home()}/x.so on kitchen", seconds=1.23456),
        Check("tensorrt", "installed", "not here", "tensorrt is not installed"),
    ]
    text = document(checks, describe(), 12.34)
    found = json.loads(text)
    assert (found["kind"], found["ok"], found["failed"], found["not_here"], found["seconds"]) == (
        "edge-resnet selftest", 1, 1, 1, 12.3,
    )  # fmt: skip
    assert [set(check) for check in found["checks"]] == [{"group", "name", "status", "detail", "figures", "seconds"}] * 3
    assert "Ada" not in text
    assert "kitchen" not in text
    assert str(Path.home()) + "/" not in text
    assert found["machine"]["architecture"] == describe().architecture
    assert getpass.getuser() not in json.dumps(found["checks"])


def test_a_report_is_valid_json_whatever_a_library_says() -> None:
    """Bytes of a message that are no UTF-8 are escaped, and figures that are no numbers are null."""
    checks = [Check("openvino", "fp32 answers", "failed", "bad \udcff byte", {"off_percent": float("nan"), "peak": float("inf")})]

    def refuse(word: str) -> None:
        raise AssertionError(word)

    (found,) = json.loads(document(checks, describe(), 1.0).encode(), parse_constant=refuse)["checks"]
    assert found["detail"] == "bad \\udcff byte"
    assert found["figures"] == {"off_percent": None, "peak": None}
