"""Opens an artifact with its engine for this machine, deriving that first where it can. Shared by run and eval."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

__all__ = []
