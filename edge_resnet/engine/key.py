"""What an engine holds for: the machine and the wishes that it was built with, and why another is not it. Knows no TensorRT."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from edge_resnet.engine.dialect import EngineDialect
from edge_resnet.engine.options import EngineOptions

__all__ = ["EngineFacts", "engine_key", "why_unfit"]

#: Compute capability of Ampere, from which on hardware-compatible engines run.
_AMPERE = (8, 0)


@dataclass(frozen=True)
class EngineFacts:
    """``truth``: the digest of what the engine derives from. The rest as the builder had it."""

    tensorrt: str
    gpu: str
    compute_capability: str
    truth: str
    dialect: EngineDialect
    options: EngineOptions


def engine_key(facts: EngineFacts) -> str:
    """The folder's name: readable where it can be, and different wherever any fact is."""
    digest = hashlib.sha256(json.dumps(asdict(facts), sort_keys=True).encode()).hexdigest()[:12]
    gpu = re.sub(r"[^a-z0-9]+", "-", facts.gpu.lower()).strip("-")[:32]
    return f"tensorrt-{facts.tensorrt}-sm{facts.compute_capability.replace('.', '')}-{gpu}-{facts.options.precision}-{digest}"


def why_unfit(found: EngineFacts, here: EngineFacts) -> str | None:
    """In words what keeps an engine from being used here; None where nothing does.

    How much memory and effort went into it does not, nor the dialect, which follows from TensorRT's version.
    """
    was, wanted = found.options, here.options
    machine = was.tuning.hardware_compatible and _from_ampere(found) and _from_ampere(here)
    differing = {
        "the artifact's graph or ranges": (found.truth[:12], here.truth[:12]),
        "the precision": (was.precision, wanted.precision),
        "the input's size": (was.input_size, wanted.input_size),
        "the batch": tuple(f"{batch.min},{batch.opt},{batch.max}" for batch in (was.batch, wanted.batch)),
        "TensorRT": (here.tensorrt if _is_later(found, here) else found.tensorrt, here.tensorrt),
        "the GPU": (here.gpu if machine else found.gpu, here.gpu),
        "the compute capability": (here.compute_capability if machine else found.compute_capability, here.compute_capability),
    }
    return ", ".join(f"{name} was {old}, is {new}" for name, (old, new) in differing.items() if old != new) or None


def _from_ampere(facts: EngineFacts) -> bool:
    return _numbers(facts.compute_capability) >= _AMPERE


def _is_later(found: EngineFacts, here: EngineFacts) -> bool:
    """Whether a version-compatible engine meets a TensorRT of the same major version that is at least as new as its builder."""
    old, new = _numbers(found.tensorrt), _numbers(here.tensorrt)
    return found.options.tuning.version_compatible and old[:1] == new[:1] and old <= new


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
