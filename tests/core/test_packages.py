"""What edge-resnet requires is read from its own metadata, and versions are compared as pip compares them."""

from __future__ import annotations

import importlib.metadata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core import packages
from edge_resnet.core.errors import MissingDependencyError
from edge_resnet.core.packages import EXTRAS, extra_command, installed_version, is_older, minimum_version, required_packages

#: Import names that differ from pip's.
DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "huggingface_hub": "huggingface-hub",
    "paho": "paho-mqtt",
    "prometheus_client": "prometheus-client",
    "sklearn": "scikit-learn",
    "tensorrt_rtx": "tensorrt-rtx-cu12",
}


@given(st.lists(st.integers(0, 3000), min_size=3, max_size=3), st.lists(st.integers(0, 3000), min_size=3, max_size=3))
def test_versions_are_ordered_as_numbers(left: list[int], right: list[int]) -> None:
    """1.10 is newer than 1.9, and a local suffix changes nothing."""
    one, other = (".".join(map(str, numbers)) for numbers in (left, right))
    assert is_older(f"{one}+cu130", other) == (left < right)


@pytest.mark.parametrize(
    ("version", "minimum", "older"),
    [
        ("2.4.0a0+872d972e41.nv24.08", "2.4", False),  # NVIDIA's builds of torch for Jetson
        ("8.6.1.6", "8.6.1", False),
        ("10.3", "10.3.0", False),
        ("8.5.10", "8.6", True),
        ("of my own", "1.0", False),
    ],
)
def test_suffixes_and_unknown_forms(version: str, minimum: str, older: bool) -> None:
    """A pre-release counts as its release, and what cannot be compared is not called older."""
    assert is_older(version, minimum) == older


def test_an_extra_adds_to_what_everything_requires() -> None:
    """The base is not repeated in an extra, nor are the extras that it includes."""
    base = required_packages()
    assert base["numpy"] == "1.26"
    assert "torch" not in base
    build = required_packages("build")
    assert build.keys() == {"torch", "torchvision", "safetensors"}
    assert required_packages("compile").keys() == {"onnx"}
    assert minimum_version("TensorRT") == "8.6"
    with pytest.raises(KeyError):
        minimum_version("no-such-package")


@pytest.mark.parametrize(("module", "extra"), EXTRAS.items())
def test_every_extra_brings_its_module(module: str, extra: str) -> None:
    """The table of extras agrees with pyproject.toml."""
    assert DISTRIBUTIONS.get(module, module) in required_packages(extra)
    assert extra_command(extra) == f"pip install 'edge-resnet[{extra}]'"


def test_without_an_installation_the_requirements_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout that was never installed has no metadata: one error, with a command."""

    def missing(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    packages._requirements.cache_clear()
    with pytest.raises(MissingDependencyError, match="is not installed") as caught:
        required_packages()
    assert "pip install" in caught.value.hint
    assert installed_version("no-such-package") is None
