"""The type of the fixture ``once``. Not in conftest.py, which no module can import: there are several of that name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

#: Name, function that fills a folder → that folder, filled by the first worker that asks.
Once: TypeAlias = Callable[[str, Callable[[Path], None]], Path]
