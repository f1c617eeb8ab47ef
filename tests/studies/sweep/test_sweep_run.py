"""A sweep measures what is asked for, keeps it, goes on where it ended, and leaves holes where something fails."""

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
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a sweep into the test's folder; the report, and each cell with how it went."""

    # The processes of cold starts take most of the time; the command's own test starts them.
    monkeypatch.setattr("edge_resnet.measurement.bench.bench.measure_startup", lambda *_: None)

    def go(request: SweepRequest, *, force: bool = False) -> tuple[Report, list[tuple[str, str]]]:
        told: list[tuple[str, str]] = []
        output = tmp_path / "report"
        cells = claim(output, resume=True, force=force)
        return sweep(request, output, cells, told=lambda name, how, *_: told.append((name, how))), told

    return go


@pytest.fixture
def wanted(tiny_artifacts: dict[str, Artifact], smooth_images: Path) -> SweepRequest:
    """Two finished artifacts on labelled images, measured for a moment."""
    folders = tuple(tiny_artifacts[precision].folder for precision in ("fp32", "int8"))
    return SweepRequest(
        artifacts=folders, backends=("onnxruntime",), batches=(1, 4), data=str(smooth_images), seconds=0.05, allow_random=True
    )


def test_finished_artifacts_give_rows_and_a_pair(run: Run, wanted: SweepRequest, tiny_artifacts: dict[str, Artifact]) -> None:
    """Every figure is there, and the accuracy and the agreement are those of edge-resnet eval."""
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
    """All is kept, and the report is the same but for its date."""
    first, before = run(wanted)
    second, after = run(wanted)
    assert {how for _, how in before} == {"measured"}
    assert {how for _, how in after} == {"kept"}
    assert replace(second, created=first.created) == first
    assert {how for _, how in run(wanted, force=True)[1]} == {"measured"}


def test_only_what_a_change_concerns_is_measured_again(run: Run, wanted: SweepRequest) -> None:
    """Other seconds: the latencies; other images: the accuracies."""
    run(wanted)
    again = {name for name, how in run(replace(wanted, seconds=0.06))[1] if how == "measured"}
    assert again == {f"resnet8-cifar {p}, batch {b}" for p in ("fp32", "int8") for b in (1, 4)}
    archive = np.load(str(wanted.data))
    other = Path(str(wanted.data)).with_name("fewer.npz")
    np.savez(other, images=archive["images"][:30], labels=archive["labels"][:30])
    again = {name for name, how in run(replace(wanted, data=str(other), seconds=0.06))[1] if how == "measured"}
    assert again == {"resnet8-cifar fp32, accuracy", "resnet8-cifar int8, accuracy"}


