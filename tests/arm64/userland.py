"""An arm64 Debian in a folder, whose Python runs on an emulated processor, with the project's wheel and what it needs.

Packages are unpacked, not configured: that would run their scripts, for which the kernel would have to know qemu. Does not know
what is run in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Userland", "make_userland", "why_no_userland"]

PACKAGES = "qemu-user-static debootstrap gcc"
_QEMU = Path("/usr/bin/qemu-aarch64-static")
_LAUNCHER = Path(__file__).with_name("launcher.c")
_TAGS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
#: Of the processors that qemu knows: what /proc/cpuinfo says on each, its part number and what it can do beyond the first ARMv8.
_PROCESSORS = {"cortex-a76": ("0xd0b", "atomics asimdhp asimdrdm asimddp"), "cortex-a57": ("0xd07", "")}


@dataclass(frozen=True)
class Userland:
    """``root``: the folder that becomes ``/``. ``processor``: one of qemu's."""

    root: Path
    processor: str = "cortex-a76"

    def python(self, *arguments: str, packages: str = "base") -> subprocess.CompletedProcess[str]:
        """Run Python there, with the packages that ``install`` put into the folder of that name; it may have failed."""
        part, features = _PROCESSORS[self.processor]
        (self.root / "proc/cpuinfo").write_text(
            f"processor\t: 0\nFeatures\t: fp asimd aes crc32 {features}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n"
        )
        variables = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "130",
        }
        return subprocess.run(
            ["chroot", self.root, "/usr/bin/python3", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=variables | {"QEMU_CPU": self.processor, "PYTHONPATH": f"/opt/{packages}"},
        )

    def install(self, wheel: Path, extra: str, packages: str) -> None:
        """Install the wheel with an extra, as pip resolves it for this Python and processor."""
        (interpreter,) = self.root.glob("usr/bin/python3.*.arm64")
        version = interpreter.name.removeprefix("python").removesuffix(".arm64")
        tags = [word for tag in _TAGS for word in ("--platform", tag)]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        target = ["--python-version", version, "--target", str(self.root / "opt" / packages)]
        subprocess.run([*pip, *tags, *target, f"{wheel}{extra}"], check=True)


def why_no_userland() -> str:
    """Why there can be none here, empty if there can: the reason for skipping a test."""
    if os.geteuid() != 0:
        return "needs root: chroot"
    if not (_QEMU.exists() and shutil.which("debootstrap") and shutil.which("gcc")):
        return f"needs apt-get install {PACKAGES}"
    return ""


def make_userland(root: Path) -> Userland:
    """Download and unpack the system into a folder that is empty: 230 MB."""
    release = _said("bash", "-c", ". /etc/os-release && echo $VERSION_CODENAME")
    sources = _said(
        "apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", f"Release: {release}", "Label: Debian"
    )
    mirror = sources.splitlines()[0]
    options = ["--foreign", "--arch=arm64", "--variant=minbase", "--include=python3,libstdc++6"]
    subprocess.run(["debootstrap", *options, release, root, mirror], check=True, stdout=subprocess.DEVNULL)
    for package in root.glob("var/cache/apt/archives/*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    shutil.copy(_QEMU, root / "usr/bin")
    (interpreter,) = root.glob("usr/bin/python3.[0-9]*")
    emulated = interpreter.rename(interpreter.with_name(f"{interpreter.name}.arm64"))
    path = f'-DPYTHON="/{emulated.relative_to(root)}"'
    subprocess.run(["gcc", "-static", "-Wall", "-Werror", path, "-o", interpreter, _LAUNCHER], check=True)
    (root / "proc").mkdir(exist_ok=True)
    # ONNX Runtime reads the number of processors here; with the rest of an x86 machine's /sys it would crash.
    processors = root / "sys/devices/system/cpu"
    processors.mkdir(parents=True)
    for name in ("present", "possible"):
        (processors / name).write_text("0\n")
    return Userland(root)


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
