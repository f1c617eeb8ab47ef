"""A prediction as JSON: the same fields in files, MQTT messages, events of the web page and saved images.

Does not know where the JSON goes.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from math import isfinite
from typing import Any

from edge_resnet.streaming.records import Prediction

__all__ = ["encode_json", "prediction_fields", "to_json", "utc"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_json(prediction: Prediction) -> str:
    """One line without its newline. Keys: source, frame, captured_ns, wall_ns, time, age_ms, top, stages_ms, answer."""
    return encode_json(prediction_fields(prediction))


def prediction_fields(prediction: Prediction) -> dict[str, Any]:
    """What every output says of a prediction, in the documented order; ``time`` is ``wall_ns`` as text."""
    # Written out: dataclasses.asdict makes deep copies, which takes several times as long.
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


def encode_json(value: object) -> str:
    """JSON that every parser reads, on one line: numbers that are not finite become null, as JSON has no such numbers.

    ASCII with other characters escaped, so that it suits any terminal and also holds file names that are not valid text.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def utc(wall_ns: int) -> str | None:
    """Nanoseconds since 1970 as ISO 8601 in UTC with milliseconds, ``2026-11-25T14:15:02.123Z``; None for 0 (not known)."""
    if wall_ns == 0:
        return None
    try:
        moment = _EPOCH + timedelta(milliseconds=wall_ns // 1_000_000)
    except OverflowError:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
