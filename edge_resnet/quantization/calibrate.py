"""Pictures → ranges: one streaming pass of the FP32 graph. Knows nothing of Q/DQ, engines or where the pictures lie.

The graph runs in ONNX Runtime with the values of the tensors to be quantized as its outputs (large tensors: a sample of them), on
all cores; then all cores count the values, a tensor each. One batch of activations is all that is held at any time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.core.errors import CalibrationError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import Progress, QuantRecipe
from edge_resnet.quantization.histogram import AbsHistogram
from edge_resnet.quantization.ranges import read_amax
from edge_resnet.quantization.sampling import probed

__all__ = ["CALIBRATION_BATCH", "calibrate", "collect", "table_from"]

#: Pictures per run of the graph: enough that counting 71 tensors is seldom a matter of starting, few enough for a small board.
CALIBRATION_BATCH = 4

#: More threads than this wait for each other more than they count.
_MOST_COUNTERS = 4

Images = npt.NDArray[np.uint8]


def calibrate(
    model_path: Path,
    tensors: Sequence[str],
    batches: Iterable[Images],
    recipe: QuantRecipe,
    *,
    progress: Progress | None = None,
) -> CalibrationTable:
    """Measure the range of each of ``tensors`` over ``batches`` of (n, H, W, 3) uint8 RGB, the last of any length.

    ``images_digest`` of the table is over the pixels in their order, whatever the batches; the ranges do not depend on the order.
    Raises CalibrationError where there is no picture, where every picture is one flat colour, or an activation is not finite.
    """
    digest = hashlib.sha256()
    histograms, count = collect(model_path, tensors, _hashed(batches, digest), recipe.images, progress=progress)
    return table_from(histograms, recipe, count, digest.hexdigest(), sha256_of(model_path))


def collect(
    model: onnx.ModelProto | Path,
    tensors: Sequence[str],
    batches: Iterable[Images],
    expected: int,
    *,
    watch: Callable[[int, Mapping[str, AbsHistogram]], None] | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, AbsHistogram], int]:
    """Histograms of the absolute values per tensor, and the number of pictures they were counted over.

    Of large tensors they hold a sample of the positions and the largest value of all (sampling.py).
    ``expected``: how many pictures the progress counts up to. ``watch``: called after
    every batch with the pictures so far. Memory does not depend on the number of pictures.
    """
    graph, probes = probed(onnx.load(model) if isinstance(model, Path) else model, tensors)
    histograms = {name: AbsHistogram() for name in probes}
    outputs = [probe.values for probe in probes.values()]
    tops = [probe.largest for probe in probes.values() if probe.largest is not None]
    session = _session(graph)
    feed = session.get_inputs()[0].name
    count, varied = 0, False
    with ThreadPoolExecutor(min(_MOST_COUNTERS, _cores())) as counters:
        for batch in batches:
            if progress is not None:
                progress("calibrate", count, max(expected, count))
            found = dict(zip((*outputs, *tops), session.run((*outputs, *tops), {feed: batch}), strict=True))
            values = [found[name] for name in outputs]
            largest = [found[probe.largest] if probe.largest else None for probe in probes.values()]
            for _ in counters.map(AbsHistogram.add, histograms.values(), values, largest):
                pass  # an error of a count is raised here
            count += len(batch)
            if watch is not None:
                watch(count, histograms)
            varied = varied or bool((batch != batch[:, :1, :1]).any())
    if count == 0:
        raise CalibrationError(
            "there is no picture to calibrate on", hint="--calib-data takes a folder, a CSV, an .npz or a name"
        )
    if not varied:
        raise CalibrationError("every picture is one flat colour", hint="take pictures like those at run time")
    if progress is not None:
        progress("calibrate", count, count)
    return histograms, count


def table_from(
    histograms: dict[str, AbsHistogram], recipe: QuantRecipe, count: int, images_digest: str, model_digest: str
) -> CalibrationTable:
    """Read every range off the histograms by the recipe's method; another method costs no second pass."""
    return CalibrationTable(
        amax={name: read_amax(histogram, recipe) for name, histogram in histograms.items()},
        signed=tuple(name for name, histogram in histograms.items() if histogram.signed),
        recipe=recipe,
        images=count,
        images_digest=images_digest,
        model_digest=model_digest,
    )


def _hashed(batches: Iterable[Images], digest: hashlib._Hash) -> Iterable[Images]:
    for batch in batches:
        digest.update(np.ascontiguousarray(batch).data)
        yield batch


def _session(graph: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """What only the logits need is left out by ONNX Runtime itself: they are no output."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = _cores()
    options.add_session_config_entry("session.force_spinning_stop", "1")  # the cores are the counters' after a run
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _cores() -> int:
    return len(os.sched_getaffinity(0))
