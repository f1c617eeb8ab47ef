"""Runs PTX on the CPU: it is translated to C, instruction by instruction, and compiled by g++.

A function takes its kernel's parameters, then the launch's grid and block. The threads of a block run one after another up to
each barrier; a barrier that only some of them reach aborts the process. Knows the instructions that the kernels use, and refuses
others. All address spaces are the CPU's memory, so an address in the wrong space is not found.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

__all__ = ["isa_of", "library_of", "to_c"]

#: PTX's types → C's; those without a sign (b32) compute as unsigned.
_TYPES = {f"{kind}{bits}": f"{sign}int{bits}_t" for bits in (8, 16, 32, 64) for kind, sign in (("s", ""), ("u", "u"), ("b", "u"))}
_REGISTERS = {"pred": "uint8_t", "b16": "uint16_t", "b32": "uint32_t", "b64": "uint64_t"}
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_WIDER = {"s32": "int64_t", "u32": "uint64_t"}
_SPECIAL = {"%tid.x": "tid", "%ntid.x": "ntid", "%ctaid.x": "ctaid_x", "%ctaid.y": "ctaid_y"}
_ENTRY = re.compile(r"\.visible \.entry (\w+)\((.*?)\)\s*\{(.*?)^\}", re.DOTALL | re.MULTILINE)

_SHARED = re.compile(r"\.shared \.align (\d+) \.b8 (\w+)\[(\d+)\];")
_DIRECTIVE = re.compile(r"^\s*\.(reg|shared|pragma)[^\n]*", re.MULTILINE)


def isa_of(ptx: str) -> tuple[int, int]:
    """The version of the instruction set that the PTX needs."""
    version = re.search(r"^\.version (\d+)\.(\d+)$", ptx, re.MULTILINE)
    assert version, "no .version: not PTX"
    return int(version[1]), int(version[2])


@cache
def library_of(ptx: str) -> ctypes.CDLL:
    """The kernels as functions of a library that aborts on undefined behaviour."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "kernels.cpp"), Path(folder, "kernels.so")
        source.write_text(to_c(ptx), encoding="utf-8")
        strict = [
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fno-strict-aliasing",
            "-fsanitize=undefined",
            "-fsanitize-undefined-trap-on-error",
        ]
        subprocess.run(["g++", "-shared", "-fPIC", "-O2", *strict, "-o", library, source], check=True)
        return ctypes.CDLL(str(library))


def to_c(ptx: str) -> str:
    """C++ with a function for each kernel. Raises NotImplementedError for an instruction that is not known."""
    text = re.sub(r"//[^\n]*", "", ptx)
    kernels = [_kernel(name, parameters, body) for name, parameters, body in _ENTRY.findall(text)]
    assert kernels, "no kernels"
    return "\n".join([*(f"#include <{header}>" for header in ("algorithm", "stdint.h", "stdlib.h", "string.h")), *kernels])


def _kernel(name: str, parameters: str, body: str) -> str:
    typed = [f"{_TYPES[kind]} {parameter}" for kind, parameter in re.findall(r"\.param \.(\w+) (\w+)", parameters)]
    declared = re.findall(r"\.reg \.(\w+)\s+%(\w+)<(\d+)>", body)
    registers = [f"{_REGISTERS[kind]} {prefix}[{count}];" for kind, prefix, count in declared]
    shared = [f"alignas({align}) uint8_t {label}[{size}];" for align, label, size in _SHARED.findall(body)]
    labels = [label for _, label, _ in _SHARED.findall(body)]
    steps, barriers = [], 0
    for line in (line.strip() for line in _DIRECTIVE.sub("", body).split("\n")):
        if line.endswith(":"):
            steps.append(f"{_label(line[:-1])}:;")
        elif line.startswith("bar.sync"):
            barriers += 1
            steps.append(f"s.at = {barriers}; *kept = s; return {barriers}; after_{barriers}:;")
        elif line:
            steps.append(_statement(line, labels))
    resume = " ".join(f"if (s.at == {number}) goto after_{number};" for number in range(1, barriers + 1))
    names = [declared.split()[-1] for declared in typed]
    memory = ", ".join(f"uint8_t* {label}" for label in labels)
    return f"""
struct {name}_state {{ int at; {" ".join(registers)} }};
static int {name}_thread({name}_state* kept, {", ".join([*typed, *filter(None, [memory])])},
                         uint32_t ctaid_x, uint32_t ctaid_y, uint32_t ntid, uint32_t tid)
{{
    (void)ctaid_y;
    {name}_state s = *kept;
    {resume}
    {chr(10).join(steps)}
}}
extern "C" void {name}({", ".join(typed)}, int grid_x, int grid_y, int threads)
{{
    {name}_state* states = ({name}_state*)malloc(threads * sizeof({name}_state));
    for (int y = 0; y < grid_y; ++y)
        for (int x = 0; x < grid_x; ++x) {{
            {" ".join(shared)}
            memset(states, 171, threads * sizeof({name}_state));
            for (int thread = 0; thread < threads; ++thread)
                states[thread].at = 0;
            for (int at = -1; at != 0;) {{
                at = {name}_thread(&states[0], {", ".join([*names, *labels])}, x, y, threads, 0);
                for (int thread = 1; thread < threads; ++thread)
                    if ({name}_thread(&states[thread], {", ".join([*names, *labels])}, x, y, threads, thread) != at)
                        abort();
            }}
        }}
    free(states);
}}"""


