"""Which plugins of GStreamer this machine has, from the files that GStreamer itself would load. Does not know about pipelines.

OpenCV before 4.7 waits for ever for a pipeline that names an element which is not there, so this is asked before it is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["has_plugin"]

_ROOT = Path("/")
#: Where distributions install plugins, JetPack among them.
_FOLDERS = ("usr/lib/*/gstreamer-1.0", "usr/lib*/gstreamer-1.0", "usr/local/lib*/gstreamer-1.0", "usr/local/lib/*/gstreamer-1.0")


def has_plugin(name: str, root: Path = _ROOT, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether GStreamer finds the plugin of that name: ``libgstNAME.so`` in its folders, or in those of GST_PLUGIN_PATH.

    ``root`` stands for ``/`` where GST_PLUGIN_SYSTEM_PATH does not name other folders.
    """
    return any(any(folder.rglob(f"libgst{name}.so")) for folder in _folders(root, environment))


def _folders(root: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """The folders in GStreamer's own order; a variable with the version in its name replaces the one without."""
    yield from _named(environment, "GST_PLUGIN_PATH")
    system = _named(environment, "GST_PLUGIN_SYSTEM_PATH")
    if system:
        yield from system
    else:
        for pattern in _FOLDERS:
            yield from root.glob(pattern)


def _named(environment: Mapping[str, str], variable: str) -> list[Path]:
    value = environment.get(f"{variable}_1_0", environment.get(variable, ""))
    return [Path(folder) for folder in value.split(os.pathsep) if folder]
