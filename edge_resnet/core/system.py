"""The operating system that edge-resnet needs. Imports nothing that only Unix has, so that it answers everywhere."""

from __future__ import annotations

import sys

from edge_resnet.core.errors import EdgeResnetError

__all__ = ["check_system"]

_NAMES = {"win32": "Windows", "cygwin": "Cygwin", "darwin": "macOS"}
_REMEDIES = {
    "win32": "use WSL2, whose Linux uses NVIDIA's driver for Windows: wsl --install, then in WSL2 pip install edge-resnet",
    "cygwin": "use WSL2 instead: wsl --install, then in WSL2 pip install edge-resnet",
}
_ELSEWHERE = "use a Linux container or virtual machine: docker run -it python:3.12 bash, then in it pip install edge-resnet"


def check_system(system: str | None = None) -> None:
    """Raises EdgeResnetError with what to do instead unless this is Linux. ``system``: as in ``sys.platform``."""
    system = system or sys.platform
    if system != "linux":
        raise EdgeResnetError(
            f"edge-resnet runs on Linux, and this is {_NAMES.get(system, system)}", hint=_REMEDIES.get(system, _ELSEWHERE)
        )
