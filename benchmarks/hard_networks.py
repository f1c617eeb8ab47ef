"""Networks that are hard to quantize, made as weight files from sound ones. Knows nothing of quantization.

    python benchmarks/hard_networks.py --data DATA --out FOLDER [--networks cifar20-scaled,resnet18-scaled]

``scaled``: the same function, with every channel of every residual stream and of the tensors inside blocks multiplied by a power
of two from 2^-7 to 2^7: ReLU, Add and pooling pass a positive factor on, so the batch norms that write a channel are multiplied
and the weights that read it divided. Powers of two are exact. ``loud``: the same for one channel of 64, by 2^6: the outliers of a
residual stream. ``head``: the same classes, with logits as small, as far below zero and as close together as a network has that
was trained with label smoothing and binary cross-entropy, as torchvision's V2 and timm's a1 weights were. ``regularised``:
trained on from CIFAR ResNet-20 with mixup, label smoothing and strong weight decay, which changes the function.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from peers.networks import NETWORKS, Images, Ints, Network, cifar_sheets
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from edge_resnet.core.records import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from edge_resnet.network import ResNet, build_network, load_weights
from edge_resnet.network.resnet import BasicBlock, Bottleneck, PadShortcut

__all__ = ["HARD", "Regularisation", "hard_network", "loud", "regularise", "scaled", "with_small_margins", "write_hard_network"]

#: Number of channels → a factor for each.
Draw: TypeAlias = Callable[[int], npt.NDArray[np.float32]]
#: Names: a network of the comparison, then what is done to it.
HARD = (
    *(f"{name}-scaled" for name in ("cifar20", "resnet18", "resnet50")),
    *(f"{name}-loud" for name in ("cifar20", "resnet18", "resnet50")),
    *(f"{name}-head" for name in ("cifar20", "resnet18", "resnet50")),
    "cifar20-regularised",
)
_SEED = 0


@dataclass(frozen=True)
class Regularisation:
    """How ``regularise`` trains: SGD from ``rate`` to zero as a cosine; mixup's ``mixup`` is the parameter of its beta."""

    epochs: int = 3
    batch: int = 128
    rate: float = 0.1
    weight_decay: float = 2e-3
    label_smoothing: float = 0.1
    mixup: float = 0.2


@dataclass
class _Stream:
    """The batch norms that write a residual stream, the layers that read it, and factors that the stream before it gives.

    ``first``: the channel that the first of these factors belongs to.
    """

    writers: list[nn.BatchNorm2d]
    readers: list[nn.Conv2d | nn.Linear] = field(default_factory=list)
    first: int = 0
    given: npt.NDArray[np.float32] | None = None


def scaled(network: ResNet, largest: int = 7, seed: int = _SEED) -> ResNet:
    """Multiply every channel by 2^k with k from -``largest`` to ``largest``, in place; the logits do not change."""
    rng = np.random.default_rng(seed)
    return _rescale(network, lambda count: np.exp2(rng.integers(-largest, largest + 1, count)).astype(np.float32))


