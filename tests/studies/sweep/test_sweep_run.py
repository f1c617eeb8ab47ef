"""A sweep measures the request, stores its cells, resumes where it stopped, and lists missing results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import ArtifactError, BackendError, ConfigError, DataError
from edge_resnet.core.records import ModelSpec, Preprocess, QuantRecipe
from edge_resnet.images.imageset import open_images
from edge_resnet.measurement.accuracy import evaluate
from edge_resnet.measurement.report import Report
from edge_resnet.measurement.report.record import to_json
from edge_resnet.studies.sweep import SweepRequest, sweep
from edge_resnet.studies.sweep import run as running
from edge_resnet.studies.sweep.cells import claim
from edge_resnet.studies.sweep.plan import Network

Run = Callable[..., tuple[Report, list[tuple[str, str]]]]


@pytest.fixture
def run(tmp_path: Path, brief_bench: None, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a sweep into the test's folder; returns the report, and each cell's name and outcome."""

    # Cold starts would take most of the time; the test of the command measures them.
    monkeypatch.setattr("edge_resnet.measurement.bench.bench.measure_startup", lambda *_: None)

    def go(request: SweepRequest, *, force: bool = False) -> tuple[Report, list[tuple[str, str]]]:
        outcomes: list[tuple[str, str]] = []
        output = tmp_path / "report"
        cells = claim(output, resume=True, force=force)
        report = sweep(request, output, cells, observer=lambda cell: outcomes.append((cell.name, cell.outcome)))
        return report, outcomes

    return go


@pytest.fixture
def wanted(tiny_artifacts: dict[str, Artifact], smooth_images: Path) -> SweepRequest:
    """Two finished artifacts on labelled images, with short measurements."""
    folders = tuple(tiny_artifacts[precision].folder for precision in ("fp32", "int8"))
    return SweepRequest(
        artifacts=folders, backends=("onnxruntime",), batches=(1, 4), data=str(smooth_images), seconds=0.05, allow_random=True
    )


def test_finished_artifacts_give_rows_and_a_pair(run: Run, wanted: SweepRequest, tiny_artifacts: dict[str, Artifact]) -> None:
    """All measurements exist, and accuracy and agreement are those of edge-resnet eval."""
    found, _ = run(wanted)
    assert [row.label for row in found.rows] == ["resnet8-cifar fp32", "resnet8-cifar int8"]
    for row in found.rows:
        assert row.latency is not None
        assert row.latency.count >= 64
        assert [result.batch for result in row.batches] == [4]
    checked = evaluate(tiny_artifacts["int8"], open_images(str(wanted.data)), backend="onnxruntime")
    accuracy, pair = found.rows[1].accuracy, found.pairs[0]
    assert accuracy is not None
    assert (accuracy.top1, accuracy.top5, accuracy.ci95) == (checked.top1, checked.top5, checked.ci95)
    assert pair.agreement == checked.agreement
    assert pair.only_reference is not None
    assert pair.only_row is not None
    assert 100 * (pair.only_reference - pair.only_row) / pair.images == pytest.approx(checked.fp32_top1 - checked.top1)
    assert len(pair.flips) == min(pair.flipped, 12)
    assert all(flip.thumbnail.startswith("data:image/jpeg;base64,") for flip in pair.flips)
    assert found.holes == ()


def test_a_second_run_measures_nothing(run: Run, wanted: SweepRequest) -> None:
    """All cells are reused, and the report is the same except for its date."""
    first, before = run(wanted)
    second, after = run(wanted)
    assert {outcome for _, outcome in before} == {"measured"}
    assert {outcome for _, outcome in after} == {"kept"}
    assert replace(second, created=first.created) == first
    assert {outcome for _, outcome in run(wanted, force=True)[1]} == {"measured"}


def test_only_what_a_change_affects_is_measured_again(run: Run, wanted: SweepRequest) -> None:
    """Other seconds affect the latencies, other images the accuracies."""
    run(wanted)
    again = {name for name, outcome in run(replace(wanted, seconds=0.06))[1] if outcome == "measured"}
    assert again == {f"resnet8-cifar {p}, batch {b}" for p in ("fp32", "int8") for b in (1, 4)}
    archive = np.load(str(wanted.data))
    other = Path(str(wanted.data)).with_name("fewer.npz")
    np.savez(other, images=archive["images"][:30], labels=archive["labels"][:30])
    again = {name for name, outcome in run(replace(wanted, data=str(other), seconds=0.06))[1] if outcome == "measured"}
    assert again == {"resnet8-cifar fp32, accuracy", "resnet8-cifar int8, accuracy"}


