"""NNCF's post-training quantization of an ONNX file, forced to be symmetric and signed; all else is its default.

By default it uses unsigned int8 for activations after a ReLU, which TensorRT does not read, and halves the range of the first
convolution's weights for old CPUs, which TensorRT does not need. All target devices of 3.4 refuse its option
``signedness_to_force``, because their spaces leave the sign open; so these spaces are made signed here, and the bias correction
uses the real grid. That correction is the fast one: the slow one (``fast_bias_correction=False``) of 3.4 fails at the first
projection shortcut.
"""

from __future__ import annotations

from typing import Any

import onnx
from measured import Task, normalisation, run


def quantize(task: Task) -> dict[str, Any] | None:
    """Takes no ``options``."""
    import nncf
    from nncf.common.hardware import qspaces
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    for space in (qspaces.q8_a_sym, qspaces.q8_a, qspaces.q8_a_ch):
        object.__setattr__(space, "signedness_to_force", True)  # the record is frozen
    model = onnx.load(task.model)
    name, images = model.graph.input[0].name, task.load_images()
    quantized = nncf.quantize(
        model,
        nncf.Dataset(list(images), lambda image: {name: image[None]}),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=normalisation(task.model)),
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.DISABLE),
    )
    onnx.save(quantized, task.output)
    return None


if __name__ == "__main__":
    run(quantize, ["nncf", "nncf.onnx"])
