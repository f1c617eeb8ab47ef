"""Records in JSON files, read back only if whole: of the kind that is asked for, of a schema that is known. Knows no record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from edge_resnet.errors import DataError

__all__ = ["kind_of", "parse_record", "read_json"]

T = TypeVar("T")


def read_json(path: Path, again: str = "measure again") -> Any:
    """The content of a JSON file. Raises DataError where it cannot be read or is cut off; ``again`` is the remedy for that."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint="check the spelling") from error
    except ValueError as error:
        raise DataError(f"{path} is cut off, or no JSON: {error}", hint=f"copy it again, or {again}") from error


def kind_of(path: Path) -> str | None:
    """The command that wrote the file; None where it does not say. Raises DataError as ``read_json``."""
    content = read_json(path)
    first = content[0] if isinstance(content, list) and content else content
    kind = first.get("kind") if isinstance(first, dict) else None
    return kind if isinstance(kind, str) else None


def parse_record(path: Path, content: Any, record: type[T], *, kind: str, schema: int) -> T:
    """``content`` of ``path`` as the dataclass ``record``, which has the fields ``kind`` and ``schema_version``.

    ``kind``: the command that writes it. Raises DataError where it is of another kind, of a schema above ``schema``, or does not
    hold what such a record holds.
    """
    again = f"run {kind} again"
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise DataError(f"{path} is not what {kind} writes", hint=again)
    version = content.get("schema_version")
    if not isinstance(version, int) or version > schema:
        raise DataError(f"{path} has schema {version}, this edge-resnet reads up to {schema}", hint="pip install -U edge-resnet")
    try:
        return TypeAdapter(record).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}", hint=again) from error
