"""The program of each process under torchrun: trains the little network and saves its weights. Does not know the tests.

together.py FOLDER MODE [DIE_AT]: ``frozen`` takes batch norms out of play, ``norms`` leaves them in. With DIE_AT the second
process dies at that step of its first life.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import signal
import sys
from pathlib import Path

import torch
from littlenet import QUICK, little_net, stripes_data
from safetensors.torch import save_file

from edge_resnet.network.training import fit


def main(folder: Path, mode: str, die_at: int | None) -> None:
    torch.set_num_threads(1)
    network = little_net()
    if mode == "frozen":
        for norm in (network.bn1, network.bn2):
            norm.requires_grad_(requires_grad=False)
    rank, life = os.environ.get("RANK", "0"), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    options = dataclasses.replace(QUICK, ema=0.9)
    dying = die_at is not None and rank == "1" and life == "0"
    if dying:
        network.register_forward_pre_hook(_Death(die_at or 0))
    fit(network, stripes_data(), options, folder=folder, resume=True)
    save_file(network.state_dict(), folder / f"rank{rank}.safetensors")


class _Death:
    """Kills the process, like the kernel would, at the n-th forward pass in train mode."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, module: torch.nn.Module, inputs: object) -> None:
        self._left -= module.training
        if self._left == 0:
            os._exit(9)


def _end_with_torchrun() -> None:
    """Torchrun gives each process a session of its own: one that is killed with its test would leave these running."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    _end_with_torchrun()
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)
