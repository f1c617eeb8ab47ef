"""A network that is ready to classify images: what ``edge_resnet.load`` gives.

Knows how an image becomes a classification; does not know about cameras, accuracy or how the network was made. Loads the one
inference library of its backend, never torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeAlias, get_args

import numpy as np
from PIL import Image

from edge_resnet.artifact.folder import Artifact
from edge_resnet.core.errors import BackendError, ConfigError, DataError
from edge_resnet.core.records import Progress
from edge_resnet.images.imageset import ImageSet
from edge_resnet.images.preprocess import ImageArray, check_image, preprocess, preprocess_bgr, preprocess_file
from edge_resnet.pipelines.engines import open_with_engine
from edge_resnet.runtime.answers import AnswerRule, answer_rule
from edge_resnet.runtime.backend import Backend, Images, Logits, Variant, load_backend, resolve_backend
from edge_resnet.runtime.postprocess import ClassScore, check_top, top_k

__all__ = ["Classification", "Color", "ImageInput", "Model", "open_model"]

#: The order of an array's channels: ``rgb`` (Pillow, torchvision) or ``bgr`` (OpenCV).
Color: TypeAlias = Literal["rgb", "bgr"]
#: A path, a Pillow image, or an array (H, W, 3) uint8.
ImageInput: TypeAlias = "str | os.PathLike[str] | Image.Image | ImageArray"

#: Images are decoded by as many threads: decoding releases the interpreter lock, and more would take cores from the network.
_THREADS = 4


@dataclass(frozen=True)
class Classification:
    """What the network says of one image. ``source``: its path, or its place such as ``image[3]``. ``top``: the best first.

    ``answer``: the best class, or ``unknown`` with ``class_index`` -1 if its probability is below the minimum.
    """

    source: str
    top: tuple[ClassScore, ...]
    answer: ClassScore


def open_model(
    path: Artifact | str | os.PathLike[str] | None = None,
    *,
    backend: str = "auto",
    variant: Variant = "native",
    min_confidence: float | None = None,
    progress: Progress | None = None,
) -> Model:
    """Open the artifact in the folder ``path``, or the newest under ``artifacts``; derive its engine first where there is none.

    ``path``: also an Artifact, such as ``build`` returns. ``backend``: ``auto``, ``tensorrt``, ``openvino`` or ``onnxruntime``.
    ``variant``: ``native``, ``simulated`` (TensorRT's INT8 computed on this machine) or ``reference`` (the FP32 graph).
    ``min_confidence``: below this probability the answer is ``unknown``, 0 for never; None is the artifact's threshold. Raises
    ConfigError for an unknown backend or variant, ArtifactError where the folder is no sound artifact, MissingDependencyError
    where the backend is not installed, and BackendError where the device fails.
    """
    if variant not in get_args(Variant):
        raise ConfigError(f"there is no variant {variant!r}", hint=f"choose one of {', '.join(get_args(Variant))}")
    name = resolve_backend(backend, variant)
    opener = load_backend(name)  # a missing backend is reported before gigabytes of files are checked
    folder = path.folder if isinstance(path, Artifact) else None if path is None else Path(path)
    artifact = open_with_engine(folder, name, variant, progress=progress)
    rule = answer_rule(artifact, name, variant, min_confidence)
    return Model(artifact, opener.open(artifact, variant), variant, rule)


class Model:
    """A network on a backend. A context manager; may be used from several threads.

    ``artifact``: the folder that it was opened from. ``backend``: the name of what runs it. ``variant``: which of the artifact's
    computations. ``rule``: how its logits become an answer.
    """

    def __init__(self, artifact: Artifact, network: Backend, variant: Variant = "native", rule: AnswerRule | None = None) -> None:
        self._network = network
        self._closed = False
        self.artifact = artifact
        self.variant: Variant = variant
        self.rule = rule or AnswerRule()

    @property
    def backend(self) -> str:
        """The backend's name, for example ``onnxruntime``."""
        return self._network.name

    @property
    def labels(self) -> tuple[str, ...]:
        """A label per class, in index order."""
        return self.artifact.labels

    @property
    def network(self) -> Backend:
        """The backend itself, for images that are preprocessed already. Raises BackendError where the model is closed."""
        if self._closed:
            raise BackendError(f"the model of {self.artifact.folder} is closed", hint="open it again with edge_resnet.load")
        return self._network

    def predict(self, image: ImageInput, *, top: int = 5, color: Color = "rgb") -> Classification:
        """Classify one image: a path, a Pillow image, or an array (H, W, 3) uint8 whose channels are in the order ``color``.

        The image is resized and cropped as the network was trained; ``color`` concerns arrays alone. Raises DataError for a file
        that is no image, ConfigError for an array of another shape or dtype and for ``top`` below 1, BackendError where the model
        is closed or the device fails.
        """
        network = self.network
        _check(top, color)
        logits = network.infer(self._prepare(image, color)[None])
        return self._classified(_source_of(image, 0), logits[0], top)

    def predict_many(
        self,
        images: ImageSet | Iterable[ImageInput],
        *,
        batch: int = 8,
        top: int = 5,
        color: Color = "rgb",
        skipped: list[str] | None = None,
    ) -> Iterator[Classification]:
        """Classify the images of an ImageSet or of any iterable, batch by batch, in their order.

        Nothing is read ahead of the current batch. A file that cannot be read raises DataError; where a list ``skipped`` is
        given, its name is appended to the list instead, and the iteration continues. Raises as ``predict`` does; wrong arguments
        and a closed model raise at the call, before the first image is taken.
        """
        self.network  # noqa: B018 - raises where the model is closed
        _check(top, color)
        if batch < 1:
            raise ConfigError(f"a batch holds at least one image, not {batch}", hint="batch=8 is a good start")
        if isinstance(images, str | os.PathLike):
            raise ConfigError(
                f"predict_many takes several images, not the path {images}", hint="give open_images(path), or a list"
            )
        return self._classifications(images, batch, top, color, skipped)

    def logits(self, images: ImageInput | Sequence[ImageInput], *, color: Color = "rgb") -> Logits:
        """The network's raw output (N, classes) float32 for one image (N = 1) or several, preprocessed as by ``predict``.

        An array (N, H, W, 3) uint8 counts as N images. Raises as ``predict`` does, and ConfigError where there is no image.
        """
        network = self.network
        _check(1, color)
        chosen: list[ImageInput]
        if (isinstance(images, np.ndarray) and images.ndim == 4) or (
            isinstance(images, Sequence) and not isinstance(images, str)
        ):
            chosen = [*images]
        else:
            chosen = [images]
        if not chosen:
            raise ConfigError("there is no image to classify", hint="give at least one")
        return network.infer(np.stack([self._prepare(image, color) for image in chosen]))

    def close(self) -> None:
        """Free the device's memory. May be called twice."""
        self._closed = True
        self._network.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def __repr__(self) -> str:
        manifest = self.artifact.manifest
        return f"<Model {manifest.model.name} {manifest.precision} on {self.backend}, {self.artifact.folder}>"

    def _classified(self, source: str, logits: Logits, top: int) -> Classification:
        best = top_k(self.rule.scaled(logits), self.labels, top)
        return Classification(source, best, self.rule.answer(best))

    def _classifications(
        self, images: ImageSet | Iterable[ImageInput], batch: int, top: int, color: Color, skipped: list[str] | None
    ) -> Iterator[Classification]:
        items = self._items(images, color)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="decode") as pool:
            while chunk := list(islice(items, batch)):
                network = self.network
                good = _readable(chunk, list(pool.map(_attempt, chunk)), skipped)
                if not good:
                    continue
                logits = network.infer(np.stack([image for _, image in good]))
                for (source, _), row in zip(good, logits, strict=True):
                    yield self._classified(source, row, top)

    def _items(self, images: ImageSet | Iterable[ImageInput], color: Color) -> Iterator[_Item]:
        if isinstance(images, ImageSet):
            spec = self.artifact.manifest.preprocess
            for index in range(len(images)):
                yield _Item(images.where(index), partial(images.source.prepared, index, spec))
        else:
            for index, image in enumerate(images):
                yield _Item(_source_of(image, index), partial(self._prepare, image, color))

    def _prepare(self, image: ImageInput, color: Color) -> ImageArray:
        """(crop, crop, 3) uint8 RGB."""
        spec = self.artifact.manifest.preprocess
        if isinstance(image, str | os.PathLike):
            return preprocess_file(Path(image), spec)
        if isinstance(image, Image.Image) and color == "bgr":
            raise ConfigError("a Pillow image knows its own channel order", hint="leave color out")
        if isinstance(image, Image.Image):
            return preprocess(image, spec)
        check_image(image)
        return preprocess_bgr(image, spec) if color == "bgr" else preprocess(image, spec)


@dataclass(frozen=True)
class _Item:
    """One image of many: its ``source``, and what reads and preprocesses it."""

    source: str
    prepare: Callable[[], ImageArray]


def _check(top: int, color: Color) -> None:
    check_top(top)
    if color not in get_args(Color):
        raise ConfigError(f"there is no channel order {color!r}", hint="color='rgb' for Pillow, color='bgr' for OpenCV")


def _attempt(item: _Item) -> ImageArray | DataError:
    try:
        return item.prepare()
    except DataError as error:
        return error


def _source_of(image: ImageInput, index: int) -> str:
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    name = getattr(image, "filename", "")  # a Pillow image that was opened from a file
    return str(name) if name else f"image[{index}]"


def _readable(
    chunk: Sequence[_Item], prepared: Sequence[ImageArray | DataError], skipped: list[str] | None
) -> list[tuple[str, Images]]:
    """The images that could be read, with their sources; the others go to ``skipped``, or the first of them is raised."""
    good: list[tuple[str, Images]] = []
    for item, image in zip(chunk, prepared, strict=True):
        if not isinstance(image, DataError):
            good.append((item.source, image))
        elif skipped is None:
            raise image
        else:
            skipped.append(item.source)
    return good