def loud(network: ResNet, exponent: int = 6, share: int = 64, seed: int = _SEED) -> ResNet:
    """Multiply one channel of ``share``, at least one, of every tensor by 2^``exponent``, in place; the logits do not change."""
    rng = np.random.default_rng(seed)

    def draw(count: int) -> npt.NDArray[np.float32]:
        factor = np.ones(count, np.float32)
        factor[rng.choice(count, max(1, count // share), replace=False)] = 2.0**exponent
        return factor

    return _rescale(network, draw)


def with_small_margins(network: ResNet, temperature: float = 4.0, offset: float = -7.0) -> ResNet:
    """Divide the logits by ``temperature`` and add ``offset``, in place; every image keeps its class."""
    with torch.no_grad():
        network.fc.weight.div_(temperature)
        network.fc.bias.div_(temperature).add_(offset)
    return network


def regularise(network: ResNet, pixels: Images, labels: Ints, how: Regularisation | None = None) -> ResNet:
    """Train on ``pixels`` (N, H, W, 3) uint8 with flips and shifts of 4 pixels, in place. One seed gives the same weights."""
    how = how or Regularisation()
    rng, steps = np.random.default_rng(_SEED), how.epochs * (len(pixels) // how.batch)
    optimizer = torch.optim.SGD(network.parameters(), how.rate, 0.9, weight_decay=how.weight_decay, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for step in range(steps):
        if step % (steps // how.epochs) == 0:
            order = rng.permutation(len(pixels))
        rows = order[step % (steps // how.epochs) * how.batch :][: how.batch]
        images, classes = _augmented(pixels[rows], rng), torch.from_numpy(labels[rows])
        share, other = float(rng.beta(how.mixup, how.mixup)), torch.from_numpy(rng.permutation(how.batch))
        logits = network(share * images + (1 - share) * images[other])
        losses = [F.cross_entropy(logits, wanted, label_smoothing=how.label_smoothing) for wanted in (classes, classes[other])]
        optimizer.zero_grad()
        torch.autograd.backward(share * losses[0] + (1 - share) * losses[1])
        optimizer.step()
        schedule.step()
        if (step + 1) % (steps // how.epochs) == 0:
            print(f"trained {step + 1} of {steps} steps", file=sys.stderr, flush=True)
    return network.eval()


#: Ends of the names → what is done to the network.
_CHANGES: dict[str, Callable[[ResNet], ResNet]] = {"scaled": scaled, "loud": loud, "head": with_small_margins}


def hard_network(data: Path, folder: Path, name: str) -> Network:
    """The network of that name in ``HARD``, with its weights under ``folder``, written if they are not there."""
    base = NETWORKS[name.partition("-")[0]]
    path = folder / f"{name}.safetensors"
    if not path.exists():
        write_hard_network(data, path, name)
    return replace(base, weights=str(path.resolve()))


def write_hard_network(data: Path, path: Path, name: str) -> None:
    """Make it from the published weights under ``data`` and write a safetensors file in torchvision's layout."""
    base, _, kind = name.partition("-")
    network = build_network(NETWORKS[base].spec)
    load_weights(network, NETWORKS[base].spec, str(data / "weights" / NETWORKS[base].weights))
    network.eval()
    if kind == "regularised":
        pixels = cifar_sheets(data, "train", 50)
        regularise(network, pixels, np.arange(len(pixels)) % 10)
    else:
        _CHANGES[kind](network)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)


def difference(network: ResNet, other: ResNet, spec: ModelSpec, count: int = 4) -> float:
    """Largest difference of a logit over the largest logit, on ``count`` random images."""
    images = torch.randn(count, 3, spec.input_size, spec.input_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits, others = network.eval()(images), other.eval()(images)
    return float((logits - others).abs().max() / logits.abs().max())


def _rescale(network: ResNet, draw: Draw) -> ResNet:
    """Give each channel of each tensor that only convolutions write and only weights read a factor of ``draw``."""
    stream = _Stream([network.bn1])
    with torch.no_grad():
        for block in _blocks(network):
            if isinstance(block, Bottleneck):
                _scale(draw, [block.bn1], [block.conv2])
                _scale(draw, [block.bn2], [block.conv3])
            else:
                _scale(draw, [block.bn1], [block.conv2])
            stream.readers.append(block.conv1)
            stream = _after(block, stream, draw)
        stream.readers.append(network.fc)
        _close(stream, draw)
    return network


def _after(block: BasicBlock | Bottleneck, stream: _Stream, draw: Draw) -> _Stream:
    """The stream behind a block: the same with an identity shortcut, else a new one, and the one before it is scaled."""
    last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
    shortcut = block.downsample
    if shortcut is None:
        stream.writers.append(last)
        return stream
    if isinstance(shortcut, PadShortcut):  # its channels are the former ones between zeros
        return _Stream([last], first=shortcut.before, given=_close(stream, draw))
    if isinstance(shortcut, nn.Sequential):
        *_, convolution, norm = shortcut
        stream.readers.append(convolution)  # type: ignore[arg-type]
        _close(stream, draw)
        return _Stream([last, norm])  # type: ignore[list-item]
    _close(stream, draw)  # a plain network
    return _Stream([last])


def _close(stream: _Stream, draw: Draw) -> npt.NDArray[np.float32]:
    """Scale the stream. Returns its factors."""
    return _scale(draw, stream.writers, stream.readers, stream)


def _scale(
    draw: Draw, writers: list[nn.BatchNorm2d], readers: list[nn.Conv2d | nn.Linear], stream: _Stream | None = None
) -> npt.NDArray[np.float32]:
    drawn = draw(writers[0].num_features)
    if stream is not None and stream.given is not None:
        drawn[stream.first : stream.first + len(stream.given)] = stream.given
    factor = torch.from_numpy(drawn)
    for norm in writers:
        norm.weight.mul_(factor)
        norm.bias.mul_(factor)
    for layer in readers:
        if isinstance(layer, nn.Conv2d) and layer.groups != 1:
            raise ValueError("channels of grouped convolutions are not scaled here")
        layer.weight.div_(factor.reshape(1, -1, *[1] * (layer.weight.dim() - 2)))
    return drawn


def _blocks(network: ResNet) -> Iterator[BasicBlock | Bottleneck]:
    return (module for module in network.modules() if isinstance(module, BasicBlock | Bottleneck))


def _augmented(pixels: Images, rng: np.random.Generator) -> torch.Tensor:
    """Normalised (N, 3, H, W), each mirrored or not and shifted by up to 4 pixels."""
    size, padded = pixels.shape[1], np.pad(pixels, ((0, 0), (4, 4), (4, 4), (0, 0)))
    down, right = rng.integers(0, 9, (2, len(pixels)))
    cut = np.stack([image[y : y + size, x : x + size] for image, y, x in zip(padded, down, right, strict=True)])
    mirrored = rng.random(len(pixels)) < 0.5
    cut[mirrored] = cut[mirrored, :, ::-1]
    images = torch.from_numpy(cut).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    normalised: torch.Tensor = (images - mean) / std
    return normalised


def main() -> None:
    """Write the files and print how far each one's logits are from the sound network's."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", default=",".join(HARD), help="default: %(default)s")
    arguments = parser.parse_args()
    for name in arguments.networks.split(","):
        if name not in HARD:
            sys.exit(f"there is no network {name}: choose of {', '.join(HARD)}")
        base, path = NETWORKS[name.partition("-")[0]], arguments.out / f"{name}.safetensors"
        write_hard_network(arguments.data, path, name)
        sound, hard = build_network(base.spec), build_network(base.spec)
        load_weights(sound, base.spec, str(arguments.data / "weights" / base.weights))
        load_weights(hard, base.spec, str(path))
        print(f"{name}: {path}, logits differ by {difference(sound, hard, base.spec):.1e} of the largest", flush=True)


if __name__ == "__main__":
    main()
