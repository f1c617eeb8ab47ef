"""The tools of the comparison; runs one on one fold in a separate process and keeps the result. Knows no statistics."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from edge_resnet.artifact.folder import MODEL
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import Preprocess
from edge_resnet.pipelines.build import BuildOptions, build
from edge_resnet.quantization.recipes import load_recipe, recipe_for
from edge_resnet.quantization.simulate import simulate
from peers.networks import BATCH, Fold, Images, Ints, Network

__all__ = [
    "INTERPRETERS",
    "NOT_MEASURED",
    "OURS",
    "QUICK",
    "TOOLS",
    "Bench",
    "Measured",
    "Tool",
    "fp32_graph",
    "measure",
    "predictions",
    "source_digest",
    "versions",
]

_SCRIPTS = Path(__file__).resolve().parent
_SOURCE = _SCRIPTS.parent.parent / "edge_resnet"
#: Memory for the activations of ONNX Runtime's histogram calibrators; beyond it they get the images in strides.
_MEMORY_GIB = 10
#: The row whose options are the family's shipped recipe: the build as it is by default.
OURS = "ours-default"
#: What a quick build changes in that recipe.
QUICK: dict[str, Any] = {"correction": "bias"}
#: Interpreter of a tool → the package that must be installed there.
INTERPRETERS = {"own": "edge-resnet", "modelopt": "nvidia-modelopt", "nncf": "nncf"}
#: Tools that belong here and have no row, with the reason.
NOT_MEASURED = {
    "embedl-deploy": "all of its releases on PyPI, 0.1.0 to 0.8.1, and those of its TensorRT backend are withdrawn (yanked), so "
    "that pip install finds none; its licence grants no use to makers of AI optimization tools",
}


@dataclass(frozen=True)
class Tool:
    """One row: a script beside this file with its options, run by one of ``INTERPRETERS``.

    ``packages`` are those whose versions determine the result. The ``options`` of ours are changes to the family's shipped
    recipe.
    """

    name: str
    script: str
    options: dict[str, Any]
    packages: tuple[str, ...]
    interpreter: str = "own"


@dataclass(frozen=True)
class Measured:
    """The result of a tool on a fold: a class per held-out image, the cost, the graph's pairs and faults of their form.

    ``seconds`` by the wall, ``cpu_seconds`` of the processor; ``load``: what else ran, as the load average before the start.
    ``cores``: how many this process could use.
    """

    predictions: list[int]
    seconds: float
    cpu_seconds: float
    peak_mib: float
    load: float
    cores: int
    activations: int
    weights: int
    note: str


@dataclass(frozen=True)
class Bench:
    """What all rows share: data, folder of kept results, interpreters by name, and seconds that a tool may take on a fold."""

    data: Path
    work: Path
    pythons: dict[str, Path | None]
    timeout: float


def measure(bench: Bench, tool: Tool, network: Network, model: Path, fold: Fold) -> Measured | str:
    """The kept result, a new one, or the reason why there is none. A failure is not kept."""
    python = bench.pythons[tool.interpreter]
    found = None if python is None else versions(python, tool.packages)
    if python is None or found is None:
        return f"not measured: {INTERPRETERS[tool.interpreter]} is not installed"
    options = _options(tool, network, bench.data)
    script = _SCRIPTS / tool.script
    facts: list[Any] = [tool.name, options, found, *map(sha256_of, (model, script, _SCRIPTS / "measured.py"))]
    facts += [source_digest() if tool.script == "ours.py" else "", versions(Path(sys.executable), ("onnxruntime",))]
    facts += [_digest(fold.calibration), _digest(fold.images)]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    kept = bench.work / f"{network.spec.name}-{tool.name.replace(' ', '-')}-{key}.json"
    if kept.exists():
        return Measured(**json.loads(kept.read_text(encoding="utf-8")))
    _log(f"{network.spec.name}: {tool.name} on {len(fold.calibration)} images")
    with tempfile.TemporaryDirectory(dir=bench.work) as folder:
        task = _task(Path(folder), model, fold, options)
        failure = _run([str(python), str(script), json.dumps(task)], kept.with_suffix(".log"), bench.timeout)
        if failure:
            _log(f"{network.spec.name}: {tool.name} {failure}; see {kept.with_suffix('.log')}")
            return failure
        report = json.loads(Path(task["report"]).read_text(encoding="utf-8"))
        activations, weights, complaints = _form(Path(task["output"]))
        note = ", ".join(filter(None, (report.get("note"), *complaints)))
        classes = predictions(Path(task["output"]), fold).tolist()
    cost = {name: report[name] for name in ("seconds", "cpu_seconds", "peak_mib", "load", "cores")}
    result = Measured(classes, **cost, activations=activations, weights=weights, note=note)
    kept.write_text(json.dumps(asdict(result)), encoding="utf-8")
    took = f"{result.seconds:.1f} s, {result.cpu_seconds:.1f} of processor time, {result.peak_mib:.0f} MiB"
    _log(f"{network.spec.name}: {tool.name} took {took}")
    return result


def fp32_graph(bench: Bench, network: Network) -> Path:
    """The graph that every tool gets, exported once."""
    size, weights = network.spec.input_size, bench.data / "weights" / network.weights
    folder = bench.work / f"{network.spec.name}-fp32-{source_digest()[:12]}-{sha256_of(weights)[:12]}"
    if not folder.exists():
        bench.work.mkdir(parents=True, exist_ok=True)
        preprocess = Preprocess(resize=size, crop=size)
        build(BuildOptions(network.spec, preprocess, "fp32", str(weights), folder, backend="onnxruntime"))
    graph: Path = folder / MODEL
    return graph


def predictions(graph: Path, fold: Fold) -> Ints:
    """Class per held-out image (N,)."""
    parts = (fold.images[start : start + BATCH] for start in range(0, len(fold.images), BATCH))
    classes: Ints = simulate(graph, parts).argmax(axis=1)
    return classes


@functools.cache
def versions(python: Path, packages: tuple[str, ...]) -> dict[str, str] | None:
    """Versions of the installed ones of ``packages`` in that interpreter; None if the first is not installed."""
    code = (
        "import json, sys\n"
        "from importlib.metadata import distributions\n"
        "found = {d.metadata['Name'].lower(): d.version for d in distributions()}\n"
        "print(json.dumps({name: found[name] for name in sys.argv[1:] if name in found}))"
    )
    try:
        done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    found: dict[str, str] = json.loads(done.stdout)
    return found if packages[0] in found else None


def _options(tool: Tool, network: Network, data: Path) -> dict[str, Any]:
    """The tool's options; those of ours hold the whole recipe except the number of images."""
    if tool.script != "ours.py":
        return tool.options
    recipe = asdict(replace(load_recipe(recipe_for(network.spec.family)).recipe, **tool.options))
    del recipe["images"]
    return {"recipe": recipe, "spec": asdict(network.spec), "weights": str((data / "weights" / network.weights).resolve())}