def test_a_cell_that_fails_is_a_hole_and_the_rest_goes_on(
    run: Run, wanted: SweepRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its reason; what is measured beside it is in the report, and only the hole is tried again."""
    measure = running.measure_latency

    def broken(artifact: Artifact, backend: str, batch: int, *words: Any, **more: Any) -> Any:
        if batch == 4 and artifact.manifest.precision == "int8":
            raise BackendError("the device fell off")
        return measure(artifact, backend, batch, *words, **more)

    monkeypatch.setattr(running, "measure_latency", broken)
    found, _ = run(wanted)
    assert [(hole.what, hole.reason) for hole in found.holes] == [("resnet8-cifar int8, batch 4", "the device fell off")]
    assert found.rows[1].latency is not None
    assert found.rows[1].batches == ()
    monkeypatch.setattr(running, "measure_latency", measure)
    mended, told = run(wanted)
    assert mended.holes == ()
    assert [name for name, how in told if how == "measured"] == ["resnet8-cifar int8, batch 4"]


def test_an_interruption_keeps_what_was_measured(run: Run, wanted: SweepRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report says so and names what is left; the next run begins there."""
    measure = running.measure_latency

    def stopped(artifact: Artifact, backend: str, batch: int, *words: Any, **more: Any) -> Any:
        if batch == 4:
            raise KeyboardInterrupt
        return measure(artifact, backend, batch, *words, **more)

    monkeypatch.setattr(running, "measure_latency", stopped)
    found, _ = run(wanted)
    assert found.interrupted
    assert [row.label for row in found.rows] == ["resnet8-cifar fp32"]
    assert found.rows[0].latency is not None
    assert found.holes[0].what == "the rest of resnet8-cifar fp32, resnet8-cifar int8"
    monkeypatch.setattr(running, "measure_latency", measure)
    whole, told = run(wanted)
    assert not whole.interrupted
    assert [name for name, how in told if how == "kept"] == ["resnet8-cifar fp32, accuracy", "resnet8-cifar fp32, batch 1"]


def test_networks_are_built_with_images_held_out_and_missing_weights_are_a_hole(run: Run, smooth_images: Path) -> None:
    """FP32 from weights, INT8 from its graph; the depth without weights is named, in both precisions, and the rest is there."""
    networks = tuple(
        Network(ModelSpec("cifar", depth, "A", classes=10, input_size=32), Preprocess(32, 32), weights)
        for depth, weights in ((8, "random"), (14, None))
    )
    wanted = SweepRequest(
        networks=networks, backends=("onnxruntime",), batches=(1,), data=str(smooth_images), seconds=0.05, allow_random=True,
        recipe=QuantRecipe(method="max", images=16),
    )  # fmt: skip
    found, told = run(wanted)
    assert [row.label for row in found.rows] == ["resnet8-cifar fp32", "resnet8-cifar int8"]
    assert [hole.what for hole in found.holes] == ["resnet14-cifar fp32, resnet14-cifar int8"]
    assert "no weights" in found.holes[0].reason
    assert found.setup.data == "48 of the 64 images of smooth"
    assert "the other 16 images" in found.setup.calibration
    assert ("resnet8-cifar int8, build", "made") in told
    assert {how for name, how in run(wanted)[1] if "resnet8" in name} == {"kept"}


def test_images_without_labels_give_latency_and_agreement(run: Run, wanted: SweepRequest, tmp_path: Path) -> None:
    """No accuracy is made up, and the report says why there is none."""
    path = tmp_path / "bare.npz"
    np.savez(path, images=np.load(str(wanted.data))["images"])
    found, _ = run(replace(wanted, data=str(path), batches=(1,)))
    assert all(row.accuracy is None for row in found.rows)
    assert found.pairs[0].only_reference is None
    assert 0 <= found.pairs[0].agreement <= 100
    assert "no labels" in found.setup.data


def test_without_images_only_latency_is_measured(run: Run, wanted: SweepRequest) -> None:
    """And that is said."""
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
    """As every command refuses it."""
    folder = Path(shutil.copytree(wanted.artifacts[0], tmp_path / "newer"))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema_version": 99}))
    with pytest.raises(ArtifactError, match="schema 99"):
        run(replace(wanted, artifacts=(folder,)))


def test_an_empty_sweep_is_refused() -> None:
    """Each way to ask for nothing has its own answer."""
    with pytest.raises(ConfigError, match="nothing to report"):
        SweepRequest()
    with pytest.raises(ConfigError, match="no backend or no batch"):
        SweepRequest(artifacts=(Path("a"),), batches=())
    with pytest.raises(ConfigError, match="no precision is called int4"):
        SweepRequest(artifacts=(Path("a"),), precisions=("int4",))  # type: ignore[arg-type]


def test_where_nothing_could_be_measured_the_first_reason_is_the_error(run: Run, wanted: SweepRequest) -> None:
    """A report without rows is none."""
    with pytest.raises(DataError, match="nothing could be measured: resnet8-cifar fp32: "):
        run(replace(wanted, artifacts=wanted.artifacts[:1], data=None, backends=("tensorrt",)))


def test_a_report_is_read_back_and_drawn_again(run: Run, wanted: SweepRequest, tmp_path: Path) -> None:
    """A result file alone needs no network: rows, pairs and the set-up are its own."""
    found, _ = run(wanted)
    path = tmp_path / "kept.json"
    path.write_text(to_json(found), encoding="utf-8")
    again, told = run(SweepRequest(results=(path,)))
    assert told == []
    assert (again.rows, again.pairs, again.setup) == (found.rows, found.pairs, found.setup)
    path.write_text(path.read_text(encoding="utf-8")[:3000], encoding="utf-8")
    with pytest.raises(DataError, match="cut off"):
        run(SweepRequest(results=(path,)))
