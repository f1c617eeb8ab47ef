"""Each check of a network passes on a right one and fails on one that is wrong in its way."""

from __future__ import annotations

import itertools
import mmap
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_resnet.deployment.selftest import network
from edge_resnet.deployment.selftest.check import Finding, NotHereError, WrongResultError
from edge_resnet.deployment.selftest.compare import LIMITS, PROCESSOR_FP32, Limit, compare
from edge_resnet.deployment.selftest.golden import Golden, read_golden, smooth_images
from edge_resnet.deployment.selftest.speed import compare_speed
from edge_resnet.images.preprocess import preprocess_bgr
from edge_resnet.runtime.fake import FakeBackend

IMAGES = smooth_images(24, 32)


class Changed(FakeBackend):
    """The fake backend with a change of its logits; preprocesses frames, and reports stages."""

    def __init__(self, change: Callable[[Any, Any], Any] = lambda logits, images: logits) -> None:
        super().__init__(10)
        self._change = change
        self.stages = {"h2d": 0.001, "compute": 0.01, "d2h": 0.001}
        self.resizes = True

    def infer(self, images: Any) -> Any:
        """The changed logits."""
        return self._change(super().infer(images), images)

    def infer_timed(self, images: Any) -> tuple[Any, dict[str, float]]:
        """The stages as they are set."""
        return self.infer(images), self.stages

    def infer_frames(self, frames: Any) -> Any:
        """The logits of preprocessed frames."""
        return self.infer(np.stack([preprocess_bgr(frame, read_golden()[0].manifest.preprocess) for frame in frames]))


@pytest.fixture(scope="module")
def golden() -> Golden:
    return read_golden()[1]


def swapped(logits: Any, images: Any) -> Any:
    """Rows in reverse."""
    return logits[::-1].copy()


def test_the_stored_answers_equal_themselves(golden: Golden) -> None:
    """The finding says how far each reference is."""
    fp32 = golden.logits["fp32"]
    found = network.judged(fp32 + np.float32(1e-5), {"stored ones": fp32, "others": fp32 + np.float32(1e-5)}, PROCESSOR_FP32)
    assert found.detail == "24 labels equal; logits < 0.001 % off the stored ones, equal to the others (limit 0.1 %)"
    assert found.figures["agreement"] == 1.0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda logits: np.roll(logits, 1, axis=0), "labels"),
        (lambda logits: logits * np.float32(1.01), "off"),
        (lambda logits: np.where(np.arange(10) == 3, np.nan, logits), "24 of 240 logits are not finite"),
        (lambda logits: logits + np.where(np.arange(240).reshape(24, 10) == 7, 0.4, 0), "at most"),
    ],
)
def test_wrong_answers_are_found(golden: Golden, change: Callable[[Any], Any], text: str) -> None:
    """Answers of other images, a scale that is one percent off, a number that is none, and a single logit."""
    with pytest.raises(WrongResultError, match=text):
        network.judged(change(golden.logits["fp32"]), {"stored ones": golden.logits["fp32"]}, PROCESSOR_FP32)


def test_the_second_reference_is_judged_too(golden: Golden) -> None:
    """Equal to the stored answers and not to ONNX Runtime's of today is wrong."""
    fp32 = golden.logits["fp32"]
    with pytest.raises(WrongResultError, match="not the ones of ONNX Runtime"):
        network.judged(fp32, {"stored ones": fp32, "ones of ONNX Runtime": fp32 + np.float32(1)}, PROCESSOR_FP32)


def test_int8_keeps_the_limit_of_its_form(golden: Golden) -> None:
    """The stored INT8 forms are no farther from FP32 than INT8 may be, and farther than FP32 may be."""
    for form in ("tensorrt", "u8s8", "u8s7"):
        result = compare(golden.logits[form], golden.logits["fp32"])
        assert result.holds(LIMITS["int8"])
        assert not result.holds(PROCESSOR_FP32)


