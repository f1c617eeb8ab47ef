"""A few kills of a few writers; `make kill` does all of them many times."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_killed_writer_leaves_nothing_half_done() -> None:
    """What it wrote is whole or absent, and the next command removes what it left."""
    script = Path(__file__).parent / "killruns.py"
    command = [sys.executable, str(script), "--kills", "4", "--writers", "results,timings"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 faults" in done.stdout.splitlines()[-1]
