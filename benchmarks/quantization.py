"""INT8 of edge-resnet beside that of ONNX Runtime, NVIDIA Model Optimizer and NNCF: the same networks, images and runtime.

    python benchmarks/quantization.py --data DATA [--networks cifar20,resnet50] [--peer-python modelopt=P] [--peer-python nncf=P]

Every tool gets the same FP32 graph and the same calibration images, without labels, and returns a graph with Q/DQ pairs, which
ONNX Runtime runs as it is written on images that no tool has seen. All are asked for what TensorRT reads: symmetric int8,
weights per output channel, biases in float. ``as FP32`` is the share of images that get FP32's class; it and top-1 stand with
Wilson's 95 % interval. ``ours/its``: images whose FP32 class only ``ours-default`` keeps, and only the tool; ``p``: McNemar's
exact two-sided test of these. Each row is a process of its own. Seconds by the wall and of the processor, user and system, are
from images to the written graph, for ours from the checkpoint on; peak memory is of the whole process; over two folds the mean
and the maximum. ``pairs``: on activations / on weights.

Model Optimizer and NNCF live in environments of their own (pip install 'nvidia-modelopt[onnx]', pip install nncf onnxruntime),
looked for in WORK/NAME/bin/python if --peer-python does not name them; a tool that is not found is listed as not measured.
DATA holds cifar10/, imagenet/ and weights/ as the tests use them. Results are kept in --work, which git ignores: a run may be
interrupted, and only what changed is measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
from peers.figures import HEADER, accuracy, cost, line, markdown
from peers.networks import NETWORKS, SEED, Ints, Protocol
from peers.tools import INTERPRETERS, NOT_MEASURED, OURS, TOOLS, Bench, Measured, Tool, fp32_graph, measure, predictions, versions

from edge_resnet.device.machine import describe

_WORK = Path(__file__).resolve().parent.parent / "quantization-results"


def main() -> None:
    """Print a line per network and tool as it is measured, and write them to --json and --markdown."""
    arguments = _arguments()
    bench = Bench(arguments.data, arguments.work, _pythons(arguments), arguments.timeout)
    tools = [tool for tool in TOOLS if any(word in tool.name for word in arguments.only.split(","))]
    info = describe()
    print(f"{info.cpu}, {info.usable_cores} cores; protocol {arguments.protocol}")
    print(HEADER)
    rows = [row for name in arguments.networks.split(",") for row in _rows(bench, name, tools, arguments)]
    for name, reason in NOT_MEASURED.items():
        print(f"{name}: not measured: {reason}")
    if arguments.json is not None:
        pythons = {tool.name: bench.pythons[tool.interpreter] for tool in tools}
        found = {tool.name: python and versions(python, tool.packages) for tool in tools if (python := pythons[tool.name])}
        report = {"cpu": info.cpu, "cores": info.usable_cores, "seed": SEED, "protocol": arguments.protocol}
        report |= {"versions": found, "not_measured": NOT_MEASURED, "rows": rows}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if arguments.markdown is not None:
        arguments.markdown.write_text(markdown(rows), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="default: %(default)s")
    parser.add_argument("--only", default="", help="words separated by commas: the rows whose tool's name holds one of them")
    parser.add_argument("--protocol", choices=get_args(Protocol), default="halves", help="images: see peers/networks.py")
    parser.add_argument("--test-images", type=int, help="at most so many per fold, for a quick look")
    parser.add_argument(
        "--peer-python", action="append", default=[], metavar="NAME=PATH", help="interpreter of modelopt or nncf; repeatable"
    )
    parser.add_argument("--work", type=Path, default=_WORK, help="default: quantization-results beside benchmarks")
    parser.add_argument("--timeout", type=float, default=4 * 3600.0, help="seconds for one tool on one fold")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    unknown = [given for given in arguments.peer_python if given.partition("=")[0] not in INTERPRETERS or "=" not in given]
    if unknown:
        parser.error(f"--peer-python takes NAME=PATH with one of {', '.join(INTERPRETERS)}, not {unknown[0]}")
    return arguments


def _pythons(arguments: argparse.Namespace) -> dict[str, Path | None]:
    """The interpreter of each name: this one, the one given, or the one found in --work."""
    given = dict(text.split("=", 1) for text in arguments.peer_python)
    pythons: dict[str, Path | None] = {}
    for name in INTERPRETERS:
        path = Path(given[name]) if name in given else arguments.work / name / "bin" / "python"
        # Not resolved: an environment's interpreter is a link, and what it links to has none of its packages.
        pythons[name] = path.absolute() if path.exists() else None
        if name in given and not path.exists():
            sys.exit(f"--peer-python: there is no file {path}")
    return {**pythons, "own": pythons["own"] or Path(sys.executable).absolute()}


def _rows(bench: Bench, name: str, tools: list[Tool], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """FP32's row and one per tool, printed as they come."""
    network = NETWORKS[name]
    folds = network.folds(bench.data, arguments.protocol, arguments.test_images)
    model = fp32_graph(bench, network)
    labels = np.concatenate([fold.labels for fold in folds])
    reference = np.concatenate([predictions(model, fold) for fold in folds])
    rows = [{"network": name, "tool": "FP32", **accuracy(reference, labels, reference)}]
    print(line(rows[0]), flush=True)
    ours: Ints | None = None
    for tool in tools:
        results = [measure(bench, tool, network, model, fold) for fold in folds]
        measured = [result for result in results if isinstance(result, Measured)]
        row = {"network": name, "tool": tool.name}
        if len(measured) == len(folds):
            classes = np.concatenate([np.array(result.predictions) for result in measured])
            ours = classes if tool.name == OURS else ours
            row |= accuracy(classes, labels, reference, None if tool.name == OURS else ours) | cost(measured)
        else:
            row["note"] = next(result for result in results if isinstance(result, str))
        rows.append(row)
        print(line(row), flush=True)
    return rows


if __name__ == "__main__":
    main()
