"""Runs a sweep: every cell is made, measured and kept, or becomes a hole with its reason while the rest goes on.

Knows the order of things; how a cell is made, measured or shown is its neighbours' to know.
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
from edge_resnet.core.errors import ConfigError, EdgeResnetError
from edge_resnet.core.packages import EXTRAS, extra_command
from edge_resnet.core.records import Progress
from edge_resnet.measurement.report.record import MissingResult, Report
from edge_resnet.pipelines.engines import prepare_engine
from edge_resnet.runtime.backend import BACKENDS, resolve_backend
from edge_resnet.studies.sweep.assemble import Found, Measured, assemble
from edge_resnet.studies.sweep.cells import Cells
from edge_resnet.studies.sweep.make import Workshop
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

__all__ = ["Told", "sweep"]

#: Told after each cell: what it was, how it went, the seconds that it took and those that are left.
Told: TypeAlias = Callable[[str, str, float, float], None]


def sweep(
    request: SweepRequest, output: Path, cells: Cells, *, progress: Progress | None = None, told: Told | None = None
) -> Report:
    """Measure all that is asked for; cells of an earlier run are used where nothing that they depend on has changed.

    Artifacts that are built go to ``output``/artifacts. Ctrl-C ends the measuring: what there is becomes a report that says so;
    where there is nothing yet, KeyboardInterrupt goes on.
    Raises DataError where images or result files cannot be used at all, ArtifactError where a given artifact is not sound, and
    ConfigError for a backend that does not exist.
    """
    backends = _resolved(request.backends)
    targets = plan_targets(request, [open_artifact(folder) for folder in request.artifacts])
    loaded = from_files(request.results)
    images = open_split(request, targets)
    workshop = Workshop(request, output / "artifacts", cells, images, progress)
    session = _Session(request, cells, images, workshop, progress, told)
    session.run([(target, backend) for target in targets for backend in backends])
    if session.interrupted and not loaded.rows and not any(one.latencies or one.answers for one in session.measured):
        raise KeyboardInterrupt
    found = Found(tuple(session.measured), loaded, tuple(session.holes), session.interrupted)
    return assemble(request, images, workshop.evaluation_digest, found)


def _resolved(names: tuple[str, ...]) -> list[str]:
    """The table's names, each once."""
    found = [resolve_backend(name) for name in names]
    for name in found:
        if name not in BACKENDS:
            raise ConfigError(f"no backend is named {name}", hint=f"choose one of {', '.join(['auto', *BACKENDS])}")
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class _Cell:
    """One to measure: ``kind`` for how long it takes, ``name`` for people and the file, ``key``: what it depends on."""

    kind: str
    name: str
    key: Mapping[str, Any]
    make: Callable[[], Any]


