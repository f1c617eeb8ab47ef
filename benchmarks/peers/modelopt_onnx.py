"""NVIDIA Model Optimizer's post-training quantization of an ONNX file, kept in float32 instead of its default of float16."""

from __future__ import annotations

from typing import Any

from measured import Task, normalisation, run


def quantize(task: Task) -> dict[str, Any] | None:
    """``options``: ``method`` (max, entropy)."""
    from modelopt.onnx.quantization import quantize as modelopt_quantize

    modelopt_quantize(
        str(task.model),
        quantize_mode="int8",
        calibration_data=task.load_images(),
        calibration_method=task.options["method"],
        calibration_eps=["cpu"],
        nodes_to_exclude=normalisation(task.model),
        high_precision_dtype="fp32",
        output_path=str(task.output),
    )
    return None


if __name__ == "__main__":
    run(quantize, ["modelopt.onnx.quantization"])
