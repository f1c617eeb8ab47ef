"""Runs a sweep: every cell is measured and stored, or becomes a missing result with its reason, and the sweep continues.

Does not know how artifacts are built, measured or reported.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from edge_resnet.artifact.folder import Artifact, open_artifact
from edge_resnet.core.errors import EdgeResnetError
from edge_resnet.core.packages import EXTRAS
from edge_resnet.core.records import Progress
from edge_resnet.measurement.report.record import MissingResult, Report
from edge_resnet.pipelines.engines import prepare_engine
from edge_resnet.runtime.backend import backend_info, resolve_backend
from edge_resnet.studies.sweep.assemble import Found, Measured, assemble
from edge_resnet.studies.sweep.cells import Cells
from edge_resnet.studies.sweep.make import ArtifactBuilder
from edge_resnet.studies.sweep.measure import (
    answers_key,
    latency_key,
    measure_answers,
    measure_latency,
    read_answers,
    read_latency,
    refuse_fp16,
)
from edge_resnet.studies.sweep.merge import from_files
from edge_resnet.studies.sweep.plan import Pace, SweepRequest, Target, cell_seconds, plan_targets
from edge_resnet.studies.sweep.selection import ImageSplit, open_split

__all__ = ["CellOutcome", "SweepObserver", "sweep"]


@dataclass(frozen=True)
class CellOutcome:
    """What happened to one cell. ``outcome``: made, measured, kept, or ``not measured`` with the reason.

    ``seconds``: how long the cell took. ``left_s``: estimated time for the remaining cells.
    """

    name: str
    outcome: str
    seconds: float
    left_s: float


#: Called after each cell.
SweepObserver: TypeAlias = Callable[[CellOutcome], None]


def sweep(
    request: SweepRequest,
    output: Path,
    cells: Cells,
    *,
    progress: Progress | None = None,
    observer: SweepObserver | None = None,
) -> Report:
    """Measure everything in the request. Cells of an earlier run are reused if nothing that they depend on has changed.

    Artifacts are built in ``output``/artifacts. ``observer`` is called after each cell. On Ctrl-C returns a report of the
    results so far that is marked as interrupted, or raises KeyboardInterrupt if there are none. Raises DataError if images or
    result files cannot be used, ArtifactError if a given artifact is damaged, ConfigError for an unknown backend.
    """
    backends = _resolved(request.backends)
    targets = plan_targets(request, [open_artifact(folder) for folder in request.artifacts])
    loaded = from_files(request.results)
    images = open_split(request, targets)
    builder = ArtifactBuilder(request, output / "artifacts", cells, images, progress)
    run = _SweepRun(request, cells, images, builder, progress, observer)
    run.measure_all([(target, backend) for target in targets for backend in backends])
    if run.interrupted and not loaded.rows and not any(one.latencies or one.answers for one in run.measured):
        raise KeyboardInterrupt
    found = Found(tuple(run.measured), loaded, tuple(run.missing), run.interrupted)
    return assemble(request, images, builder.evaluation_digest, found)


def _resolved(names: tuple[str, ...]) -> list[str]:
    """The backends' names, each once."""
    found = [resolve_backend(name) for name in names]
    for name in found:
        backend_info(name)  # raises ConfigError for an unknown name
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class _Cell:
    """A measurement. ``kind``: answers or latency. ``name``: shown, and the file's. ``key``: everything that it depends on."""

    kind: str
    name: str
    key: Mapping[str, Any]
    measure: Callable[[], Any]


@dataclass(frozen=True)
class _CellResult:
    """The content of a cell. ``fresh``: it was measured now, in ``seconds``."""

    content: Any
    fresh: bool
    seconds: float


