"""Health: frames without predictions are a fault, a missing camera is not."""

from __future__ import annotations

import pytest
from webstage import Script, source

from edge_resnet.streaming.records import SourceState
from edge_resnet.streaming.web.routes import health


@pytest.mark.parametrize(
    ("states", "quiet_s", "sound"),
    [
        (("live",), 3.0, True),
        (("live",), 60.0, False),
        (("reconnecting", "live"), 60.0, False),
        (("reconnecting",), 600.0, True),
        (("opening",), 600.0, True),
        (("stalled",), 600.0, True),
        (("ended",), 600.0, True),
        (("failed",), 60.0, False),
        (("failed", "ended"), 60.0, False),
        (("failed", "reconnecting"), 60.0, True),
        (("failed",), 3.0, True),
        ((), 60.0, True),
    ],
)
def test_health(states: tuple[SourceState, ...], quiet_s: float, sound: bool) -> None:
    """Faults are what a restart may fix: frames without predictions, and sources that have all failed."""
    script = Script()
    script.change(sources=tuple(source(f"camera:{index}", state) for index, state in enumerate(states)))
    found, reason = health(script.status, quiet_s)
    assert found is sound
    assert (reason == "ok") is (quiet_s <= 10)
