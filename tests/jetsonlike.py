"""A Python as on a Jetson: the system's OpenCV, which has GStreamer, its NumPy 1, and a GStreamer with the Jetson's elements.

The elements are stand-ins, compiled here; everything else is what Debian ships. Does not know what is tested with it.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from packaging.requirements import Requirement

__all__ = ["PACKAGES", "JetsonLike", "make_jetson_like", "why_no_jetson_like"]

PACKAGES = (
    "python3-opencv python3-venv gcc pkg-config libgstreamer-plugins-base1.0-dev "
    "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-libav"
)
_STANDINS = Path(__file__).with_name("standins") / "gstreamer"
_PLUGINS = ("nvarguscamerasrc", "nvvidconv", "nvvideo4linux2")
_SYSTEM_PYTHON = "/usr/bin/python3"
#: Below it, by architecture, are the folders of GStreamer's plugins.
_SYSTEM_LIBRARIES = Path("/usr/lib")


@dataclass(frozen=True)
class JetsonLike:
    """What ``make_jetson_like`` made in ``folder``."""

    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter of the environment."""
        return self.folder / "venv/bin/python"

    def variables(self, sensors: Path | None = None, without: tuple[str, ...] = (), folder: Path | None = None) -> dict[str, str]:
        """The environment of a child. With ``sensors`` the Jetson's elements are there, and that folder says what a sensor does.

        ``without``: plugins of the system that GStreamer must not find; ``folder`` holds links to the others.
        """
        registry = self.folder / ("registry.bin" if sensors is None else "jetson.bin")
        found = {**os.environ, "GST_REGISTRY": str(registry), "OMP_NUM_THREADS": "1"}
        if sensors is not None:
            found |= {"GST_PLUGIN_PATH": str(self.folder / "plugins"), "STUB_ARGUS": str(sensors)}
        if folder is not None:
            folder.mkdir()
            for path in _SYSTEM_LIBRARIES.glob("*/gstreamer-1.0/libgst*.so"):
                if path.stem.removeprefix("libgst") not in without:
                    (folder / path.name).symlink_to(path)
            found |= {"GST_PLUGIN_SYSTEM_PATH": str(folder), "GST_REGISTRY": str(folder / "registry.bin")}
        return found

    def said(self, code: str, *arguments: str, variables: dict[str, str]) -> list[str]:
        """What a program writes to stdout, by lines; it must end well, and GStreamer must not complain on stderr."""
        command = [str(self.python), "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=variables)
        assert done.returncode == 0, done.stderr
        assert "CRITICAL" not in done.stderr, done.stderr
        return done.stdout.splitlines()


@cache
def why_no_jetson_like() -> str:
    """Why such a Python cannot be made here, empty if it can: the reason for skipping a test."""
    code = (
        "import cv2, ensurepip, sys, venv; assert cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER); print(sys.version_info[:2])"
    )
    try:
        found = subprocess.run([_SYSTEM_PYTHON, "-c", code], capture_output=True, text=True, check=False, timeout=60)
        headers = subprocess.run(["pkg-config", "--exists", "gstreamer-base-1.0"], check=False, timeout=60)
        compiler = subprocess.run(["gcc", "--version"], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return f"needs apt-get install {PACKAGES}"
    if found.returncode or headers.returncode or compiler.returncode or not any(_SYSTEM_LIBRARIES.glob("*/*/libgstlibav.so")):
        return f"needs apt-get install {PACKAGES}"
    if found.stdout.strip() != str(sys.version_info[:2]):
        return f"the packages of this Python do not load into {_SYSTEM_PYTHON}: it is another version, {found.stdout.strip()}"
    return ""


def make_jetson_like(folder: Path) -> None:
    """Make the environment in ``folder``: the base packages of this Python, but numpy, are linked into it."""
    subprocess.run([_SYSTEM_PYTHON, "-m", "venv", "--system-site-packages", "--without-pip", folder / "venv"], check=True)
    (site,) = folder.glob("venv/lib/python3*/site-packages")
    for name in sorted(_base_packages()):
        distribution = importlib.metadata.distribution(name)
        for top in {path.parts[0] for path in distribution.files or [] if path.parts[0] != ".."}:
            target = Path(str(distribution.locate_file(top)))
            if target.exists() and not (site / top).exists():
                (site / top).symlink_to(target)
    (folder / "plugins").mkdir()
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "gstreamer-base-1.0"], capture_output=True, text=True, check=True)
    for plugin in _PLUGINS:
        library, source = folder / f"plugins/libgst{plugin}.so", _STANDINS / f"{plugin}.c"
        warnings = ["-Wall", "-Wextra", "-Werror", '-DPACKAGE="edge-resnet"']
        subprocess.run(["gcc", "-shared", "-fPIC", *warnings, "-o", library, source, *flags.stdout.split()], check=True)


def _base_packages() -> set[str]:
    """The packages of the base install by pip's names, and what they need, without numpy: the system's is used."""
    found: set[str] = set()
    todo = ["edge-resnet"]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.name != "numpy" and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                todo.append(requirement.name)
    return found
