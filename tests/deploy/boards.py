"""A board that is a folder, and stand-ins that record how they were called instead of changing a machine."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
JETSON = DEPLOY / "jetson"

MODES = {0: "15W", 1: "25W", 2: "MAXN_SUPER", 3: "7W"}
TENSORRT = "__version__ = '10.3.0'\n"
OPENCV = """
__version__ = "4.8.0"
CAP_GSTREAMER = 1800
class videoio_registry:
    hasBackend = staticmethod(lambda backend: {has})
"""


@dataclass
class Board:
    """A folder that replaces ``/`` of a Jetson, and a folder of stand-ins at the front of PATH.

    Each stand-in appends its name and arguments to ``calls``; ``sudo`` only runs what follows it. What a script says is
    English and what it calls is found here, so the machine of the test does not matter.
    """

    root: Path
    bin: Path
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, path: str, text: str, *, executable: bool = False) -> None:
        """Write a file of the board, with its parent folders."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        target.chmod(0o755 if executable else 0o644)

    def stub(self, name: str, body: str = "") -> None:
        """A program on PATH that records its call and then does ``body`` (bash)."""
        path = self.bin / name
        path.write_text(f'#!/bin/bash\necho "{name}" "$@" >>"$CALLS"\n{body}\n', encoding="utf-8")
        path.chmod(0o755)

    def quiet_stub(self, name: str, body: str) -> None:
        """A program on PATH whose calls change nothing and are not recorded."""
        path = self.bin / name
        path.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        path.chmod(0o755)

    def release(self, l4t: str) -> None:
        """The file that names the L4T release, 36.4.3 being revision 4.3 of 36."""
        major, _, rest = l4t.partition(".")
        self.write("etc/nv_tegra_release", f"# R{major} (release), REVISION: {rest}, GCID: 1, BOARD: generic, EABI: aarch64\n")

    def mode(self, number: int) -> None:
        """Set the power mode, as nvpmodel stores it."""
        self.write("var/lib/nvpmodel/status", f"pmode:{number:04d}\nfmode:quiet\n")

    def memory(self, total_mib: int, available_mib: int, swap_mib: int) -> None:
        """Set the content of /proc/meminfo."""
        pairs = {"MemTotal": total_mib, "MemAvailable": available_mib, "SwapTotal": swap_mib}
        self.write("proc/meminfo", "".join(f"{key}: {value * 1024} kB\n" for key, value in pairs.items()))

    def module(self, name: str, text: str | None, folder: str = "usr/lib/python3/dist-packages") -> None:
        """Set a module of the board's Python; None removes it."""
        path = self.root / folder / f"{name}.py"
        path.unlink(missing_ok=True)
        if text is not None:
            self.write(f"{folder}/{name}.py", text)

    def run(self, script: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a script of deploy/jetson on this board."""
        return subprocess.run(
            ["bash", JETSON / script, *arguments],
            input=stdin, capture_output=True, text=True, check=False, env=self.environment, timeout=60,
        )  # fmt: skip

    @property
    def calls(self) -> list[str]:
        """The recorded calls of the stand-ins, in order, without the board's folder in paths."""
        path = Path(self.environment["CALLS"])
        return path.read_text(encoding="utf-8").replace(f"{self.root}/", "/").splitlines() if path.exists() else []

    def files(self) -> dict[str, bytes]:
        """Every file of the board and its content, without the records."""
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


def power_modes(modes: dict[int, str]) -> str:
    """nvpmodel.conf with these modes."""
    return "".join(f"< POWER_MODEL ID={number} NAME={name} >\nCPU_ONLINE CORE_0 1\n" for number, name in modes.items())
