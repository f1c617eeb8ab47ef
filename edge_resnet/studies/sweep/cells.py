"""The cells of a sweep on disk, each a JSON file that is reused only if nothing that it depends on has changed.

Does not know what is measured.
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
#: The subfolder of the cells. It marks a folder as a report's, even before the report is written.
_FOLDER = "cells"


@dataclass(frozen=True)
class Cells:
    """The cells in ``folder``. ``resume``: existing ones may be reused."""

    folder: Path
    resume: bool = True

    def get(self, name: str, key: Mapping[str, Any]) -> Any:
        """The result of that name; None if there is none, it is incomplete, or its key differs."""
        if not self.resume:
            return None
        try:
            content = json.loads(self._path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # missing or incomplete: it is measured again
            return None
        same = isinstance(content, dict) and content.get("kind") == KIND and content.get("schema_version") == SCHEMA
        return content.get("result") if same and content.get("key") == _plain(key) else None

    def put(self, name: str, key: Mapping[str, Any], result: Any) -> None:
        """Write a result atomically. Raises BuildError."""
        content = {"schema_version": SCHEMA, "kind": KIND, "key": _plain(key), "result": result}
        write_whole(self._path(name), (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())

    def _path(self, name: str) -> Path:
        return self.folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)}.json"


def claim(output: Path, *, resume: bool, force: bool) -> Cells:
    """Make the folder ``output`` unless it exists, and return the cells of the report in it.

    A report in the folder is resumed with ``resume`` and measured again with ``force``. A folder with other contents is refused
    in any case. Raises BuildError.
    """
    folder = output / _FOLDER
    if output.exists() and not output.is_dir():
        raise BuildError(f"{output} exists and is not a folder", hint="choose another one with -o")
    if output.is_dir() and any(output.iterdir()):
        if not folder.is_dir():
            raise BuildError(f"{output} is not empty and contains no report", hint="choose another folder with -o")
        if not resume and not force:
            raise BuildError(
                f"{output} already contains a report", hint="leave out --no-resume to resume it, or --force to measure again"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BuildError(f"cannot create {folder}: {error.strerror or error}", hint="check the path") from error
    return Cells(folder, resume=resume and not force)


def _plain(value: Any) -> Any:
    """The value as JSON returns it: tuples become lists."""
    return json.loads(json.dumps(value))
