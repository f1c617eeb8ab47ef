"""What an engine holds for: the machine and the wishes that it was built with, and why another is not it. Knows no TensorRT."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass

from edge_resnet.engine.dialect import EngineDialect
from edge_resnet.engine.options import EngineOptions

__all__ = ["EngineFacts", "engine_key", "why_different"]

_WORDS = {
    "tensorrt": "TensorRT",
    "gpu": "the GPU",
    "compute_capability": "the compute capability",
    "truth": "the artifact's graph or ranges",
    "dialect": "the dialect",
    "options": "the options",
}


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


def why_different(found: EngineFacts, wanted: EngineFacts) -> str | None:
    """In words what keeps an engine from being used here; None where nothing does."""
    differing = [name for name in _WORDS if getattr(found, name) != getattr(wanted, name)]
    if not differing:
        return None
    return ", ".join(f"{_WORDS[name]} was {_shown(found, name)}, is {_shown(wanted, name)}" for name in differing)


def _shown(facts: EngineFacts, name: str) -> str:
    value = getattr(facts, name)
    if name == "truth":
        return str(value)[:12]
    if name == "options":
        return json.dumps({key: given for key, given in asdict(value).items() if given}, sort_keys=True)
    return str(value)
