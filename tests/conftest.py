"""Fixtures that several rooms share. Knows where the real data may lie; a test that needs it is skipped elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data beside the checkout, or the one that EDGE_RESNET_TEST_DATA names."""
    folder = Path(os.environ.get("EDGE_RESNET_TEST_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real test data is not here ({folder}); set EDGE_RESNET_TEST_DATA")
    return folder
