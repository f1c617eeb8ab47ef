"""Two gloo processes under torchrun train like one: the same losses, one set of files, resuming after one of them dies."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from children import started
from littlenet import PREPROCESS, QUICK, little_net, stripes, stripes_data
from safetensors.torch import load_file

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.network.training import fit
from edge_resnet.network.training.distributed import World
from edge_resnet.network.training.loader import MemoryLoader, effective_batch
from edge_resnet.network.training.log import read_log

PROGRAM = Path(__file__).with_name("together.py")
#: Six imports of torch: with fourteen processes waiting for two cores, one run took 90 s.
LIMIT_S = 600
pytestmark = pytest.mark.timeout(3 * LIMIT_S)


def together(folder: Path, mode: str, *args: str, restarts: int = 0) -> None:
    """Run together.py in two processes; one pair at a time on this machine, since each pair takes every core."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2", "--max-restarts", str(restarts)]
    with PROGRAM.open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        words = [*command, PROGRAM, folder, mode, *args]
        with started(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            _, printed = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, printed[-3000:]


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of two processes with frozen batch norms."""
    folder = tmp_path_factory.mktemp("frozen")
    together(folder, "frozen")
    return folder


@pytest.mark.slow
def test_two_processes_train_like_one(frozen: Path) -> None:
    """With the same batches and no batch statistics the loss curve is that of one process, within float error."""
    network = little_net()
    for norm in (network.bn1, network.bn2):
        norm.requires_grad_(requires_grad=False)
    alone = fit(network, stripes_data(), dataclasses.replace(QUICK, ema=0.9)).records
    shared = read_log(frozen)
    assert [record.step for record in shared] == [record.step for record in alone]
    for mine, theirs in zip(alone, shared, strict=True):
        assert theirs.train_loss == pytest.approx(mine.train_loss, rel=1e-5)
        assert theirs.test_loss == pytest.approx(mine.test_loss, rel=1e-5)
        assert theirs.train_error == pytest.approx(mine.train_error, abs=1.1)  # one image of 96 at a tie
    weights = load_file(frozen / "weights.safetensors")
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_all_end_with_the_same_weights_and_one_writes(frozen: Path) -> None:
    """Both processes' networks are equal to the bit; there is one log, one checkpoint, and no partial file."""
    first, second = (load_file(frozen / f"rank{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    own = {path.name for path in frozen.iterdir()} - {"rank0.safetensors", "rank1.safetensors"}
    assert own == {"log.csv", "checkpoint.safetensors", "result.json", "weights.safetensors"}


@pytest.mark.slow
def test_a_process_that_dies_is_restarted_and_both_resume(tmp_path: Path, frozen: Path) -> None:
    """Killed in the third epoch, restarted by torchrun, they resume from the checkpoint: the same curve and weights."""
    together(tmp_path, "frozen", "15", restarts=3)
    first, second = (load_file(folder / "weights.safetensors") for folder in (frozen, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [record.train_loss for record in read_log(tmp_path)] == [record.train_loss for record in read_log(frozen)]


@pytest.mark.slow
def test_batch_norm_statistics_are_averaged_over_processes(tmp_path: Path) -> None:
    """Each process normalises its own part; at the end both have the same statistics, and the network has learned."""
    together(tmp_path, "norms")
    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    records = read_log(tmp_path)
    assert records[-1].train_loss < records[0].train_loss


def test_shares_of_a_batch_make_the_batch() -> None:
    """The shares of three processes together are the batch of one: images, augmentation, labels."""
    options = dataclasses.replace(QUICK, batch=24)
    cpu = torch.device("cpu")
    whole = MemoryLoader.load(stripes(), PREPROCESS, options, World(0, 1, cpu))
    shares = [MemoryLoader.load(stripes(), PREPROCESS, options, World(rank, 3, cpu)) for rank in range(3)]
    for (pixels, labels), *parts in zip(whole.epoch(5), *(share.epoch(5) for share in shares), strict=True):
        assert torch.equal(pixels, torch.cat([part[0] for part in parts]))
        assert torch.equal(labels, torch.cat([part[1] for part in parts]))


def test_an_epoch_has_each_image_once_and_the_next_another_order() -> None:
    """Whole batches without repetition; the order depends on the epoch and the seed."""
    loader = MemoryLoader(
        np.arange(64, dtype=np.uint8).reshape(64, 1, 1, 1), np.arange(64), plain(), World(0, 1, torch.device("cpu"))
    )
    orders = [torch.cat([labels for _, labels in loader.epoch(number)]).tolist() for number in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(64))
    assert orders[0] == orders[1] != orders[2]


def plain():  # type: ignore[no-untyped-def]
    return dataclasses.replace(QUICK, augment="none")


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    """The hint is a batch size that can; too few images for all processes are an error too."""
    world = World(0, 3, torch.device("cpu"))
    with pytest.raises(ConfigError, match="cannot be divided among 3") as caught:
        effective_batch(1000, dataclasses.replace(QUICK, batch=128), world)
    assert "--batch 129" in caught.value.hint
    with pytest.raises(DataError, match="needs two"):
        effective_batch(5, dataclasses.replace(QUICK, batch=129), world)
    assert effective_batch(100, dataclasses.replace(QUICK, batch=129), world) == 99