def test_a_cell_that_fails_is_a_missing_result_and_the_sweep_continues(
    run: Run, wanted: SweepRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is listed with its reason, the other cells are in the report, and only the failed one is tried again."""
    measure = running.measure_latency

    def broken(artifact: Artifact, backend: str, batch: int, *args: Any, **options: Any) -> Any:
        if batch == 4 and artifact.manifest.precision == "int8":
            raise BackendError("the device was lost")
        return measure(artifact, backend, batch, *args, **options)

    monkeypatch.setattr(running, "measure_latency", broken)
    found, _ = run(wanted)
    assert [(one.what, one.reason) for one in found.holes] == [("resnet8-cifar int8, batch 4", "the device was lost")]
    assert found.rows[1].latency is not None
    assert found.rows[1].batches == ()
    monkeypatch.setattr(running, "measure_latency", measure)
    complete, outcomes = run(wanted)
    assert complete.holes == ()
    assert [name for name, outcome in outcomes if outcome == "measured"] == ["resnet8-cifar int8, batch 4"]


def test_an_interruption_keeps_what_was_measured(run: Run, wanted: SweepRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report is marked as interrupted and names the missing results; the next run continues."""
    measure = running.measure_latency

    def stopped(artifact: Artifact, backend: str, batch: int, *args: Any, **options: Any) -> Any:
        if batch == 4:
            raise KeyboardInterrupt
        return measure(artifact, backend, batch, *args, **options)

    monkeypatch.setattr(running, "measure_latency", stopped)
    found, _ = run(wanted)
    assert found.interrupted
    assert [row.label for row in found.rows] == ["resnet8-cifar fp32"]
    assert found.rows[0].latency is not None
    assert found.holes[0].what == "the rest of resnet8-cifar fp32, resnet8-cifar int8"
    monkeypatch.setattr(running, "measure_latency", measure)
    complete, outcomes = run(wanted)
    assert not complete.interrupted
    assert [name for name, outcome in outcomes if outcome == "kept"] == [
        "resnet8-cifar fp32, accuracy",
        "resnet8-cifar fp32, batch 1",
    ]


def test_networks_are_built_on_held_out_images_and_missing_weights_are_a_missing_result(run: Run, smooth_images: Path) -> None:
    """FP32 is built from weights, INT8 from its graph; the depth without weights is listed in both precisions."""
    networks = tuple(
        Network(ModelSpec("cifar", depth, "A", classes=10, input_size=32), Preprocess(32, 32), weights)
        for depth, weights in ((8, "random"), (14, None))
    )
    wanted = SweepRequest(
        networks=networks, backends=("onnxruntime",), batches=(1,), data=str(smooth_images), seconds=0.05, allow_random=True,
        recipe=QuantRecipe(method="max", images=16),
    )  # fmt: skip
    found, outcomes = run(wanted)
    assert [row.label for row in found.rows] == ["resnet8-cifar fp32", "resnet8-cifar int8"]
    assert [one.what for one in found.holes] == ["resnet14-cifar fp32, resnet14-cifar int8"]
    assert "no weights" in found.holes[0].reason
    assert found.setup.data == "48 of the 64 images of smooth"
    assert "the other 16 images" in found.setup.calibration
    assert ("resnet8-cifar int8, build", "made") in outcomes
    assert {outcome for name, outcome in run(wanted)[1] if "resnet8" in name} == {"kept"}


def test_images_without_labels_give_latency_and_agreement(run: Run, wanted: SweepRequest, tmp_path: Path) -> None:
    """There is no accuracy, and the report says why."""
    path = tmp_path / "bare.npz"
    np.savez(path, images=np.load(str(wanted.data))["images"])
    found, _ = run(replace(wanted, data=str(path), batches=(1,)))
    assert all(row.accuracy is None for row in found.rows)
    assert found.pairs[0].only_reference is None
    assert 0 <= found.pairs[0].agreement <= 100
    assert "no labels" in found.setup.data


def test_without_images_only_latency_is_measured(run: Run, wanted: SweepRequest) -> None:
    """And the report says so."""
    found, _ = run(replace(wanted, data=None, batches=(1,)))
    assert all(row.latency is not None and row.accuracy is None for row in found.rows)
    assert found.pairs == ()
    assert found.setup.data.startswith("Accuracy was not measured")


def test_labels_of_another_network_are_refused_at_once(run: Run, wanted: SweepRequest, tmp_path: Path) -> None:
    """Before anything is measured."""
    path = tmp_path / "other.npz"
    archive = np.load(str(wanted.data))
    np.savez(path, images=archive["images"], labels=archive["labels"] + 500)
    with pytest.raises(DataError, match=r"has class \d+, the network knows 0\.\.9"):
        run(replace(wanted, data=str(path)))


def test_an_artifact_of_another_schema_is_refused(run: Run, wanted: SweepRequest, tmp_path: Path) -> None:
    """Like in every command."""
    folder = Path(shutil.copytree(wanted.artifacts[0], tmp_path / "newer"))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    with pytest.raises(ArtifactError, match="schema 99"):
        run(replace(wanted, artifacts=(folder,)))


def test_an_empty_sweep_is_refused() -> None:
    """Each kind of empty request has its own message."""
    with pytest.raises(ConfigError, match="nothing to report"):
        SweepRequest()
    with pytest.raises(ConfigError, match="no backend or no batch"):
        SweepRequest(artifacts=(Path("a"),), batches=())
    with pytest.raises(ConfigError, match="there is no precision int4"):
        SweepRequest(artifacts=(Path("a"),), precisions=("int4",))  # type: ignore[arg-type]


def test_if_nothing_could_be_measured_the_first_reason_is_the_error(run: Run, wanted: SweepRequest) -> None:
    """There is no report without rows."""
    with pytest.raises(DataError, match="nothing could be measured: resnet8-cifar fp32: "):
        run(replace(wanted, artifacts=wanted.artifacts[:1], data=None, backends=("tensorrt",)))


def test_a_report_is_read_back_and_drawn_again(run: Run, wanted: SweepRequest, tmp_path: Path) -> None:
    """A result file needs no network: rows, pairs and setup are those of the file."""
    found, _ = run(wanted)
    path = tmp_path / "kept.json"
    path.write_text(to_json(found), encoding="utf-8")
    again, outcomes = run(SweepRequest(results=(path,)))
    assert outcomes == []
    assert (again.rows, again.pairs, again.setup) == (found.rows, found.pairs, found.setup)
    path.write_text(path.read_text(encoding="utf-8")[:3000], encoding="utf-8")
    with pytest.raises(DataError, match="cut off"):
        run(SweepRequest(results=(path,)))
