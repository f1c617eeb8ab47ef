"""The report of a self-test as JSON, without anything that names its user: ready to be attached to an issue."""

from __future__ import annotations

import getpass
import json
import math
import re
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_resnet.core import __version__
from edge_resnet.deployment.selftest.check import Check
from edge_resnet.device.machine import DeviceInfo

__all__ = ["KIND", "SCHEMA", "document", "scrubbed"]

#: Version of the file format.
SCHEMA = 1
KIND = "edge-resnet selftest"
_GONE = "…"
#: A path from the root or the home folder, but not a fraction or a unit such as images/s. Of devices the path says what they are.
_PATH = re.compile(r"(?<![\w/.…])[~…]?/(?!dev/)(?:[^\s/:'\"(),;]+/)*([^\s/:'\"(),;]*)")


def document(checks: Sequence[Check], machine: DeviceInfo, seconds: float) -> str:
    """The report as indented JSON. ``seconds``: how long the whole test took."""
    counts = Counter(check.status for check in checks)
    machine_facts = {name: scrubbed(value) if isinstance(value, str) else value for name, value in asdict(machine).items()}
    content: dict[str, Any] = {
        "schema_version": SCHEMA,
        "kind": KIND,
        "edge_resnet": __version__,
        "seconds": round(seconds, 1),
        "ok": counts["ok"],
        "failed": counts["failed"],
        "not_here": counts["not here"],
        "machine": machine_facts,
        "checks": [_record(check) for check in checks],
    }
    return json.dumps(_as_json(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def scrubbed(text: str) -> str:
    """The text without folders, and without the names of the user and of the machine."""
    for place in sorted(_places(), key=len, reverse=True):
        text = text.replace(place, _GONE)
    text = _PATH.sub(lambda found: f"{_GONE}/{found[1]}", text)
    for name in sorted(_names(), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", _GONE, text)
    return text


def _as_json(value: Any) -> Any:
    """The value as JSON and UTF-8 can hold it: a broken backend's figures may not be numbers, and its messages hold any bytes."""
    if isinstance(value, dict):
        return {_as_json(name): _as_json(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_as_json(inner) for inner in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _record(check: Check) -> dict[str, Any]:
    figures = {name: scrubbed(value) if isinstance(value, str) else value for name, value in check.figures.items()}
    return {
        "group": check.group,
        "name": check.name,
        "status": check.status,
        "detail": scrubbed(check.detail),
        "figures": figures,
        "seconds": round(check.seconds, 2),
    }


def _places() -> set[str]:
    """Folders that may occur in messages, also with blanks in their names."""
    found = {tempfile.gettempdir(), sys.prefix, sys.base_prefix, *(place for place in sys.path if place)}
    with suppress(OSError, RuntimeError):  # the working folder was removed; there is no home
        found |= {str(Path.cwd()), str(Path.home())}
    return {place for place in found if len(place) > 1}


def _names() -> set[str]:
    """The names of this user and of this machine."""
    host = socket.gethostname()
    found = {host, host.partition(".")[0]}
    with suppress(OSError, KeyError, ImportError):  # no such user in this container
        found.add(getpass.getuser())
    with suppress(OSError, RuntimeError):
        found.add(Path.home().name)
    return {name for name in found if len(name) > 1 and name != "localhost"}
