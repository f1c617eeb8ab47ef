"""The artifact of the self-test: made from the shipped weights, the same each time, and whole."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scripts import load_script

from edge_resnet.artifact.folder import open_artifact
from edge_resnet.core.errors import ArtifactError
from edge_resnet.core.records import default_preprocess, default_spec
from edge_resnet.deployment.selftest.compare import off
from edge_resnet.deployment.selftest.golden import ARTIFACT, CPU_FORMS, preprocessed_frames, read_golden
from edge_resnet.network import build_network, load_weights
from edge_resnet.network.export import Deployable
from edge_resnet.runtime.onnxruntime import OnnxRuntimeBackend

REPO = Path(__file__).resolve().parents[3]
#: The packages that decide over the bytes of the graphs.
TOOLS = ("torch", "onnx", "numpy")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """benchmarks/selftest_artifact.py as a module."""
    path = REPO / "benchmarks" / "selftest_artifact.py"
    return load_script(path)


def test_it_holds_the_shipped_weights() -> None:
    """torch computes from the shipped weights the logits that the artifact stores, and ONNX Runtime from its graph."""
    artifact, golden = read_golden()
    spec = default_spec("cifar", 20)
    network = build_network(spec)
    assert load_weights(network, spec, "default") == artifact.manifest.model.weights
    deployable = Deployable(network.eval(), default_preprocess("cifar", 32))
    with torch.no_grad():
        wanted = deployable(torch.from_numpy(golden.images)).numpy()
    assert off(golden.logits["fp32"], wanted) < 1e-4
    with OnnxRuntimeBackend(artifact.model_path, 10, 32) as backend:
        assert off(backend.infer(golden.images), wanted) < 1e-4


@pytest.mark.slow
def test_a_second_run_makes_the_same(script: ModuleType, tmp_path: Path) -> None:
    """The same images; with the same tools the same graphs and ranges to the byte, and with others the same answers."""
    made = script.make(tmp_path / "made")
    (_, again), (shipped, golden) = read_golden(made.folder), read_golden()
    np.testing.assert_array_equal(again.images, golden.images)
    assert again.logits.keys() == golden.logits.keys() == {"fp32", "tensorrt", *CPU_FORMS}
    for form, logits in golden.logits.items():
        assert off(again.logits[form], logits) < 0.04, form
    if all(version(name).partition("+")[0] == shipped.manifest.tools[name] for name in TOOLS):
        names = {"model.onnx", "calibration.json", "corrections.npz", "labels.txt"}
        assert {name: made.manifest.files[name] for name in names} == {name: shipped.manifest.files[name] for name in names}
        for path in ARTIFACT.glob("engines/*/*"):
            assert (made.folder / path.relative_to(ARTIFACT)).read_bytes() == path.read_bytes()


def test_its_engines_are_those_that_are_asked_for() -> None:
    """A processor of either kind finds its INT8 graph under the key that this version of the compiler has."""
    artifact = open_artifact(ARTIFACT)
    request = OnnxRuntimeBackend.engine_request(artifact, "native")
    assert request is not None
    keys = {request.key.replace(request.form, form) for form in CPU_FORMS}
    assert {path.name for path in (ARTIFACT / "engines").iterdir()} == keys


def test_every_answer_is_clear() -> None:
    """In every form the same classes, several of them, by a margin that no rounding takes away."""
    _, golden = read_golden()
    classes = golden.logits["fp32"].argmax(axis=1)
    assert len(set(classes.tolist())) >= 5
    for form, logits in golden.logits.items():
        ordered = np.sort(logits, axis=1)
        assert (logits.argmax(axis=1) == classes).all(), form
        assert (ordered[:, -1] - ordered[:, -2]).min() >= 2.5


def test_preprocessing_gives_the_stored_bytes() -> None:
    """Within one step: the two resizers round in different ways."""
    artifact, golden = read_golden()
    found = preprocessed_frames(artifact.manifest.preprocess)
    assert np.abs(found.astype(int) - golden.frames.astype(int)).max() <= 1


def test_it_is_small_and_names_nobody() -> None:
    """Two megabytes and a little, and no file holds a path of the machine that made it."""
    files = [path for path in ARTIFACT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_200_000
    for path in files:
        content = path.read_bytes()
        assert not any(word in content for word in (b"site-packages", b"/home/", b"/root", b"/tmp", str(REPO).encode()))


def test_a_damaged_installation_is_noticed(tmp_path: Path) -> None:
    """A changed byte in the answers, and answers that are missing."""
    folder = Path(shutil.copytree(ARTIFACT, tmp_path / "damaged"))
    content = bytearray((folder / "golden.npz").read_bytes())
    content[1000] ^= 1
    (folder / "golden.npz").write_bytes(content)
    with pytest.raises(ArtifactError, match="changed after the build"):
        read_golden(folder)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    del manifest["files"]["golden.npz"]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"has no golden\.npz"):
        read_golden(folder)
