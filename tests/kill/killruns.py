"""Kills writers with SIGKILL, at random times and at random steps, and looks at what they left. `make kill` runs all of them.

    python tests/kill/killruns.py [--kills 20] [--writers build,train] [--seed 0]

Each command runs in a forked child. Every other kill comes from outside after a random share of the command's time; the others
come from within, at a random one of the command's calls that touch the disk: so the moments between two renames are hit too.
After each kill everything must be whole or absent, and what existed before must still exist; after the next command, which is
not killed, there must be no litter.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from killwriters import WRITERS, Writer

#: The calls of Python that change a folder (docs.python.org, "Audit events table").
_STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree", "os.scandir", "ctypes.dlsym")


def main() -> int:
    """Kill what the arguments name; returns 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--writers", default=",".join(WRITERS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started, wrong, kills = time.monotonic(), 0, 0
    chosen = arguments.writers.split(",")
    for name in chosen:
        for module in WRITERS[name].modules:  # once, so that a child spends its time and its steps on writing
            importlib.import_module(module)
        with tempfile.TemporaryDirectory(prefix=f"kill-{name}-") as folder:
            found, done = kill_writer(WRITERS[name], Path(folder), arguments.kills, random.Random(f"{arguments.seed} {name}"))
        kills += done
        wrong += len(found)
        print(f"{name:12} {done} kills, {len(found)} faults", *found, sep="\n  ", flush=True)
    print(f"{kills} kills in {time.monotonic() - started:.0f} s, {wrong} faults")
    return 1 if wrong else 0


def kill_writer(writer: Writer, work: Path, kills: int, chance: random.Random) -> tuple[list[str], int]:
    """Kill a writer so many times. Returns the faults, and how many children were killed before they had ended."""
    source, folder = work / "source", work / "folder"
    source.mkdir()
    assert _run(lambda: writer.prepare(source)) == 0, "it cannot be prepared"
    folder.mkdir()
    assert _run(lambda: writer.begin(folder, source)) == 0, "it cannot begin"
    began = time.monotonic()
    steps = work / "steps"
    assert _run(lambda: writer.run(folder, source), count=steps) == 0, "it fails without a kill"
    seconds, total = time.monotonic() - began, int(steps.read_text())
    faults, done = [], 0
    for number in range(kills):
        if number % 4 < 2:  # half of the commands begin in an empty folder
            shutil.rmtree(folder)
            folder.mkdir()
        assert _run(lambda: writer.begin(folder, source)) == 0, "it cannot begin"
        kept = [path for name in writer.kept for path in folder.glob(name)]
        after_s, at = (chance.uniform(0, seconds), None) if number % 2 else (None, chance.randrange(1, total + 1))
        code = _run(lambda: writer.run(folder, source), after_s=after_s, at=at)
        done += code == -signal.SIGKILL
        where = f"kill {number} ({f'after {after_s:.3f} s' if at is None else f'at step {at} of {total}'})"
        if code not in (0, -signal.SIGKILL):
            faults.append(f"{where}: it ended with {code}")
        faults += [f"{where}: {path.name} is gone" for path in kept if not path.exists()]
        if _run(lambda: writer.check(folder)) != 0:
            faults.append(f"{where}: what it left is not whole")
        if _run(lambda: writer.run(folder, source)) != 0 or _run(lambda: writer.check(folder)) != 0:
            faults.append(f"{where}: the next command fails")
        faults += [f"{where}: {path.relative_to(folder)} is litter" for path in folder.rglob("*") if path.name.startswith(".")]
    return faults, done


def _run(command: Callable[[], object], *, after_s: float | None = None, at: int | None = None, count: Path | None = None) -> int:
    """Run a command in a child, which is killed after that time or at that step; ``count``: where the steps are written.

    Returns its exit code, negative for a signal.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            logging.disable(logging.CRITICAL)
            steps = _watch(at)
            command()
            if count is not None:
                count.write_text(str(steps[0]))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _watch(at: int | None) -> list[int]:
    """Count the steps from here on, and end this process at one of them."""
    steps = [0]

    def hook(event: str, _: tuple[object, ...]) -> None:
        if event in _STEPS:
            steps[0] += 1
            if steps[0] == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return steps


if __name__ == "__main__":
    sys.exit(main())
