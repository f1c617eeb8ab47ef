"""The wheel: what is in it, and that what it carries can be read where it is installed."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib import metadata, resources
from pathlib import Path

import pytest
from wheels import build_wheel

import edge_resnet

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, as ``pip wheel`` builds it."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """The one top-level folder is edge_resnet; tests, docs and benchmarks stay out."""
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"edge_resnet", f"edge_resnet-{edge_resnet.__version__}.dist-info"}


def test_the_wheel_holds_every_module(wheel: Path) -> None:
    """Each module of the checkout is in the wheel, and the type marker."""
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(path.relative_to(REPO)) for path in (REPO / "edge_resnet").rglob("*.py")}
    assert modules - names == set()
    assert "edge_resnet/py.typed" in names


def test_the_wheel_holds_the_kernels(wheel: Path) -> None:
    """Their source and their PTX, byte for byte: the digests in one are of the other."""
    with zipfile.ZipFile(wheel) as archive:
        for name in ("resize.cu", "resize.ptx"):
            path = f"edge_resnet/runtime/tensorrt/{name}"
            assert archive.read(path) == (REPO / path).read_bytes()


@pytest.mark.parametrize("folder", ["calibration", "deploy"])
def test_the_wheel_carries_the_data_folders(wheel: Path, folder: str) -> None:
    """calibration/ and deploy/ ship inside edge_resnet: every file but none at the top level."""
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        f"edge_resnet/{path.relative_to(REPO)}"
        for path in (REPO / folder).rglob("*")
        if path.suffix in (".md", ".toml", ".json", ".py", ".safetensors", ".npz", ".csv")
    }
    assert wanted
    assert wanted - names == set()


def test_the_wheel_carries_the_network_of_the_selftest(wheel: Path) -> None:
    """Every file of its artifact, engines among them."""
    names = set(zipfile.ZipFile(wheel).namelist())
    folder = REPO / "edge_resnet" / "deployment" / "selftest" / "resnet20-cifar-int8"
    wanted = {str(path.relative_to(REPO)) for path in folder.rglob("*") if path.is_file()}
    assert len(wanted) == 11
    assert wanted - names == set()


@pytest.mark.parametrize(
    "name", ["recipes/imagenet.toml", "recipes/cifar10.toml", "README.md", "tables/README.md", "checkpoints/README.md"]
)
def test_data_is_read_through_importlib(name: str) -> None:
    """Installed, editable or not, recipes, tables and their descriptions are found as package data."""
    assert (resources.files("edge_resnet.calibration") / name).read_text(encoding="utf-8").strip()


def test_the_command_is_installed() -> None:
    """`edge-resnet --version` prints the version of the package."""
    result = subprocess.run(
        [Path(sys.executable).parent / "edge-resnet", "--version"], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == f"edge-resnet {edge_resnet.__version__}"


def test_the_base_install_is_for_devices() -> None:
    """No requirement without an extra is torch, onnx, OpenCV or TensorRT."""
    base = [re.split(r"[<>=;\[ ]", line)[0].lower() for line in metadata.requires("edge-resnet") or [] if "extra" not in line]
    assert sorted(base) == [
        "numpy", "onnxruntime", "packaging", "pillow", "platformdirs", "pydantic", "rich", "tomli", "typer",
    ]  # fmt: skip


def test_the_constraints_pin_what_is_required() -> None:
    """Each requirement of the extras that CI installs has its releases in constraints.txt, all exact, and no index is named."""
    lines = (REPO / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; .+)?", line) for line in pins), pins
    gpu = re.compile(r"""extra == ['"](tensorrt|rtx|rtx-cu13)['"]""")
    required = [line for line in metadata.requires("edge-resnet") or [] if not gpu.search(line)]
    names = {re.split(r"[<>=;\[ ]", line)[0].lower() for line in required}
    assert names - {pin.split("==")[0] for pin in pins} == {"edge-resnet"}


def test_the_changelog_and_the_version_agree() -> None:
    """The changelog has a section for this version, or one for what is not released."""
    text = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## Unreleased" in text or f"## {edge_resnet.__version__}" in text
