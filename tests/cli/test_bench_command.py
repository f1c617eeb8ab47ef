"""``edge-resnet bench``: its text, JSON, files and exit codes."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from device.power.sysfstrees import ORIN_NANO, write

from edge_resnet.artifact.folder import Artifact
from edge_resnet.device.power import PowerMeter, search_meters
from edge_resnet.measurement.bench.bench import MAX_SAMPLES
from edge_resnet.measurement.bench.conditions import ConditionsMonitor
from edge_resnet.measurement.bench.result import read_result, read_results

Cli = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("brief_bench")
QUICK = ("--backend", "fake", "--seconds", "0.1", "--min-queries", "30", "--frame", "64x48", "--no-cold-start")


@pytest.fixture
def tiny(tiny_artifacts: dict[str, Artifact]) -> str:
    """The tiny INT8 artifact."""
    return str(tiny_artifacts["int8"].folder)


def test_the_text(cli: Cli, tiny: str) -> None:
    """A table of latencies, the metric with its interval, the stages, and the overhead."""
    outcome = cli("bench", tiny, *QUICK)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].startswith("resnet8-cifar int8 on fake, ")
    assert lines[0].endswith("; random pixels, shorter than MLPerf's")
    assert lines[1].split() == ["queries", "p50", "ms", "p90", "ms", "p99", "ms", "max", "ms", "images/s"]
    assert lines[2].split()[0] == "single-stream"
    p50, p90, p99, maximum = (float(word) for word in lines[2].split()[2:6])
    assert 0 < p50 <= p90 <= p99 <= maximum
    assert "95 % interval" in lines[3]
    assert "from a frame of 64x48, ms: preprocess" in lines[4]
    assert "measuring took" in lines[5]
    assert max(map(len, lines[:6])) <= 130


def test_json_alone_on_stdout(cli: Cli, tiny: str) -> None:
    """One scenario is one object with the documented keys."""
    outcome = cli("bench", tiny, *QUICK, "--json")
    record = json.loads(outcome.out)
    assert set(record) >= {"scenario", "count", "p50_ms", "p90_ms", "p99_ms", "throughput_per_s", "stages_ms", "warnings"}
    assert record["scenario"] == "single-stream"
    assert record["count"] >= 30


def test_all_scenarios(cli: Cli, tiny: str, tmp_path: Path) -> None:
    """Three objects in a list and in the file, each with its samples: all of them, or every n-th of very many."""
    outcome = cli("bench", tiny, *QUICK, "--scenario", "all", "--batch", "4", "--json", "--save", "bench.json")
    assert outcome.code == 0, outcome.err
    names = [record["scenario"] for record in json.loads(outcome.out)]
    assert names == ["single-stream", "multi-stream", "offline"]
    saved = read_results(tmp_path / "bench.json")
    assert [result.scenario for result in saved] == names
    assert [result.batch for result in saved] == [1, 8, 4]
    for result in saved:
        assert len(result.samples_us) == -(-result.count // result.samples_every) <= MAX_SAMPLES
        assert (result.samples_every == 1) == (result.count <= MAX_SAMPLES)


def test_cold_start_and_memory(cli: Cli, tiny: str) -> None:
    """They are measured and printed unless they are turned off."""
    outcome = cli("bench", tiny, *QUICK[:-1])
    assert "ms after the start of a process" in outcome.out
    assert "MiB of memory" in outcome.out


def test_power_has_a_line(cli: Cli, tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Watts, energy per image and what they cover; temperatures and clocks below; nothing with --no-power."""
    board = write(tmp_path / "board", ORIN_NANO)
    monkeypatch.setattr("edge_resnet.measurement.bench.bench.search_meters", lambda works: search_meters(board, works))
    monkeypatch.setattr("edge_resnet.measurement.bench.bench.PowerMeter", lambda found: PowerMeter(found, root=board))
    lines = cli("bench", tiny, *QUICK).out.splitlines()
    (power,) = [line for line in lines if line.startswith("  power: ")]
    assert re.fullmatch(r"  power: 6\.00 W, \d+\.\d mJ per image \(INA3221 VDD_IN: module\)", power)
    assert (
        "  heat: 52 °C before, 52 after, maximum 52 (tj-thermal), GPU at 624 to 624 MHz, CPU at 1510 to 1510 MHz, "
        "power mode MAXN_SUPER"
    ) in lines
    assert "  power: " not in cli("bench", tiny, *QUICK, "--no-power").out


def test_no_power_is_absent_in_a_line(cli: Cli, tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a machine without sensors the text says so, and JSON says why; nothing is zero."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(
        "edge_resnet.measurement.bench.bench.search_meters", lambda works: search_meters(tmp_path / "none", works)
    )
    monkeypatch.setattr("edge_resnet.measurement.bench.bench.PowerMeter", lambda found: PowerMeter(found, root=tmp_path / "none"))
    lines = cli("bench", tiny, *QUICK).out.splitlines()
    assert "  power: absent (no power meter can be read)" in lines
    assert not any(line.startswith("  heat: ") for line in lines)
    record = json.loads(cli("bench", tiny, *QUICK, "--json").out)
    assert (record["mj_per_image"], record["power"]["mean_w"]) == (None, None)
    assert "no INA3221 or INA238 sensor" in record["power"]["absent"]["mean_w"]


def test_own_images(cli: Cli, tiny: str, images: Path) -> None:
    """--data names the images."""
    record = json.loads(cli("bench", tiny, *QUICK, "--data", str(images), "--json").out)
    assert "smooth" in record["images"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch", "4"), "--batch applies to the offline scenario only"),
        (("--frame", "large"), "--frame takes a width and a height"),
        (("--seconds", "0"), "above 0"),
        (("--scenario", "server"), "server"),
        (("--backend", "tpu"), "no backend is named tpu"),
        (("--save", "none/bench.json"), "cannot be written"),
        (("--data", "nowhere"), "nowhere"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_nonsense_is_refused(cli: Cli, tiny: str, options: tuple[str, ...], message: str) -> None:
    """The user's mistakes end with exit code 2 and an error, before anything is measured."""
    outcome = cli("bench", tiny, *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.out == ""


def test_a_file_is_not_replaced_unasked(cli: Cli, tiny: str, tmp_path: Path) -> None:
    """An existing file is refused before the measurement; --force replaces it."""
    path = tmp_path / "bench.json"
    path.write_text("mine")
    assert cli("bench", tiny, *QUICK, "--save", "bench.json").code == 2
    assert path.read_text() == "mine"
    assert cli("bench", tiny, *QUICK, "--save", "bench.json", "--force").code == 0
    assert read_result(path).count >= 30


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_a_part(
    cli: Cli, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """The result so far is printed and saved, marked as partial, and the exit code is 130; later scenarios are left out."""

    class Signalling(ConditionsMonitor):
        def __init__(self) -> None:
            super().__init__()
            threading.Timer(0.5, signal.raise_signal, [number]).start()

    monkeypatch.setattr("edge_resnet.measurement.bench.bench.ConditionsMonitor", Signalling)
    outcome = cli("bench", tiny, "--backend", "fake", "--seconds", "60", "--scenario", "all", "--save", "bench.json")
    assert outcome.code == 130
    assert "(partial: interrupted)" in outcome.out
    assert read_result(tmp_path / "bench.json").interrupted


def test_help_has_examples(cli: Cli) -> None:
    """--help shows how it is called, and that MLPerf measures longer."""
    outcome = cli("bench", "--help")
    assert outcome.code == 0
    assert "edge-resnet bench --scenario all --save bench.json" in outcome.out
    assert "MLPerf measures 600" in outcome.out
