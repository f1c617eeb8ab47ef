"""Whether a run makes progress, and why not, in a line. Knows nothing of HTTP."""

from __future__ import annotations

from edge_resnet.status import RunStatus

__all__ = ["health"]

#: Longer than any network takes for a frame, and than a reconnect to a camera.
_PATIENCE_S = 10.0


def health(status: RunStatus, quiet_s: float) -> tuple[bool, str]:
    """``quiet_s``: since the newest prediction, or since the start.

    A camera that is gone is not a fault that a restart mends: the run waits for it and stays sound. Frames that come without
    predictions are, and so are sources that were all given up.
    """
    if quiet_s <= _PATIENCE_S:
        return True, "ok"
    states = [source.state for source in status.sources]
    if states and all(state in ("failed", "ended") for state in states) and "failed" in states:
        return False, "every source was given up"
    if any(state == "live" for state in states):
        return False, f"no prediction for {quiet_s:.0f} s, though frames come"
    return True, "waiting for frames"
