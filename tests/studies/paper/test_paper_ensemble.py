"""Weights of a mixture, the part that they are chosen on, and the ensemble of networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import ModelSpec
from edge_resnet.studies.paper import ExperimentRequest, run_experiment
from edge_resnet.studies.paper import ensemble as room
from edge_resnet.studies.paper.ensemble import halves, mixture_weights

LIKE = ModelSpec("cifar", 8, "A", classes=3, input_size=32)
Save = Callable[..., Path]


def likelihood(answers: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    return float(np.log(np.tensordot(weights, answers[:, np.arange(len(labels)), labels], axes=1)).mean())


@settings(deadline=None)
@given(st.integers(2, 4), st.integers(5, 60), st.integers(0, 1000))
def test_no_other_weights_are_likelier(members: int, count: int, seed: int) -> None:
    """The weights are a distribution, and none of 200 random ones, nor a single network, makes the labels likelier."""
    rng = np.random.default_rng(seed)
    answers = rng.dirichlet(np.ones(5), (members, count)).astype(np.float32)
    labels = rng.integers(0, 5, count)
    weights = mixture_weights(answers, labels)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    best = likelihood(answers, labels, weights)
    others = [*rng.dirichlet(np.ones(members), 200), *np.eye(members)]
    assert all(likelihood(answers, labels, other) <= best + 1e-5 for other in others)


def test_a_network_that_knows_takes_all() -> None:
    """One that is right with certainty gets the weight; of two alike neither is preferred."""
    labels = np.arange(30) % 3
    knows = np.eye(3, dtype=np.float32)[labels]
    guesses = np.full((30, 3), 1 / 3, np.float32)
    assert mixture_weights(np.stack([guesses, knows]), labels)[1] > 0.999
    assert mixture_weights(np.stack([guesses, guesses]), labels) == pytest.approx([0.5, 0.5])


def test_certainly_wrong_everywhere_is_no_division_by_zero() -> None:
    """Where every network gives a label the probability zero the weights are still a distribution."""
    labels = np.zeros(4, np.int64)
    wrong = np.tile(np.array([0, 1, 0], np.float32), (2, 4, 1))
    assert mixture_weights(wrong, labels).sum() == pytest.approx(1)


@given(st.integers(2, 200), st.integers(1, 12), st.floats(0.05, 0.95), st.integers(0, 100))
def test_halves_part_every_class(count: int, classes: int, share: float, seed: int) -> None:
    """The two parts make up all, none is empty, and of every class the share held out is off by less than two images."""
    labels = np.arange(count) % classes
    held, rest = halves(labels, share, seed)
    assert sorted([*held, *rest]) == list(range(count))
    assert len(held)
    assert len(rest)
    for label in range(classes):
        of_class = int((labels == label).sum())
        assert abs((labels[held] == label).sum() - share * of_class) < 2


def test_halves_depend_on_the_seed_alone() -> None:
    """The same seed draws the same part, another one another."""
    labels = np.arange(100) % 10
    assert np.array_equal(halves(labels, 0.5, 3)[0], halves(labels, 0.5, 3)[0])
    assert not np.array_equal(halves(labels, 0.5, 3)[0], halves(labels, 0.5, 4)[0])


def asked(small_set: Path, output: Path, *named: str, **changed: object) -> ExperimentRequest:
    return ExperimentRequest("ensemble", output, data=str(small_set), classes=3, weights=named, **changed)  # type: ignore[arg-type]


def test_two_networks_as_one(weights: Save, small_set: Path, tmp_path: Path) -> None:
    """Errors are of the part not held out; the networks, the equal and the weighted average are all there, with weights."""
    named = [f"8={weights(LIKE)}", f"14={weights(replace(LIKE, depth=14))}"]
    finding, page = run_experiment(asked(small_set, tmp_path / "out", *named, held_out=0.4))
    data = finding.data
    assert data["held_out_images"] + data["test_images"] == 90
    assert data["held_out_images"] == 36
    assert list(data["errors"]) == ["ResNet-8", "ResNet-14", "all, equal weights", "all, chosen weights"]
    assert sum(data["weights"].values()) == pytest.approx(1)
    assert data["best_single"] == min(data["held_out_errors"], key=data["held_out_errors"].get)
    assert set(data["against_best_single"]) == set(data["errors"]) - {data["best_single"]}
    assert json.loads((tmp_path / "out/ensemble.json").read_text(encoding="utf-8"))["data"] == json.loads(json.dumps(data))
    assert "chosen on 36 other images" in page.read_text(encoding="utf-8")


def test_the_same_network_twice_is_that_network(weights: Save, small_set: Path, tmp_path: Path) -> None:
    """An ensemble of one network and itself answers as it does: no difference, told as none."""
    file = weights(LIKE)
    finding, _ = run_experiment(asked(small_set, tmp_path / "out", f"8={file}", f"8={file}"))
    assert {rate["top1"] for rate in finding.data["errors"].values()} == {finding.data["errors"]["ResNet-8"]["top1"]}
    assert all(apart["points"] == 0 for apart in finding.data["against_best_single"].values())
    assert all("no significant difference" in sentence for sentence in finding.verdicts[:2])


def test_what_is_no_ensemble(weights: Save, small_set: Path, tmp_path: Path) -> None:
    """One network, or labels that the networks do not know; a refused one leaves no folder."""
    file = weights(LIKE)
    with pytest.raises(ConfigError, match="two networks"):
        run_experiment(asked(small_set, tmp_path / "out", f"8={file}"))
    two = replace(LIKE, classes=2)
    named = [f"8={weights(two)}", f"8={weights(two, 1)}"]
    with pytest.raises(DataError, match="the network knows"):
        run_experiment(ExperimentRequest("ensemble", tmp_path / "out", data=str(small_set), classes=2, weights=tuple(named)))
    assert not (tmp_path / "out").exists()


def test_interrupted_with_two_answers(weights: Save, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the third network ends it with the first two; in the second there is nothing to average, and it is raised."""
    named = [f"{depth}={weights(replace(LIKE, depth=depth))}" for depth in (8, 14, 20)]
    real, calls = room.probabilities, []

    def interrupting(*words: object) -> np.ndarray:
        calls.append(words)
        if len(calls) > 2 * left:
            raise KeyboardInterrupt
        return real(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(room, "probabilities", interrupting)
    left = 2  # two calls a network: 90 images in batches of 64
    finding, page = run_experiment(asked(small_set, tmp_path / "two", *named))
    assert finding.interrupted
    assert list(finding.data["weights"]) == ["ResNet-8", "ResNet-14"]
    assert "A part:" in page.read_text(encoding="utf-8")
    calls.clear()
    left = 1
    with pytest.raises(KeyboardInterrupt):
        run_experiment(asked(small_set, tmp_path / "one", *named))
    assert not (tmp_path / "one").exists()
