"""Options of an engine: what cannot be built is refused before anything starts."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from edge_resnet.artifact.enginecache import EngineOptions, EngineTuning, read_options
from edge_resnet.core.errors import ConfigError
from edge_resnet.core.records import BatchProfile


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"workspace_mib": 0}, "workspace"),
        ({"workspace_mib": 2**44}, "workspace"),
        ({"level": 6}, "level"),
        ({"level": -1}, "level"),
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, int], words: str) -> None:
    """The error names the valid range."""
    with pytest.raises(ConfigError, match=words) as caught:
        EngineTuning(**wrong)
    assert caught.value.hint


def test_options_are_read_back_from_json() -> None:
    """Options written as JSON are read back as the same record."""
    options = EngineOptions("int8", 224, BatchProfile(1, 4, 8), EngineTuning(512, 5, True, False))
    assert read_options(json.loads(json.dumps(asdict(options)))) == options