@dataclass
class _Session:
    """A sweep on its way: what is found is kept until all of it is there."""

    request: SweepRequest
    cells: Cells
    images: ImageSplit
    workshop: Workshop
    progress: Progress | None
    told: Told | None
    measured: list[Measured] = field(default_factory=list)
    holes: list[MissingResult] = field(default_factory=list)
    interrupted: bool = False
    _pace: Pace = field(default_factory=Pace)

    def run(self, work: Sequence[tuple[Target, str]]) -> None:
        """All of it, up to Ctrl-C."""
        several = len({backend for _, backend in work}) > 1
        for target, _ in work:
            for kind in self._kinds(target):
                self._pace.expected[kind] = self._pace.expected.get(kind, 0.0) + self._expected(kind, target)
        names = [f"{target.label} {backend}" if several else target.label for target, backend in work]
        for place, (target, backend) in enumerate(work):
            found = Measured(names[place], target, backend)
            self.measured.append(found)
            try:
                self._measure(found)
            except KeyboardInterrupt:
                self.interrupted = True
                rest = ", ".join([f"the rest of {found.label}", *names[place + 1 :]])
                self.holes.append(MissingResult(rest, "interrupted before it was measured", "the same command goes on there"))
                return
            except EdgeResnetError as error:
                self.holes.append(MissingResult(found.label, error.message, error.hint))
                self._tell(found.label, f"not measured: {error.message}", 0.0)
            except ModuleNotFoundError as error:
                extra = EXTRAS.get((error.name or "").partition(".")[0])
                if extra is None:
                    raise
                self.holes.append(MissingResult(found.label, f"{error.name} is not installed", extra_command(extra)))

    def _measure(self, found: Measured) -> None:
        """One artifact on one backend; a hole in it leaves the rest. Raises what making it or its engine raises."""
        artifact = self._artifact(found)
        refuse_fp16(artifact, found.backend)
        prepare_engine(artifact, found.backend, progress=self.progress)
        found.artifact = artifact
        for cell in self._wanted(artifact, found):
            try:
                content, how, seconds = self._kept(cell, found)
            except EdgeResnetError as error:
                self.holes.append(MissingResult(cell.name, error.message, error.hint))
                self._pace.end(cell.kind, self._expected(cell.kind, found.target), measured=False)
                self._tell(cell.name, f"not measured: {error.message}", 0.0)
                continue
            if cell.kind == "answers":
                found.answers = read_answers(content)
            else:
                found.latencies.append(read_latency(content))
            self._tell(cell.name, how, seconds)
            if found.latencies and found.latencies[-1].interrupted:
                raise KeyboardInterrupt

    def _wanted(self, artifact: Artifact, found: Measured) -> Iterator[_Cell]:
        images, backend, seconds = self.images.evaluation, found.backend, self.request.seconds
        if images is not None:
            key = answers_key(artifact, backend, self.workshop.evaluation_digest)
            classify = partial(measure_answers, artifact, images, backend, progress=self.progress)
            yield _Cell("answers", f"{found.label}, accuracy", key, classify)
        for batch in self.request.batches:
            key = latency_key(artifact, backend, batch, seconds)
            make = partial(measure_latency, artifact, backend, batch, seconds, progress=self.progress)
            yield _Cell("latency", f"{found.label}, batch {batch}", key, make)

    def _artifact(self, found: Measured) -> Artifact:
        """The one that was given, was made before, or is made now."""
        self._pace.begin()
        with _heard(found.notes):
            artifact, fresh = self.workshop.artifact(found.target)
        if found.target.network is not None:
            seconds = self._pace.end("build", self._expected("build", found.target), measured=fresh)
            self._tell(f"{found.label}, build", "made" if fresh else "kept", seconds)
        return artifact

    def _kept(self, cell: _Cell, found: Measured) -> tuple[Any, str, float]:
        """The cell's result, as it lies there, or measured now; which of the two, and the seconds."""
        content, expected = self.cells.get(cell.name, cell.key), self._expected(cell.kind, found.target)
        self._pace.begin()
        fresh = content is None
        if content is None:
            notes: list[str] = []
            with _heard(notes):
                result = cell.make()
            content = {"result": result, "notes": notes}
            if not (cell.kind == "latency" and result["interrupted"]):
                self.cells.put(cell.name, cell.key, content)
        found.notes.extend(content["notes"])
        seconds = self._pace.end(cell.kind, expected, measured=fresh)
        return content["result"], "measured" if fresh else "kept", seconds

    def _kinds(self, target: Target) -> list[str]:
        kinds = ["build"] if target.network is not None else []
        kinds += ["answers"] if self.images.evaluation is not None else []
        return kinds + ["latency"] * len(self.request.batches)

    def _expected(self, kind: str, target: Target) -> float:
        images = 0 if self.images.evaluation is None else len(self.images.evaluation)
        return cell_seconds(kind, target, self.request, images)

    def _tell(self, name: str, how: str, seconds: float) -> None:
        if self.told is not None:
            self.told(name, how, seconds, self._pace.left_s)


@contextmanager
def _heard(notes: list[str]) -> Iterator[None]:
    """What this package warns of meanwhile goes into the report too."""
    handler = _Notes(notes)
    logger = logging.getLogger("edge_resnet")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Notes(logging.Handler):
    """Appends each warning to a list, once."""

    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        """One warning."""
        if (text := record.getMessage()) not in self._notes:
            self._notes.append(text)
