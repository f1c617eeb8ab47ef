"""A prediction as one line of JSON, the same for files, brokers and images laid aside. Knows nothing of where it goes."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from math import isfinite
from typing import Any

from edge_resnet.streaming.records import Prediction

__all__ = ["to_json", "utc"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_json(prediction: Prediction) -> str:
    """One line without its newline. Keys: source, frame, captured_ns, wall_ns, time, age_ms, top, stages_ms, answer.

    ASCII, other letters escaped: so any terminal takes it, and the name of a file that is no text. A number that is not finite,
    which JSON cannot say, is null.
    """
    record = _record(prediction)
    try:
        return json.dumps(record, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(record), allow_nan=False)


def utc(wall_ns: int) -> str | None:
    """Nanoseconds since 1970 as ISO 8601 in UTC with milliseconds, ``2026-11-25T14:15:02.123Z``; None for 0, which is no time."""
    if wall_ns == 0:
        return None
    try:
        moment = _EPOCH + timedelta(milliseconds=wall_ns // 1_000_000)
    except OverflowError:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _record(prediction: Prediction) -> dict[str, Any]:
    # Written out: dataclasses.asdict copies deeply, which costs several times as much.
    answer = prediction.answer
    return {
        "source": prediction.source,
        "frame": prediction.frame,
        "captured_ns": prediction.captured_ns,
        "wall_ns": prediction.wall_ns,
        "time": utc(prediction.wall_ns),
        "age_ms": prediction.age_ms,
        "top": [
            {"class_index": score.class_index, "label": score.label, "probability": score.probability} for score in prediction.top
        ],
        "stages_ms": dict(prediction.stages_ms),
        "answer": answer
        and {
            "class_index": answer.class_index,
            "label": answer.label,
            "probability": answer.probability,
            "changed": answer.changed,
        },
    }


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