def _statement(line: str, labels: list[str]) -> str:
    found = re.fullmatch(r"(?:@(!?)(%p\d+)\s+)?([\w.]+)\s*(.*);", line)
    if found is None:
        raise NotImplementedError(line)
    negated, predicate, operation, rest = found.groups()
    operands = [_operand(operand.strip(), labels) for operand in rest.split(",")] if rest else []
    parts = operation.split(".")
    make = _INSTRUCTIONS.get(parts[0])
    if make is None:
        raise NotImplementedError(line)
    statement = make(parts[1:], operands)
    return f"if ({negated}{_operand(predicate, labels)}) {{ {statement} }}" if predicate else statement


def _operand(text: str, labels: list[str]) -> str:
    if text in _SPECIAL:
        return _SPECIAL[text]
    if text.startswith("["):
        base, _, offset = text[1:-1].partition("+")
        return f"({_operand(base, labels)} + {offset or 0})"
    if text.startswith("$"):
        return _label(text)
    if text in labels:
        return f"(uint64_t){text}"
    register = re.fullmatch(r"%([a-z]+)(\d+)", text)
    return f"s.{register[1]}[{register[2]}]" if register else text


def _label(text: str) -> str:
    return text.replace("$", "label_")


def _binary(sign: str) -> Callable[[list[str], list[str]], str]:
    """Computed without a sign, which wraps around as the GPU's integers do."""

    def statement(parts: list[str], o: list[str]) -> str:
        unsigned = f"u{_TYPES[parts[-1]].lstrip('u')}"
        return f"{o[0]} = ({unsigned})({o[1]}) {sign} ({unsigned})({o[2]});"

    return statement


def _shift(sign: str) -> Callable[[list[str], list[str]], str]:
    return lambda parts, o: f"{o[0]} = ({_TYPES[parts[-1]]})({o[1]}) {sign} {o[2]};"


def _load(parts: list[str], o: list[str]) -> str:
    kind = _TYPES[parts[-1]]
    if parts[0] == "param":
        return f"{o[0]} = ({kind}){o[1]};"
    return f"{o[0]} = *(const {kind}*){o[1]};"


def _multiply(parts: list[str], o: list[str]) -> str:
    how, kind = parts
    if how == "lo":
        return _binary("*")(parts, o)
    product = f"({_WIDER[kind]})({_TYPES[kind]})({o[1]}) * ({_TYPES[kind]})({o[2]})"
    return f"{o[0]} = {product};" if how == "wide" else f"{o[0]} = ({product}) >> 32;"


def _multiply_add(parts: list[str], o: list[str]) -> str:
    if parts[0] != "lo":
        raise NotImplementedError(f"mad.{'.'.join(parts)}")
    unsigned = f"u{_TYPES[parts[1]].lstrip('u')}"
    return f"{o[0]} = ({unsigned})({o[1]}) * ({unsigned})({o[2]}) + ({unsigned})({o[3]});"


def _compare(parts: list[str], o: list[str]) -> str:
    how, kind = _COMPARISONS[parts[0]], _TYPES[parts[1]]
    return f"{o[0]} = ({kind})({o[1]}) {how} ({kind})({o[2]});"


#: Instruction → C, from the words after its name and its operands (PTX ISA, section "Instruction Set").
_INSTRUCTIONS: dict[str, Callable[[list[str], list[str]], str]] = {
    "ld": _load,
    "st": lambda parts, o: f"*({_TYPES[parts[-1]]}*){o[0]} = ({_TYPES[parts[-1]]}){o[1]};",
    "mov": lambda parts, o: f"{o[0]} = {o[1]};",
    "cvta": lambda parts, o: f"{o[0]} = {o[1]};",
    "cvt": lambda parts, o: f"{o[0]} = ({_TYPES[parts[0]]})({_TYPES[parts[1]]})({o[1]});",
    "add": _binary("+"),
    "sub": _binary("-"),
    "and": _binary("&"),
    "shl": _shift("<<"),
    "shr": _shift(">>"),
    "max": lambda parts, o: f"{o[0]} = std::max(({_TYPES[parts[0]]})({o[1]}), ({_TYPES[parts[0]]})({o[2]}));",
    "min": lambda parts, o: f"{o[0]} = std::min(({_TYPES[parts[0]]})({o[1]}), ({_TYPES[parts[0]]})({o[2]}));",
    "mul": _multiply,
    "mad": _multiply_add,
    "setp": _compare,
    "bra": lambda parts, o: f"goto {o[0]};",
    "ret": lambda parts, o: "return 0;",
}
