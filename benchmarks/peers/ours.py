"""The whole build of edge-resnet, from the checkpoint to a verified artifact with its engine, and TensorRT's form for simulation.

The time includes what no other tool does: reading the checkpoint, the export and its comparison with torch, and the CPU's engine.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from measured import Task, run


def quantize(task: Task) -> dict[str, Any] | None:
    """``options``: ``spec`` and ``recipe`` (keywords of ModelSpec and QuantRecipe) and ``weights``.

    Raises RuntimeError if the build exports another FP32 graph than the task's, or leaves out a correction.
    """
    from pydantic import TypeAdapter

    from edge_resnet.artifact.folder import CORRECTIONS, MODEL
    from edge_resnet.compiler.derive import compile_engine
    from edge_resnet.core.files import sha256_of
    from edge_resnet.core.records import ModelSpec, Preprocess, QuantRecipe
    from edge_resnet.pipelines.build import BuildOptions, build

    spec = TypeAdapter(ModelSpec).validate_python(task.options["spec"])
    with tempfile.TemporaryDirectory() as folder:
        recipe = QuantRecipe(images=len(task.load_images()), **task.options["recipe"])
        options = BuildOptions(
            model=spec,
            # The images are already cropped; resizing them to their own size changes nothing.
            preprocess=Preprocess(resize=spec.input_size, crop=spec.input_size),
            precision="int8",
            weights=task.options["weights"],
            output=Path(folder) / "artifact",
            calibration_data=str(task.images),
            recipe=recipe,
            backend="onnxruntime",
        )
        artifact = build(options)
        if sha256_of(artifact.model_path) != sha256_of(task.model):
            raise RuntimeError("the build exported another FP32 graph than the one that the other tools got")
        if recipe.correction != "none" and not (artifact.folder / CORRECTIONS).exists():
            raise RuntimeError("the build left the correction out")
        engine = compile_engine(artifact, "onnxruntime", "simulated")
        assert engine is not None
        shutil.copyfile(engine / MODEL, task.output)
    return None


if __name__ == "__main__":
    run(quantize, ["edge_resnet.pipelines.build"])
