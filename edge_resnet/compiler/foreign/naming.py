"""Gives every node, tensor and constant of a draft one readable name: calibration tables and listings show them.

A node is named after its torch module where the exporter says it, as in the networks that edge-resnet exports itself; its output
has its name, its constants have its name and their role. Knows no layers.
"""

from __future__ import annotations

import re

import numpy as np

from edge_resnet.compiler.foreign.draft import Array, Draft

__all__ = ["RESERVED", "rename"]

#: Names of tensors that edge-resnet itself writes: the input and output, the front, and the exact input.
RESERVED = (
    "images",
    "logits",
    "cast",
    "transpose",
    "sub",
    "sub.weight",
    "mul",
    "mul.weight",
    "pad",
    "pad.size",
    "shift",
    "shift.weight",
)
_ROLES = {1: "weight", 2: "bias"}
_MAX_LENGTH = 80


def rename(draft: Draft) -> None:
    """Rename everything but the input; the output is renamed too. Constants are stored once for each node that reads them."""
    taken = set(RESERVED)
    tensors: dict[str, str] = {draft.input: draft.input}
    constants: dict[str, Array] = {}
    for node in draft.nodes:
        # A layer's weight and bias have their names even where there is no bias yet: a correction may add one.
        roles = tuple(f".{role}" for role in _ROLES.values()) if node.op_type in ("Conv", "Gemm") else ()
        node.name = _free(_readable(node.name, node.op_type), taken, roles)
        for index, output in enumerate(node.output):
            tensors[output] = node.name if index == 0 else _free(f"{node.name}.{index}", taken)
        for index, name in enumerate(node.input):
            if name in draft.constants:
                weighted = node.op_type in ("Conv", "Gemm") and index in _ROLES
                own = f"{node.name}.{_ROLES[index]}" if weighted else _free(f"{node.name}.{index}", taken)
                node.input[index] = own
                constants[node.input[index]] = np.ascontiguousarray(draft.constants[name])
            elif name:
                node.input[index] = tensors[name]
        node.output[:] = [tensors[output] for output in node.output]
        node.ClearField("doc_string")
    draft.constants = constants
    draft.output = tensors[draft.output]


def _free(wish: str, taken: set[str], endings: tuple[str, ...] = ()) -> str:
    """A name like ``wish`` that is free, also with each of ``endings``; all of them are taken then."""
    name, count = wish, 2
    while taken & {name, *(f"{name}{ending}" for ending in endings)}:
        name, count = f"{wish}_{count}", count + 1
    taken |= {name, *(f"{name}{ending}" for ending in endings)}
    return name


def _readable(name: str, op_type: str) -> str:
    """``/features/features.0/Conv`` → ``features.0``, ``/layer1/layer1.0/Add`` → ``layer1.0.add``; others nearly as they are."""
    cleaned = re.sub(r"[^A-Za-z0-9_./:-]", "_", name)[:_MAX_LENGTH]
    if not cleaned:
        return op_type.lower()
    if not cleaned.startswith("/"):
        return cleaned.replace("/", ".")
    *modules, leaf = cleaned.strip("/").split("/")
    path: list[str] = []
    for module in modules:
        if path and module.startswith(path[-1] + "."):
            path.pop()  # torch repeats the container, as in layer1/layer1.0
        path.append(module)
    own = bool(path) and (op_type in ("Conv", "Gemm") or path[-1].lower().startswith(op_type.lower()))
    return ".".join(path if own else [*path, leaf.lower()]) or op_type.lower()