@dataclass
class _SweepRun:
    """A sweep in progress, with its results so far."""

    request: SweepRequest
    cells: Cells
    images: ImageSplit
    builder: ArtifactBuilder
    progress: Progress | None
    observer: SweepObserver | None
    measured: list[Measured] = field(default_factory=list)
    missing: list[MissingResult] = field(default_factory=list)
    interrupted: bool = False
    _pace: Pace = field(default_factory=Pace)

    def measure_all(self, work: Sequence[tuple[Target, str]]) -> None:
        """Measure every target on its backend, up to Ctrl-C."""
        several = len({backend for _, backend in work}) > 1
        for target, _ in work:
            for kind in self._kinds(target):
                self._pace.expected[kind] = self._pace.expected.get(kind, 0.0) + self._expected(kind, target)
        names = [f"{target.label} {backend}" if several else target.label for target, backend in work]
        for index, (target, backend) in enumerate(work):
            found = Measured(names[index], target, backend)
            self.measured.append(found)
            try:
                self._measure(found)
            except KeyboardInterrupt:
                self.interrupted = True
                rest = ", ".join([f"the rest of {found.label}", *names[index + 1 :]])
                reason, remedy = "interrupted before it was measured", "run the same command again to continue"
                self.missing.append(MissingResult(rest, reason, remedy))
                return
            except EdgeResnetError as error:
                self.missing.append(MissingResult(found.label, error.message, error.hint))
                self._notify(found.label, f"not measured: {error.message}", 0.0)
            except ModuleNotFoundError as error:
                extra = EXTRAS.get((error.name or "").partition(".")[0])
                if extra is None:
                    raise
                self.missing.append(
                    MissingResult(found.label, f"{error.name} is not installed", f"pip install 'edge-resnet[{extra}]'")
                )

    def _measure(self, found: Measured) -> None:
        """Measure one artifact on one backend. A failed cell is a missing result; raises what building or compiling raises."""
        artifact = self._artifact(found)
        refuse_fp16(artifact, found.backend)
        prepare_engine(artifact, found.backend, progress=self.progress)
        found.artifact = artifact
        for cell in self._cells(artifact, found):
            try:
                result = self._reused_or_measured(cell, found)
            except EdgeResnetError as error:
                self.missing.append(MissingResult(cell.name, error.message, error.hint))
                self._pace.end(cell.kind, self._expected(cell.kind, found.target), measured=False)
                self._notify(cell.name, f"not measured: {error.message}", 0.0)
                continue
            if cell.kind == "answers":
                found.answers = read_answers(result.content)
            else:
                found.latencies.append(read_latency(result.content))
            self._notify(cell.name, "measured" if result.fresh else "kept", result.seconds)
            if found.latencies and found.latencies[-1].interrupted:
                raise KeyboardInterrupt

    def _cells(self, artifact: Artifact, found: Measured) -> Iterator[_Cell]:
        images, backend, seconds = self.images.evaluation, found.backend, self.request.seconds
        if images is not None:
            key = answers_key(artifact, backend, self.builder.evaluation_digest)
            classify = partial(measure_answers, artifact, images, backend, progress=self.progress)
            yield _Cell("answers", f"{found.label}, accuracy", key, classify)
        for batch in self.request.batches:
            key = latency_key(artifact, backend, batch, seconds)
            measure = partial(measure_latency, artifact, backend, batch, seconds, progress=self.progress)
            yield _Cell("latency", f"{found.label}, batch {batch}", key, measure)

    def _artifact(self, found: Measured) -> Artifact:
        """The artifact that was given, was built before, or is built now."""
        self._pace.start()
        with _recorded_warnings(found.notes):
            artifact, fresh = self.builder.artifact(found.target)
        if found.target.network is not None:
            seconds = self._pace.end("build", self._expected("build", found.target), measured=fresh)
            self._notify(f"{found.label}, build", "made" if fresh else "kept", seconds)
        return artifact

    def _reused_or_measured(self, cell: _Cell, found: Measured) -> _CellResult:
        """The cell's stored result, or a new measurement, which is stored with the warnings logged during it."""
        stored, expected = self.cells.get(cell.name, cell.key), self._expected(cell.kind, found.target)
        self._pace.start()
        fresh = stored is None
        if stored is None:
            notes: list[str] = []
            with _recorded_warnings(notes):
                content = cell.measure()
            stored = {"result": content, "notes": notes}
            if not (cell.kind == "latency" and content["interrupted"]):
                self.cells.put(cell.name, cell.key, stored)
        found.notes.extend(stored["notes"])
        return _CellResult(stored["result"], fresh, self._pace.end(cell.kind, expected, measured=fresh))

    def _kinds(self, target: Target) -> list[str]:
        kinds = ["build"] if target.network is not None else []
        kinds += ["answers"] if self.images.evaluation is not None else []
        return kinds + ["latency"] * len(self.request.batches)

    def _expected(self, kind: str, target: Target) -> float:
        images = 0 if self.images.evaluation is None else len(self.images.evaluation)
        return cell_seconds(kind, target, self.request, images)

    def _notify(self, name: str, outcome: str, seconds: float) -> None:
        if self.observer is not None:
            self.observer(CellOutcome(name, outcome, seconds, self._pace.left_s))


@contextmanager
def _recorded_warnings(notes: list[str]) -> Iterator[None]:
    """Add the warnings that this package logs in the meantime to ``notes``, for the report."""
    handler = _WarningRecorder(notes)
    logger = logging.getLogger("edge_resnet")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _WarningRecorder(logging.Handler):
    """Appends each distinct warning to a list."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        """Append the message unless the list has it already."""
        if (text := record.getMessage()) not in self._notes:
            self._notes.append(text)
