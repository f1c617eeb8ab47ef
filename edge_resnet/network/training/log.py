"""The files that a training writes beside its weights: log.csv, TensorBoard events, result.json. Does not know how it trains."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from edge_resnet.core import __version__
from edge_resnet.core.errors import MissingDependencyError
from edge_resnet.core.files import replace_files
from edge_resnet.network.training.options import EpochRecord, TrainOptions, TrainResult

__all__ = ["LOG", "RESULT", "Events", "describe", "read_log", "write_log", "write_result"]

LOG = "log.csv"
RESULT = "result.json"


def write_log(folder: Path, records: Sequence[EpochRecord]) -> None:
    """Write ``log.csv``: a line per epoch with the fields of EpochRecord; the test's cells are empty if there was none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochRecord)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) for record in records)
    replace_files({folder / LOG: lambda path: path.write_text(text.getvalue(), encoding="utf-8")})


def read_log(folder: Path) -> tuple[EpochRecord, ...]:
    """Read what ``write_log`` wrote."""
    with (folder / LOG).open(newline="", encoding="utf-8") as file:
        return tuple(_record(row) for row in csv.DictReader(file))


def write_result(folder: Path, result: TrainResult, options: TrainOptions, extra: Mapping[str, Any]) -> None:
    """Write ``result.json``: the result, every option, the machine, and ``extra``."""
    record = {**describe(result), "options": asdict(options), **extra, "machine": _machine()}
    text = json.dumps(record, indent=2) + "\n"
    replace_files({folder / RESULT: lambda path: path.write_text(text, encoding="utf-8")})


def describe(result: TrainResult) -> dict[str, Any]:
    """The result for JSON: the last epoch, the best epoch, and how the training ended."""
    last, best = result.records[-1], result.best
    return {
        "epochs": len(result.records),
        "steps": last.step,
        "seconds": round(result.seconds, 3),
        "train_loss": last.train_loss,
        "train_error": last.train_error,
        "test_loss": last.test_loss,
        "test_error": last.test_error,
        "best_epoch": best.epoch,
        "best_test_error": best.test_error,
        "stopped": result.stopped,
    }


class Events(AbstractContextManager["Events"]):
    """TensorBoard's event file in ``folder``; does nothing unless ``wanted``. ``purge``: the first step to write again."""

    def __init__(self, folder: Path, *, wanted: bool, purge: int = 0) -> None:
        self._writer: Any = None
        if wanted:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                hint = "pip install 'edge-resnet[train]', or leave out --tensorboard"
                raise MissingDependencyError("tensorboard is not installed", hint=hint) from error
            self._writer = SummaryWriter(folder, purge_step=purge)

    def add(self, record: EpochRecord) -> None:
        """Write an epoch's values at its step."""
        if self._writer is not None:
            for name, value in asdict(record).items():
                if value is not None and name not in ("epoch", "step"):
                    self._writer.add_scalar(name.replace("_", "/", 1), value, record.step)
            self._writer.flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        if self._writer is not None:
            self._writer.close()


def _record(row: Mapping[str, str]) -> EpochRecord:
    values: dict[str, Any] = {name: float(cell) if cell else None for name, cell in row.items()}
    return EpochRecord(**values | {"epoch": int(row["epoch"]), "step": int(row["step"])})


def _machine() -> dict[str, Any]:
    """Versions and hardware that may explain a result."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "edge_resnet": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "gpu": gpu,
    }
