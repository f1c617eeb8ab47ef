"""options.py: what cannot be built is refused before anything starts."""

from __future__ import annotations

import pytest

from edge_resnet.engine.options import EngineOptions
from edge_resnet.errors import ConfigError
from edge_resnet.spec import BatchProfile


@pytest.mark.parametrize(
    ("wrong", "words"), [({"workspace_mib": 0}, "workspace"), ({"level": 6}, "level"), ({"level": -1}, "level")]
)
def test_wrong_options_are_refused(wrong: dict[str, int], words: str) -> None:
    """With the range that is right."""
    with pytest.raises(ConfigError, match=words) as caught:
        EngineOptions("fp16", 224, BatchProfile(), **wrong)
    assert caught.value.hint