def _task(folder: Path, model: Path, fold: Fold, options: dict[str, Any]) -> dict[str, Any]:
    """The argument of a script; see measured.py."""
    np.savez(folder / "images.npz", images=fold.calibration)
    own = folder / "fp32.onnx"  # a copy, because Model Optimizer overwrites its input
    shutil.copyfile(model, own)
    paths = {"model": own, "images": folder / "images.npz", "output": folder / MODEL, "report": folder / "report.json"}
    return {**{name: str(path.resolve()) for name, path in paths.items()}, "options": options}


def _run(command: list[str], log: Path, timeout: float) -> str:
    """Run a script. Returns how it failed, or an empty string."""
    with log.open("w", encoding="utf-8") as output:
        try:
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False, timeout=timeout)
        except subprocess.TimeoutExpired:
            return f"stopped after {timeout:.0f} s"
    if done.returncode == 0:
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"failed ({done.returncode}): {lines[-1] if lines else 'no output'}"


def _form(path: Path) -> tuple[int, int, list[str]]:
    """Pairs on activations and on weights, and how the graph differs from the form that TensorRT reads."""
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    constants |= {node.output[0]: numpy_helper.to_array(node.attribute[0].t) for node in graph.node if node.op_type == "Constant"}
    made_by = {output: node for node in graph.node for output in node.output}
    counts, complaints = {True: 0, False: 0}, []
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            quantize, zero = made_by.get(node.input[0]), constants.get(node.input[2]) if len(node.input) > 2 else None
            is_weight = node.input[0] in constants or (quantize is not None and quantize.input[0] in constants)
            counts[is_weight] += 1
            if zero is None or zero.dtype != np.int8:
                complaints.append("not int8")
            elif zero.any():
                complaints.append("asymmetric")
            if is_weight and constants[node.input[1]].size == 1:
                complaints.append("weights per tensor")
    return counts[False], counts[True], sorted(set(complaints))


@functools.cache
def source_digest() -> str:
    """Digest of the code that determines our result: if it changes, our rows are measured again."""
    files = sorted([*_SOURCE.glob("quantization/*.py"), *_SOURCE.glob("network/*.py"), _SOURCE / "pipelines" / "build.py"])
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


def _digest(images: Images) -> str:
    return hashlib.sha256(f"{images.shape}".encode() + np.ascontiguousarray(images).tobytes()).hexdigest()


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _ours(name: str, **changes: Any) -> Tool:
    return Tool(name, "ours.py", changes, ("edge-resnet", "numpy", "onnx", "onnxruntime", "torch"))


def _ranges(method: str) -> Tool:
    return _ours(f"ours-{method}-alone", method=method, correction="none", exact_input=False)


def _onnxruntime(method: str) -> Tool:
    options = {"method": method, "memory_gib": _MEMORY_GIB}
    return Tool(f"onnxruntime {method.lower()}", "onnxruntime_static.py", options, ("onnxruntime", "numpy", "onnx"))


def _modelopt(method: str) -> Tool:
    packages = ("nvidia-modelopt", "numpy", "onnx", "onnxruntime", "onnxruntime-gpu")
    return Tool(f"modelopt {method}", "modelopt_onnx.py", {"method": method}, packages, "modelopt")


TOOLS = (
    _ours(OURS),
    _ours("ours-quick", **QUICK),
    *map(_ranges, ("mse", "percentile", "max", "entropy")),
    *map(_onnxruntime, ("MinMax", "Percentile", "Entropy")),
    *map(_modelopt, ("max", "entropy")),
    Tool("nncf", "nncf_onnx.py", {}, ("nncf", "numpy", "onnx", "onnxruntime"), "nncf"),
)
