"""Child processes of tests: none outlives its test."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """``subprocess.Popen`` as a context manager that kills the process where the block raises.

    ``Popen`` alone waits for its end, so that an assertion that fails is told after the time limit, as a hang.
    """
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
