"""Builds the artifacts of a sweep: FP32 and FP16 from weights, INT8 from the FP32 graph. Loads torch and onnx when called.

Does not know what is measured.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_resnet.artifact.folder import Artifact, open_artifact, write_manifest
from edge_resnet.core.errors import ArtifactError, CalibrationError, EdgeResnetError, WeightsError
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import FAMILIES, BatchProfile, Precision, Progress, QuantRecipe
from edge_resnet.images.imageset import ImageSet
from edge_resnet.studies.sweep.cells import Cells
from edge_resnet.studies.sweep.plan import Network, SweepRequest, Target
from edge_resnet.studies.sweep.selection import ImageSplit

if TYPE_CHECKING:
    from edge_resnet.pipelines.selection import Selection

__all__ = ["ArtifactBuilder"]


@dataclass
class ArtifactBuilder:
    """Builds each artifact once, into ``folder``. An artifact that an earlier run built from the same inputs is reused."""

    request: SweepRequest
    folder: Path
    cells: Cells
    images: ImageSplit
    progress: Progress | None
    _made: dict[tuple[str, Precision], Artifact] = field(default_factory=dict)
    _failed: dict[tuple[str, Precision], EdgeResnetError] = field(default_factory=dict)
    _chosen: dict[str, Selection] = field(default_factory=dict)

    @cached_property
    def evaluation_digest(self) -> str:
        """Sha256 of the images that accuracy is measured on; empty if there are none."""
        return "" if self.images.evaluation is None else self.images.evaluation.digest()

    def artifact(self, target: Target) -> tuple[Artifact, bool]:
        """The target's artifact, and whether it was built just now. An error while building is raised on every call."""
        if target.given is not None or target.network is None:
            assert target.given is not None
            return target.given, False
        return self._artifact(target.network, target.precision)

    def _artifact(self, network: Network, precision: Precision) -> tuple[Artifact, bool]:
        which = (network.model.name, precision)
        if which in self._made:
            return self._made[which], False
        if which in self._failed:
            raise self._failed[which]
        try:
            made, fresh = self._reused_or_built(network, precision)
        except EdgeResnetError as error:
            self._failed[which] = error
            raise
        self._made[which] = made
        return made, fresh

    def _reused_or_built(self, network: Network, precision: Precision) -> tuple[Artifact, bool]:
        name = f"{network.model.name}-{precision}"
        output, key = self.folder / name, self._key(network, precision)
        built_before = self.cells.get(f"{name}, build", key)
        if built_before is not None:
            with suppress(ArtifactError):  # deleted or changed since: it is built again
                artifact = open_artifact(output)
                if artifact.source_digest() == built_before:
                    return artifact, False
        artifact = self._build(network, precision, output)
        self.cells.put(f"{name}, build", key, artifact.source_digest())
        return artifact, True

    def _selected(self, network: Network) -> Selection:
        """Weights and preprocessing of a network, once. Raises WeightsError where there are none."""
        name = network.model.name
        if name not in self._chosen:
            if network.weights is None:
                hint = "add a file with its depth in the name to --weights-dir"
                raise WeightsError(f"there are no weights for {name}", hint=hint)
            self._chosen[name] = _select(network, self.progress)
        return self._chosen[name]

    def _build(self, network: Network, precision: Precision, output: Path) -> Artifact:
        allow = self.request.allow_random
        if precision == "int8":
            source, _ = self._artifact(network, "fp32")
            sample = self.images.calibration
            return _make_int8(source, sample, self.request.recipe, output, allow_random=allow, progress=self.progress)
        batch = max(self.request.batches)
        return _make_float(self._selected(network), precision, batch, output, allow_random=allow, progress=self.progress)

    def _key(self, network: Network, precision: Precision) -> dict[str, Any]:
        """Everything that an artifact depends on."""
        chosen = self._selected(network)
        weights, path = chosen.weights, Path(chosen.weights)
        if weights not in ("default", "random"):
            weights = f"sha256:{sha256_of(path)}" if path.is_file() else weights
        key = {"model": asdict(chosen.model), "preprocess": asdict(chosen.preprocess), "weights": weights,
               "batch": max(self.request.batches), "edge-resnet": version("edge-resnet")}  # fmt: skip
        if precision == "int8":
            key |= {"recipe": asdict(self.request.recipe), "calibration": self._calibration_digest}
        return key

    @cached_property
    def _calibration_digest(self) -> str:
        return "" if self.images.calibration is None else self.images.calibration.digest()


def _select(network: Network, progress: Progress | None) -> Selection:
    """What ``build`` would take for the network; preprocessing that is not the family's is logged."""
    from edge_resnet.pipelines.selection import PreprocessChoice, Request, select, tell_preprocessing

    model, images = network.model, network.preprocess
    if images is None:
        usual = model.input_size == FAMILIES[model.family].input_size
        choice = PreprocessChoice(None if usual else model.input_size)
    else:
        choice = PreprocessChoice(images.crop, images.resize, images.interpolation, images.mean, images.std)
    request = Request(str(network.weights), name=model.name, shortcut=model.shortcut, classes=model.classes, images=choice)
    chosen = select(request, progress=progress)
    tell_preprocessing(chosen)
    return chosen


def _make_float(
    chosen: Selection,
    precision: Precision,
    batch: int,
    output: Path,
    *,
    allow_random: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """Build from weights into ``output``, replacing it. ``batch``: the maximum of its engines. Raises what ``build`` raises."""
    from edge_resnet.pipelines.build import BuildOptions, build

    if chosen.weights == "random" and not allow_random:
        raise WeightsError("a report on random weights is meaningless", hint="--allow-random makes one nevertheless")
    options = BuildOptions(
        model=chosen.model,
        preprocess=chosen.preprocess,
        precision=precision,
        weights=chosen.weights,
        output=output,
        labels=chosen.labels,
        batch=BatchProfile(1, batch, batch),
        backend="onnxruntime",  # derives no engine; each measured backend derives its own
        force=True,
        allow_random=allow_random,
        origin=chosen.origin,
    )
    return build(options, progress=progress)


def _make_int8(
    source: Artifact,
    sample: ImageSet | None,
    recipe: QuantRecipe,
    output: Path,
    *,
    allow_random: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """Quantize the FP32 graph of ``source`` with the calibration set ``sample`` into ``output``, replacing it.

    Raises CalibrationError without images, and what calibration raises.
    """
    from edge_resnet.images.calibration import prepare_calibration_images
    from edge_resnet.pipelines.requantize import staged_copy
    from edge_resnet.quantization.int8 import add_int8, with_int8

    if sample is None:
        raise CalibrationError(
            "INT8 needs images to calibrate on", hint="--calib-data or --data takes a folder, a CSV or an .npz"
        )
    with (
        staged_copy(source, output, force=True) as folder,
        prepare_calibration_images(sample, source.manifest.preprocess, allow_noise=allow_random, folder=folder) as images,
    ):
        made = add_int8(folder, images, replace(recipe, images=len(sample)), progress=progress)
        write_manifest(folder, with_int8(source.manifest, made, images.name))
    return open_artifact(output)
