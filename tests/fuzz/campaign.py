"""``python tests/fuzz/campaign.py --inputs 1000000``: feeds that many inputs to the gates, in a process per core.

Prints a line per gate: inputs, refusals, time, the slowest input and the growth of memory. A failing input is kept in --keep, and
``--gate NAME --seed N --inputs 1`` repeats it. Exit code 1 where an input raised anything but edge_resnet's errors or took more
than a second, or where memory grew by more than 256 MiB.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mutation import mutated, mutated_zip

from edge_resnet.core.errors import EdgeResnetError

#: What an input may take and memory may grow by.
MAX_S = 1.0
MAX_GROWTH_MIB = 256
#: An input that hangs in C code ends its process, with a traceback.
_HANGS_S = 120.0
GATES = (
    *("manifest", "calibration", "corrections", "engine record", "image", "csv", "npz", "labels", "recipe", "uri", "checkpoint"),
    *("mjpeg stream", "rtsp answer", "http request"),
)


@dataclass(frozen=True)
class Failure:
    """One input that a gate did not take as it should."""

    seed: int
    what: str
    data: bytes = field(repr=False)


@dataclass
class Tally:
    """What became of the inputs of one gate."""

    gate: str
    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    slowest_seed: int = -1
    growth_mib: float = 0.0
    failures: list[Failure] = field(default_factory=list)


def fuzz(feed: Callable[[bytes], object], inputs: Callable[[int], bytes], seeds: Sequence[int], tally: Tally) -> None:
    """Feed the inputs of all ``seeds``, and count what becomes of them. An input that took too long is tried once more."""
    before = _memory_mib()
    began = time.perf_counter()
    for seed in seeds:
        data = inputs(seed)
        took = _feed(feed, data, seed, tally)
        if took > MAX_S:
            took = min(took, _feed(feed, data, seed, tally))
            if took > MAX_S:
                tally.failures.append(Failure(seed, f"took {took:.1f} s", data))
        if took > tally.slowest_s:
            tally.slowest_s, tally.slowest_seed = took, seed
        tally.inputs += 1
    tally.seconds += time.perf_counter() - began
    tally.growth_mib = max(tally.growth_mib, _memory_mib() - before)


def _feed(feed: Callable[[bytes], object], data: bytes, seed: int, tally: Tally) -> float:
    start = time.perf_counter()
    try:
        feed(data)
    except EdgeResnetError:
        tally.refused += 1
    except Exception:
        tally.failures.append(Failure(seed, traceback.format_exc(limit=-4), data))
    return time.perf_counter() - start


def _memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _work(work: tuple[Path, str, range]) -> Tally:
    """One share of one gate's inputs, in a process of its own."""
    from gates import open_gates

    artifact, name, seeds = work
    logging.disable()
    warnings.simplefilter("ignore")
    tally = Tally(name)
    with tempfile.TemporaryDirectory() as folder, open_gates(artifact, Path(folder)) as gates:
        gate = gates[name]
        derive = mutated_zip if gate.zipped else mutated
        fuzz(gate.feed, lambda seed: gate.seeds[seed], range(len(gate.seeds)), Tally(name))  # what is loaded once is no growth
        memory = _memory_mib()
        for start in range(seeds.start, seeds.stop, 500):
            faulthandler.dump_traceback_later(_HANGS_S, exit=True)
            fuzz(gate.feed, lambda seed: derive(gate.seeds, gate.tokens, seed), seeds[start - seeds.start :][:500], tally)
        tally.growth_mib = _memory_mib() - memory
        faulthandler.cancel_dump_traceback_later()
    return tally


def main() -> int:
    """Run the campaign that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="over all gates together")
    parser.add_argument("--gate", action="append", choices=GATES, help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"), help="folder of failing inputs")
    parser.add_argument("--artifact", type=Path, help="an INT8 artifact; left out, a small one is built")
    options = parser.parse_args()
    names = options.gate or list(GATES)
    share = max(1, options.inputs // len(names))
    with tempfile.TemporaryDirectory() as folder:
        artifact = options.artifact or _built(Path(folder))
        work = [(artifact, name, range(options.seed, options.seed + share)) for name in names]
        print(f"{'gate':15} {'inputs':>8} {'refused':>8} {'seconds':>8} {'slowest':>9} {'growth':>8}")
        failed = False
        # A process per gate and no more: one gate's memory is not another's.
        with multiprocessing.get_context("spawn").Pool(maxtasksperchild=1) as pool:
            for tally in pool.imap(_work, work):
                failed |= _report(tally, options.keep)
    return int(failed)


def _report(tally: Tally, keep: Path) -> bool:
    counts = f"{tally.gate:15} {tally.inputs:8} {tally.refused:8} {tally.seconds:8.1f}"
    print(f"{counts} {tally.slowest_s * 1000:6.0f} ms {tally.growth_mib:4.0f} MiB", flush=True)
    kinds: dict[str, Failure] = {}
    for failure in tally.failures:
        kinds.setdefault(failure.what.strip().splitlines()[-1][:100], failure)
    for what, failure in kinds.items():
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"{tally.gate.replace(' ', '-')}-{failure.seed}").write_bytes(failure.data)
        print(f"  seed {failure.seed}: {what}\n{failure.what}", flush=True)
    if tally.failures:
        print(f"  {len(tally.failures)} failures of {len(kinds)} kinds; inputs are in {keep}", flush=True)
    return bool(tally.failures) or tally.growth_mib > MAX_GROWTH_MIB


def _built(folder: Path) -> Path:
    """The tests' small INT8 artifact with corrections."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import numpy as np
    import torch
    from tiny import build_kept

    torch.manual_seed(0)
    y, x = np.mgrid[0:40, 0:48] / 48
    shift = np.arange(64)[:, None, None, None] / 9
    images = (127.5 + 100 * np.sin(9 * x[None, ..., None] + 5 * y[None, ..., None] + shift + np.arange(3))).astype(np.uint8)
    np.savez(folder / "images.npz", images=images, labels=np.arange(64) % 10)
    logging.disable()
    warnings.simplefilter("ignore")
    return build_kept(folder / "artifact", folder / "images.npz").folder


if __name__ == "__main__":
    sys.exit(main())
