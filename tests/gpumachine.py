"""Machines for the tests of doctor, and stand-ins for the packages and libraries of NVIDIA."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edge_resnet.device.machine import DeviceInfo

#: Read now: a test may empty PATH.
COMPILER, ENVIRONMENT = shutil.which("gcc") or shutil.which("cc"), dict(os.environ)
STANDINS = Path(__file__).resolve().parent / "standins"
CPU = DeviceInfo(
    cpu="Some CPU", architecture="x86_64", usable_cores=4, has_int8_dot_product=True, memory_total_mib=8192,
    memory_available_mib=4096, board=None, gpu=None, gpu_failure=None, driver=None, compute_capability=None, cuda=None,
    tensorrt=None, l4t=None, jetpack=None, power_mode=None, python="3.11.7", os="Some Linux",
)  # fmt: skip
DESKTOP = replace(CPU, gpu="NVIDIA T4", driver="580.95.05", compute_capability="7.5")
JETSON = replace(CPU, architecture="aarch64", gpu="NVIDIA Orin", compute_capability="8.7", l4t="36.4.3", jetpack="6.2")
THOR = replace(JETSON, gpu="NVIDIA Thor", compute_capability="11.0", l4t="39.2.2", jetpack="7.2.2")


def package(site: Path, name: str, body: str = "") -> None:
    """A module, or with a dot a package's submodule, that runs ``body`` when it is imported."""
    folder = site / name.partition(".")[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").touch()
    path = folder / f"{name.partition('.')[2] or '__init__'}.py"
    path.write_text(body)
    importlib.invalidate_caches()


def record(site: Path, name: str, version: str) -> None:
    """The record that pip keeps of an installed package."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    importlib.invalidate_caches()


def library(path: Path, code: str) -> Path:
    """Compile C to a shared library; the stand-ins' folder is on the include path."""
    if COMPILER is None:
        pytest.skip("no C compiler for the stand-in")
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [COMPILER, "-shared", "-fPIC", f"-I{STANDINS}", "-x", "c", "-", "-o", path]
    subprocess.run(command, input=code, text=True, check=True, env=ENVIRONMENT)
    return path


def no_driver(folder: Path) -> Path:
    """A folder for LD_LIBRARY_PATH that hides the machine's CUDA driver behind one that cannot be loaded."""
    (folder / "libcuda.so.1").touch()
    return folder
