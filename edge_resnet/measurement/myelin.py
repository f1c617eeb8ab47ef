"""The layers of TensorRT's graph compiler, Myelin: all of a plan of TensorRT for RTX, some of one of TensorRT 10 and 11.

``correlation`` is a convolution and ``gemm`` a matrix product; ``kgen``, ``fusion`` and ``runtime_fusion`` are kernels made for
the operators that their names list (NVIDIA/TensorRT#3784, #4397). Does not know the inspector's fields.
"""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["adds", "moves", "multiplies"]

_MADE = re.compile(r"^(kgen|fusion|runtime_fusion)$", re.IGNORECASE)
#: ``__myl_FcAddRelu_myl0_26``: a fully connected product, an Add and a ReLU.
_NAME = re.compile(r"^__myl_((?:[A-Z][a-z0-9]+)+)_")
#: Operators that only change a tensor's type, order or place, as the names abbreviate them.
_MOVES = frozenset({"Cast", "Conc", "Copy", "Move", "Pad", "Resh", "Slic", "Tran"})


def multiplies(kind: str, name: str) -> bool:
    """Whether it is a convolution or a matrix product; of a vector, the product is listed as ``MulSum``."""
    if kind.lower() == "correlation":
        return True
    found = _operators(kind, name)
    return "Fc" in found or ("Mul", "Sum") in pairwise(found)


def moves(kind: str, name: str) -> bool:
    """Whether it only changes a tensor's type or memory layout."""
    found = _operators(kind, name)
    return bool(found) and _MOVES.issuperset(found)


def adds(kind: str, name: str) -> bool:
    """Whether it may add a tensor that it reads: a convolution, and what has an Add among its operators."""
    return kind.lower() == "correlation" or "Add" in _operators(kind, name)


def _operators(kind: str, name: str) -> list[str]:
    found = _NAME.match(name) if _MADE.match(kind) else None
    return re.findall(r"[A-Z][a-z0-9]+", found[1]) if found else []
