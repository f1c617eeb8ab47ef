"""All checks of one backend, in the order in which they depend on each other. Runs in a child process of its own.

A backend that is in the table is checked as far as it goes: one that compiles here and cannot run here passes the first half, and
the reason why it cannot run is told once for each precision.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, get_args, runtime_checkable

import numpy as np

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.artifact.precision import with_precision
from edge_resnet.core.errors import BackendError, ConfigError
from edge_resnet.core.packages import installed_version
from edge_resnet.core.records import Precision
from edge_resnet.deployment.doctor.check import is_importable
from edge_resnet.deployment.selftest import engines, network
from edge_resnet.deployment.selftest.check import Desk, Finding, NotHereError, warnings_heard
from edge_resnet.deployment.selftest.compare import LIMITS, PROCESSOR_FP32, Limit, off
from edge_resnet.deployment.selftest.golden import PROFILE, Golden, read_golden, smooth_images
from edge_resnet.deployment.selftest.speed import bench_lines, compare_speed
from edge_resnet.deployment.selftest.task import Task
from edge_resnet.measurement.bench.stages import StageTimingBackend
from edge_resnet.runtime.backend import (
    Backend,
    Logits,
    PipelinedBackend,
    Variant,
    backend_info,
    load_backend,
    open_backend,
)

__all__ = ["BackendChecks"]

#: Runs everywhere and simulates TensorRT's INT8: the other backends are compared with it.
REFERENCE = "onnxruntime"
#: Images for a network that comes without.
_IMAGES = 32
#: How far apart two computations of one INT8 graph may be, as a multiple of what quantization changes. The images that ship are
#: changed little (2 to 3 % of the spread); rounding errors that have nothing in common differ by the square root of two of that.
_ROOM = 2.0


@runtime_checkable
class GraphSwitch(Protocol):
    """A backend's class that can be told to launch no CUDA graphs."""

    def open_without_graphs(self, artifact: Artifact, variant: Variant) -> Backend:
        """As ``open``: every kernel is launched by itself."""
        ...


