"""Makes the artifact that `edge-resnet selftest` runs: the shipped ResNet-20 in INT8, with seeded images and their logits.

    make selftest-artifact

Nothing in it is drawn at random without a seed, so that a second run with the same tools writes the same bytes. The images are
noise of several scales, like the spectrum of photographs; of many such images those are kept that every form of the network
classifies with a clear margin, a class in turn. No image of a data set is among them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_resnet.artifact.folder import MANIFEST, Artifact, describe_files, open_artifact, write_json
from edge_resnet.compiler.derive import DERIVATIONS, compile_engine
from edge_resnet.core.records import default_preprocess, default_spec
from edge_resnet.deployment.selftest.compare import off, spread
from edge_resnet.deployment.selftest.golden import ARTIFACT, CPU_FORMS, GOLDEN, PROFILE, preprocessed_frames
from edge_resnet.pipelines.build import BuildOptions, build
from edge_resnet.runtime.backend import open_backend
from edge_resnet.runtime.onnxruntime import QDQ_FOR_CPU, OnnxRuntimeBackend

IMAGES, CANDIDATES, SEED = 24, 2000, 20
#: The manifest's date is that of the first version, so that the same network has the same bytes.
CREATED = "2026-11-30T00:00:00+00:00"
#: Logits by which the best class is ahead of the second, and the largest part of the logits' spread that INT8 may change.
MARGIN, CHANGE = 2.5, 0.05


def main() -> int:
    """Write the artifact, and say whether anything changed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=ARTIFACT, metavar="DIR", help="default: %(default)s")
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder) / "artifact")
        if _content(output) == _content(made.folder):
            print(f"{output} is what would be made")
            return 0
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(made.folder, output)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    print(f"{output}: {size} bytes")
    return 0


def make(folder: Path) -> Artifact:
    """The artifact in ``folder``, with ``golden.npz`` and the INT8 graphs for processors."""
    options = BuildOptions(
        model=default_spec("cifar", 20),
        preprocess=default_preprocess("cifar", 32),
        precision="int8",
        weights="default",
        output=folder,
        backend="onnxruntime",
        batch=PROFILE,
    )
    artifact = build(options)
    shutil.rmtree(folder / "engines")
    _derive(artifact)
    candidates = _clear(artifact, np.stack(list(_candidates())))
    answers = _answers(artifact, candidates)
    shutil.rmtree(folder / "engines")
    chosen = _chosen(answers)
    np.savez_compressed(
        folder / GOLDEN,
        images=candidates[chosen],
        frames=preprocessed_frames(artifact.manifest.preprocess),
        **{form: logits[chosen] for form, logits in answers.items()},
    )
    write_json(folder / MANIFEST, replace(artifact.manifest, created=CREATED, files=describe_files(folder)))
    artifact = open_artifact(folder)
    _derive(artifact)
    return artifact


def _derive(artifact: Artifact) -> None:
    """Store the INT8 graphs of every kind of processor."""
    request = OnnxRuntimeBackend.engine_request(artifact, "native")
    assert request is not None
    for form in CPU_FORMS:
        key = request.key.replace(request.form, form)
        DERIVATIONS[QDQ_FOR_CPU.kind](artifact, replace(request, key=key, form=form), None)


def _answers(artifact: Artifact, images: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    """Logits (N, classes) of every form: ``fp32``, ``tensorrt`` (its INT8, simulated) and those of processors."""
    found = {}
    for form, variant in (("fp32", "reference"), ("tensorrt", "simulated")):
        compile_engine(artifact, "onnxruntime", variant)
        with open_backend(artifact, "onnxruntime", variant) as backend:
            found[form] = backend.infer(images)
    spec = artifact.manifest.model
    for form in CPU_FORMS:
        (graph,) = artifact.folder.glob(f"engines/*-{form}-*/model.onnx")
        with OnnxRuntimeBackend(graph, spec.classes, spec.input_size) as backend:
            found[form] = backend.infer(images)
    return found


def _candidates() -> Iterator[npt.NDArray[np.uint8]]:
    """Seeded images (32, 32, 3) uint8: noise of five scales, coarse scales the strongest."""
    rng = np.random.default_rng(SEED)
    for _ in range(CANDIDATES):
        image = np.zeros((32, 32, 3))
        for cells in (2, 4, 8, 16, 32):
            noise = rng.normal(0, 1, (cells, cells, 1)) + rng.normal(0, 0.4, (cells, cells, 3))
            image += np.kron(noise, np.ones((32 // cells, 32 // cells, 1))) * rng.uniform(0.3, 1.6) / np.sqrt(cells)
        image = image / image.std() * rng.uniform(25, 60) + rng.uniform(80, 170) + rng.normal(0, 20, 3)
        yield np.clip(image, 0, 255).astype(np.uint8)


def _clear(artifact: Artifact, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The images that the FP32 graph classifies with the margin: the other forms need not run the rest."""
    with open_backend(artifact, "onnxruntime", "reference") as backend:
        ordered = np.sort(np.concatenate([backend.infer(piece) for piece in np.array_split(images, 40)]), axis=1)
    found: npt.NDArray[np.uint8] = images[ordered[:, -1] - ordered[:, -2] >= MARGIN]
    return found


def _chosen(answers: dict[str, npt.NDArray[np.float32]]) -> list[int]:
    """Which images are kept: clear in every form and changed little by INT8; the classes take turns."""
    fp32 = answers["fp32"]
    best, scale = fp32.argmax(axis=1), spread(fp32)
    clear = np.ones(len(fp32), bool)
    for logits in answers.values():
        ordered = np.sort(logits, axis=1)
        change = np.sqrt(np.mean((logits - fp32) ** 2, axis=1)) / scale
        clear &= (ordered[:, -1] - ordered[:, -2] >= MARGIN) & (logits.argmax(axis=1) == best) & (change <= CHANGE)
    queues = [[int(index) for index in np.flatnonzero(clear & (best == number))] for number in range(fp32.shape[1])]
    found: list[int] = []
    while len(found) < IMAGES:
        taken = [queue.pop(0) for queue in queues if queue]
        if not taken:
            raise SystemExit(f"only {len(found)} of {IMAGES} images are clear")
        found += taken
    found = found[:IMAGES]
    changes = ", ".join(f"{form} {100 * off(answers[form][found], fp32[found]):.2f} %" for form in answers)
    print(f"classes {sorted({int(best[index]) for index in found})}; change of the logits: {changes}")
    return found


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


if __name__ == "__main__":
    sys.exit(main())