def test_batches() -> None:
    """Rows in another order are found, and an output of another type."""
    assert isinstance(network.batches(Changed(), IMAGES, PROCESSOR_FP32), Finding)
    with pytest.raises(WrongResultError, match="a row of a batch of 8"):
        network.batches(Changed(swapped), IMAGES, Limit(1.0, 0.1))
    with pytest.raises(WrongResultError, match="float64"):
        network.batches(Changed(lambda logits, images: logits.astype(np.float64)), IMAGES, PROCESSOR_FP32)


def test_threads() -> None:
    """A network that gives a second thread other answers is found."""
    main = threading.current_thread()
    assert network.threads(Changed(), IMAGES).detail.startswith("two threads")
    wrong = Changed(lambda logits, images: logits if threading.current_thread() is main else logits + 1)
    with pytest.raises(WrongResultError, match="60 of 60 batches"):
        network.threads(wrong, IMAGES)


def test_graphs() -> None:
    """A captured batch that computes something else is found."""
    assert network.graphs(Changed(), Changed(), IMAGES).detail.startswith("on and off")
    with pytest.raises(WrongResultError, match="a batch of 5"):
        network.graphs(Changed(lambda logits, images: logits + (len(images) == 5)), Changed(), IMAGES)


def test_frames() -> None:
    """Frames with other logits are found; a backend that cannot preprocess them is not here, for the reason that it logs."""
    artifact, _ = read_golden()
    assert "6 sizes" in network.on_gpu_frames(Changed(), artifact).detail  # type: ignore[arg-type]
    wrong, calls = Changed(), itertools.count()
    wrong._change = lambda logits, images: logits + next(calls) % 2
    with pytest.raises(WrongResultError, match="other logits"):
        network.on_gpu_frames(wrong, artifact)  # type: ignore[arg-type]
    wrong.resizes = False
    with pytest.raises(NotHereError, match="on the CPU"):
        network.on_gpu_frames(wrong, artifact)  # type: ignore[arg-type]


def test_the_split_of_a_call() -> None:
    """Parts that take no time, and parts that take longer than the call."""
    backend = Changed()
    figures = network.split(backend, IMAGES[:8]).figures
    assert (figures["h2d_ms"], figures["compute_ms"]) == (0.001, 0.01)
    for stages in ({"compute": 0.0}, {"compute": 1e6}, {}):
        backend.stages = stages
        with pytest.raises(WrongResultError, match="clock is wrong"):
            network.split(backend, IMAGES[:8])


def _resident(size: int) -> mmap.mmap:
    """New pages of memory: what malloc gives may be memory that the process already holds."""
    block = mmap.mmap(-1, size)
    block.write(b"\1" * size)
    return block


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps its images, or opens a file per call, is found; what takes memory once is not."""
    held: list[Any] = []
    monkeypatch.setattr(network, "_WARM_UP", 20)
    assert "40 inferences: memory" in network.memory(Changed(), IMAGES, 40).detail
    once = Changed(lambda logits, images: logits if held else held.append(np.ones(64 << 20, np.uint8)) or logits)
    network.memory(once, IMAGES, 40)
    with pytest.raises(WrongResultError, match="memory grew in both halves"):
        network.memory(Changed(lambda logits, images: held.append(_resident(4 << 20)) or logits), IMAGES, 40)
    with pytest.raises(WrongResultError, match="files grew"):
        network.memory(Changed(lambda logits, images: held.append(open("/dev/null")) or logits), IMAGES, 20)  # noqa: SIM115, PTH123
    for file in held[1:]:
        if hasattr(file, "close"):
            file.close()


def test_speed_is_judged_where_it_is_asked_for() -> None:
    """INT8 that is slower than FP16 is told for a small network, and fails for a large one."""
    slow = {"fp32": 3.0, "fp16": 1.0, "int8": 2.0}
    assert compare_speed(slow, judge=False).detail == "batch 8: FP32 3.00 ms, FP16 1.00 ms, INT8 2.00 ms (not judged)"  # type: ignore[arg-type]
    with pytest.raises(WrongResultError, match="each precision should be faster"):
        compare_speed(slow, judge=True)  # type: ignore[arg-type]
    assert "judged" not in compare_speed({"fp32": 3.0, "fp16": 2.0, "int8": 1.0}, judge=True).detail
