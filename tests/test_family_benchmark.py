"""benchmarks/family.py on networks of eight layers: measured once, kept, marked, and continued after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scripts import load_script

from edge_resnet.core.errors import INTERRUPTED, ConfigError
from edge_resnet.core.modelnames import spec_named
from edge_resnet.network import build_network

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
NAME = "resnet8-cifar"


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return load_script(BENCHMARKS / "family.py")


@pytest.mark.parametrize(
    ("file", "network"),
    [
        ("resnet50.pth", "resnet50"), ("ResNet-50_v2.safetensors", "resnet50"), ("my_resnet18_fp16.pt", "resnet18"),
        ("resnet18_small_blocks.pt", "resnet18"), ("resnet18-small.pt", ""), ("resnet50d.pth", ""), ("resnet500.pth", ""),
        ("wide_resnet50_2-3a.pth", "wide_resnet50_2"), ("resnext50_32x4d.th", "resnext50_32x4d"), ("resnet50.txt", ""),
    ],
)  # fmt: skip
def test_files_belong_to_the_network_in_their_name(family: ModuleType, tmp_path: Path, file: str, network: str) -> None:
    """The longest name counts, so that a Wide ResNet's file is not ResNet-50's; other files are nobody's."""
    (tmp_path / file).touch()
    assert family.assigned(tmp_path, family.FAMILY) == ({network: tmp_path / file} if network else {})


def test_two_files_of_one_network_are_refused(family: ModuleType, tmp_path: Path) -> None:
    """Nothing is chosen silently."""
    for name in ("resnet50.pth", "resnet50-v2.pth"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError, match=r"resnet50-v2\.pth and resnet50\.pth are both of resnet50"):
        family.assigned(tmp_path, family.FAMILY)


def inputs(folder: Path) -> list[str]:
    """Options for seeded weights of the network and thirty labelled images."""
    torch.manual_seed(0)
    for name in ("weights", *(f"data/{label}" for label in range(10))):
        (folder / name).mkdir(parents=True)
    save_file(build_network(spec_named(NAME)).state_dict(), folder / "weights" / f"{NAME}.safetensors")
    rng = np.random.default_rng(0)
    for index in range(30):
        pixels = np.kron(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
        Image.fromarray(pixels).save(folder / "data" / f"{index % 10}" / f"{index}.png")
    return ["--weights", str(folder / "weights"), "--data", str(folder / "data"), "--images", "8", "--correct", "none"]


def run(family: ModuleType, folder: Path, *words: str) -> tuple[int, dict[str, dict[str, dict[str, object]]], str]:
    """The exit code, the rows and the page. TensorRT's builder is not run here: other tests build with it."""
    page = folder / "family.md"
    common = [
        "--networks",
        NAME,
        "--backends",
        "onnxruntime",
        "--seconds",
        "0.05",
        "--work",
        str(folder / "work"),
        "-o",
        str(page),
    ]
    code = family.main([*common, *words])
    return code, json.loads(page.with_suffix(".json").read_text())["rows"], page.read_text()


def test_a_real_network_has_all_figures_and_is_measured_once(
    family: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Latency, memory, size and accuracy of both precisions; what fails has its reason; the second run measures nothing again."""

    def absent(*_: object) -> None:
        raise ConfigError("no builder here")

    monkeypatch.setattr(family.Row, "plan", absent)
    words = inputs(tmp_path)
    code, rows, page = run(family, tmp_path, *words)
    assert code == 0
    found = rows[NAME]
    assert found["latency int8 onnxruntime"]["p50_ms"] > 0  # type: ignore[operator]
    assert found["latency fp32 onnxruntime"]["peak_mib"] > 20  # type: ignore[operator]
    assert found["accuracy TensorRT"]["images"] == found["accuracy onnxruntime"]["images"] == 22
    assert 0 <= found["accuracy TensorRT"]["agreement"] <= 100  # type: ignore[operator]
    assert f"| {NAME} |" in page
    assert "no builder here" in page.partition("## Not measured")[2]
    assert not list((tmp_path / "work" / "artifacts").iterdir()), "artifacts of a finished network are removed"
    capsys.readouterr()
    assert run(family, tmp_path, *words)[1] == rows
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith(NAME)]
    assert {line.partition(": ")[2].partition(";")[0] for line in lines} == {"kept", "no builder here"}


def test_random_weights_are_marked_and_an_interruption_keeps_what_was_measured(
    family: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C writes the page with what there is and exit code 130; no accuracy of random weights is shown."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(family.Row, "plan", interrupted)
    code, rows, page = run(family, tmp_path)
    assert code == INTERRUPTED
    assert "latency int8 onnxruntime" in rows[NAME]
    assert "Interrupted" in page
    assert f"| {NAME} † |" in page
    assert "## Accuracy" not in page
