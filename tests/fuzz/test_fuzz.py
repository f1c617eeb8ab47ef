"""Inputs derived from valid ones, a few hundred per gate: each is taken, or refused by one of edge_resnet's own errors.

``make fuzz`` runs a million of them, and measures time and memory.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign import GATES, Tally, fuzz
from gates import Gate, open_gates
from mutation import mutated, mutated_zip
from tiny import build_kept

#: Inputs per gate; some take a millisecond or two each.
FEW, MANY = 150, 500
SLOW_GATES = ("checkpoint", "corrections", "http request", "image", "rtsp answer")


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory, smooth_images: Path) -> Iterator[dict[str, Gate]]:
    """Every gate, ready."""
    folder = tmp_path_factory.mktemp("fuzz")
    artifact = build_kept(folder / "built", smooth_images)
    (folder / "work").mkdir()
    with open_gates(artifact.folder, folder / "work") as opened:
        yield opened


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GATES)
def test_every_input_is_taken_or_refused(gates: dict[str, Gate], name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing but EdgeResnetError, whatever the bytes; the valid inputs are valid."""
    caplog.set_level(logging.CRITICAL)
    gate = gates[name]
    valid, tally = Tally(name), Tally(name)
    fuzz(gate.feed, lambda seed: gate.seeds[seed], range(len(gate.seeds)), valid)
    assert not valid.failures, valid.failures[0].what
    assert name in ("rtsp answer",) or valid.refused == 0
    derive = mutated_zip if gate.zipped else mutated
    fuzz(gate.feed, lambda seed: derive(gate.seeds, gate.tokens, seed), range(FEW if name in SLOW_GATES else MANY), tally)
    failures = [one for one in tally.failures if not one.what.startswith("took")]
    assert not failures, f"{len(failures)} failures, the first of seed {failures[0].seed}:\n{failures[0].what}"


def test_all_gates_are_listed(gates: dict[str, Gate]) -> None:
    """What make fuzz runs is every gate there is."""
    assert set(gates) == set(GATES)


def test_an_input_follows_from_its_seed() -> None:
    """The same seed gives the same bytes, another seed others."""
    seeds = (b'{"a": [1, 2, 3], "b": "text"}', b"[]")
    assert [mutated(seeds, (b"null",), seed) for seed in range(50)] == [mutated(seeds, (b"null",), seed) for seed in range(50)]
    assert len({mutated(seeds, (), seed) for seed in range(200)}) > 150


def test_a_fault_is_found() -> None:
    """A gate that lets another error out fails, and the input that did it is kept."""
    tally = Tally("numbers")
    fuzz(lambda data: int(data), lambda seed: mutated((b"1234",), (), seed), range(50), tally)
    assert tally.failures
    assert all("ValueError" in one.what for one in tally.failures)
    with pytest.raises(ValueError, match="invalid literal"):
        int(tally.failures[0].data)