class BackendChecks:
    """The checks of ``task.backend``, told at ``desk``."""

    def __init__(self, task: Task, desk: Desk) -> None:
        self._task, self._desk = task, desk
        self._name, self._info = task.backend, backend_info(task.backend)
        self._folder, self._answers = Path(task.folder), Path(task.answers)
        self._golden: Golden | None = None
        if task.golden:
            self._artifact, self._golden = read_golden(Path(task.artifact))
        else:
            self._artifact = open_artifact(Path(task.artifact))
        size = self._artifact.manifest.model.input_size
        self._images = smooth_images(_IMAGES, size) if self._golden is None else self._golden.images
        #: Why the backend cannot run on this machine, and why it cannot even compile; else empty.
        self._not_run = self._refusal()
        self._not_compiled = "" if self._info.ahead else self._not_run
        self._milliseconds: dict[Precision, float] = {}
        self._compiled: list[Artifact] = []
        self._ran: list[tuple[Precision, Artifact]] = []

    def run(self) -> None:
        """Make them all."""
        if not self._desk.check("installed", self._installed):
            return
        for precision in get_args(Precision):
            if precision == "int8" and self._artifact.manifest.precision != "int8":
                self._desk.absent("int8", "the artifact has no ranges")
            elif precision == "fp16" and self._info.fp16_as_fp32:
                self._desk.absent("fp16", f"{self._name} computes FP16 artifacts in FP32")
            else:
                self._precision(precision)
        if self._compiled:
            self._of_engines(self._compiled[-1])
        if self._ran:
            self._of_one(self._ran[-1][1])
            judge = self._golden is None and self._info.processor == "GPU"
            self._desk.check("speed", partial(compare_speed, self._milliseconds, judge=judge))
            if self._task.bench_s:
                bench_lines(self._desk, self._name, self._ran, self._task.bench_s)

    def _precision(self, precision: Precision) -> None:
        """Compile, answers, batches, and what only a GPU has."""
        desk, name = self._desk, self._name
        folder = self._folder / precision

        def compiled() -> Finding:
            made = self._made(precision, folder)
            if self._not_compiled:
                raise NotHereError(self._not_compiled)
            try:
                return engines.compiled(made, name)
            except ConfigError as error:  # what the backend does not offer
                raise NotHereError(error.message) from error

        if not desk.check(f"{precision} compile", compiled) and not self._has_engine(folder):
            return
        artifact = open_artifact(folder)
        self._compiled.append(artifact)
        if self._info.form.kind == "plan":
            desk.check(f"{precision} layers", partial(self._layers, artifact, precision))
        limit = self._limit(precision)
        with ExitStack() as stack:
            opened: list[Backend] = []

            def answers() -> Finding:
                with warnings_heard() as heard:
                    opened.append(stack.enter_context(self._opened(artifact)))
                    found = self._judged(opened[0].infer(self._images), precision, artifact)
                notes = [text.replace(str(folder), "it") for text in heard]
                return replace(found, detail="; ".join((found.detail, *notes)))

            desk.check(f"{precision} answers", answers)
            if not opened:
                return
            desk.check(f"{precision} batches", partial(network.batches, opened[0], self._images[:24], limit))
            self._of_gpu(opened[0], artifact, precision)
            self._milliseconds[precision] = network.time_batch(opened[0], self._images)
            self._ran.append((precision, artifact))

    def _of_gpu(self, opened: Backend, artifact: Artifact, precision: Precision) -> None:
        backend_class = load_backend(self._name)
        if isinstance(backend_class, GraphSwitch):

            def graphs() -> Finding:
                with backend_class.open_without_graphs(artifact, "native") as plain:
                    return network.graphs(opened, plain, self._images)

            self._desk.check(f"{precision} graphs", graphs)
        if isinstance(opened, StageTimingBackend):
            self._desk.check(f"{precision} split", partial(network.split, opened, self._images[: network.BATCH]))

    def _of_one(self, artifact: Artifact) -> None:
        """What does not depend on the precision, with the last that runs, which is INT8 where it can be."""
        desk = self._desk
        with self._opened(artifact) as opened:
            desk.check("threads", partial(network.threads, opened, self._images))
            if isinstance(opened, PipelinedBackend):
                desk.check("frames", partial(network.on_gpu_frames, opened, artifact))
            desk.check("memory", partial(network.memory, opened, self._images, self._task.calls))
        if self._has_form(artifact):
            desk.check("engine refused", partial(engines.refused, artifact, self._name, self._folder / "refused"))

    def _of_engines(self, artifact: Artifact) -> None:
        """That engines are kept, also by a backend that compiles here and cannot run."""
        if self._has_form(artifact):
            self._desk.check("engine kept", partial(engines.kept, artifact, self._name))
        else:
            self._desk.absent("engine kept", f"{artifact.manifest.precision} is run without an engine")

    def _has_form(self, artifact: Artifact) -> bool:
        return load_backend(self._name).engine_request(artifact, "native") is not None

    def _refusal(self) -> str:
        try:
            self._info.refuse_machine()
        except BackendError as error:
            return error.message
        return ""

    def _installed(self) -> Finding:
        """Import the library. Raises NotHereError where it is not installed, or where this machine may be why it cannot be."""
        for requirement in self._info.requirements:
            if not requirement.is_installed():
                raise NotHereError(f"{requirement.package} is not installed: {requirement.remedy}")
        try:
            load_backend(self._name)
        except ImportError:
            if self._not_compiled:
                raise NotHereError(self._not_compiled) from None
            raise
        packages = {
            name: found
            for requirement in self._info.requirements
            for name in sorted(requirement.packages)
            if (found := _version(name, requirement.module))
        }
        return Finding(", ".join(f"{name} {found}" for name, found in packages.items()), packages)

    def _opened(self, artifact: Artifact) -> Backend:
        if self._not_run:
            raise NotHereError(self._not_run)
        return open_backend(artifact, self._name)

    def _made(self, precision: Precision, folder: Path) -> Artifact:
        """A copy of the artifact in that precision; where onnx is not installed, with the engines that ship."""
        made = with_precision(self._artifact, precision, PROFILE, folder)
        if precision == "int8" and not is_importable("onnx") and (self._artifact.folder / "engines").is_dir():
            shutil.copytree(self._artifact.folder / "engines", folder / "engines")
        return made

    def _has_engine(self, folder: Path) -> bool:
        """Whether there is an engine all the same: one that ships, where onnx is not installed."""
        return not is_importable("onnx") and (folder / "engines").is_dir()

    def _layers(self, artifact: Artifact, precision: Precision) -> Finding:
        return engines.layers(artifact, self._name, precision, judge=self._golden is None)

    def _limit(self, precision: Precision) -> Limit:
        """How far answers may be apart; the answers to images whose classes nobody knows may differ for some."""
        limit = PROCESSOR_FP32 if precision == "fp32" and self._info.processor == "CPU" else LIMITS[precision]
        return Limit(1.0, limit.off) if self._golden is not None else limit

    def _judged(self, found: Logits, precision: Precision, artifact: Artifact) -> Finding:
        """Compare logits with those that ship and with ONNX Runtime's, of which this backend leaves its own if it is that."""
        form = "fp32" if precision != "int8" else self._int8_form(artifact)
        references: dict[str, Logits] = {}
        if self._golden is not None:
            references["stored ones"] = self._golden.logits[form]
        if self._name == REFERENCE:
            self._leave_answers(found, precision, artifact)
        elif (path := self._answers / f"{form}.npy").is_file():
            references["ones of ONNX Runtime"] = np.load(path, allow_pickle=False)
        limit = self._limit(precision)
        if precision == "int8" and references and (fp32 := self._fp32()) is not None:
            room = 1 if self._golden is None else _ROOM
            limit = Limit(limit.agreement, room * off(next(iter(references.values())), fp32))
        if not references:
            if self._name == REFERENCE:
                return Finding("are what the other backends are compared with")
            raise NotHereError(f"ONNX Runtime left no answers of {form} to compare with")
        return network.judged(found, references, limit)

    def _fp32(self) -> Logits | None:
        """The FP32 logits that quantization is measured from, None if there are none."""
        if self._golden is not None:
            return self._golden.logits["fp32"]
        path = self._answers / "fp32.npy"
        found: Logits | None = np.load(path, allow_pickle=False) if path.is_file() else None
        return found

    def _int8_form(self, artifact: Artifact) -> str:
        request = load_backend(self._name).engine_request(artifact, "native")
        return "tensorrt" if request is None or self._info.form.kind == "plan" else request.form

    def _leave_answers(self, found: Logits, precision: Precision, artifact: Artifact) -> None:
        """Keep the logits for the other backends, and those of TensorRT's INT8 where it can be simulated."""
        if precision != "int8":
            np.save(self._answers / f"{precision}.npy", found)
            return
        np.save(self._answers / f"{self._int8_form(artifact)}.npy", found)
        if is_importable("onnx"):
            engines.compiled(artifact, self._name, "simulated")
            with open_backend(artifact, self._name, "simulated") as simulated:
                logits = simulated.infer(self._images)
            np.save(self._answers / "tensorrt.npy", logits)
            if self._golden is not None:
                stored = self._golden.logits["tensorrt"]
                limit = Limit(1.0, _ROOM * off(stored, self._golden.logits["fp32"]))
                network.judged(logits, {"stored ones of TensorRT's INT8": stored}, limit)


def _version(package: str, module: str) -> str:
    """The version of a package that is installed, by pip or, as on JetPack, without its knowledge; else empty."""
    return installed_version(package) or (str(getattr(sys.modules.get(module), "__version__", "")) if package == module else "")
