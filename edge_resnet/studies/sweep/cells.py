"""The cells of a sweep on disk: each a JSON file, written whole, and used again only where nothing it depends on has changed.

Knows nothing of what is measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_resnet.core.errors import BuildError
from edge_resnet.core.files import write_whole

__all__ = ["Cells", "claim"]

SCHEMA = 1
KIND = "edge-resnet cell"
#: Says that a folder is a report's, from its first moment on.
_MARK = "cells"


@dataclass(frozen=True)
class Cells:
    """``folder``: where they lie. ``resume``: those that are there may be used."""

    folder: Path
    resume: bool = True

    def get(self, name: str, key: Mapping[str, Any]) -> Any:
        """The result under that name; None where there is none, it is not whole, or its key is another."""
        if not self.resume:
            return None
        try:
            content = json.loads(self._path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # none yet, or cut off: it is measured again
            return None
        same = isinstance(content, dict) and content.get("kind") == KIND and content.get("schema_version") == SCHEMA
        return content.get("result") if same and content.get("key") == _plain(key) else None

    def put(self, name: str, key: Mapping[str, Any], result: Any) -> None:
        """Keep a result, whole or not at all. Raises BuildError."""
        content = {"schema_version": SCHEMA, "kind": KIND, "key": _plain(key), "result": result}
        write_whole(self._path(name), (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())

    def _path(self, name: str) -> Path:
        return self.folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.json"


def claim(output: Path, *, resume: bool, force: bool) -> Cells:
    """The cells of the report in ``output``, which is made where it is not there.

    A report's folder is gone on with where ``resume``, and measured anew where ``force``; any other folder that holds something
    is refused, whatever is asked. Raises BuildError.
    """
    folder = output / _MARK
    if output.exists() and not output.is_dir():
        raise BuildError(f"{output} exists and is no folder", hint="choose another one with -o")
    if output.is_dir() and any(output.iterdir()):
        if not folder.is_dir():
            raise BuildError(f"{output} exists and holds no report of ours", hint="choose another folder with -o")
        if not resume and not force:
            raise BuildError(
                f"{output} holds a report already", hint="leave out --no-resume to go on with it, or --force to measure anew"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"cannot make {folder}: {error.strerror or error}", hint="check the path") from error
    return Cells(folder, resume=resume and not force)


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value))
