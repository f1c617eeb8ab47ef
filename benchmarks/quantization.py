"""INT8 of edge-resnet beside that of ONNX Runtime, NVIDIA Model Optimizer and NNCF: the same networks, images and runtime.

    python benchmarks/quantization.py --data DATA [--networks cifar20,resnet50] [--modelopt-python P] [--nncf-python P]

Every tool gets the same FP32 graph and the same calibration images, without labels, and returns a graph with Q/DQ pairs, which
ONNX Runtime runs as it is written on images that no tool has seen. All are asked for what TensorRT reads: symmetric int8,
weights per output channel, biases in float. ``as FP32`` is the share of images that get FP32's class; it and top-1 stand with
Wilson's 95 % interval. ``p``: McNemar's exact test that the tool keeps FP32's class as often as ``ours``. Seconds and peak memory
are of the tool's own process, from images to the written graph, for ours from the checkpoint on; over two folds their mean and
their maximum. ``pairs``: on activations / on weights.

Model Optimizer and NNCF live in environments of their own (pip install 'nvidia-modelopt[onnx]', pip install nncf onnxruntime).
DATA holds cifar10/, imagenet/ and weights/ as the tests use them. Results are kept in --work: a run may be interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from peers.networks import NETWORKS, SEED, Ints
from peers.tools import OURS, TOOLS, Bench, Measured, Tool, fp32_graph, measure, predictions, versions

from edge_resnet.core.statistics import mcnemar_exact, wilson_interval
from edge_resnet.device.machine import describe


def main() -> None:
    """Print a line per network and tool as it is measured, and write them to --json."""
    arguments = _arguments()
    # Not resolved: an environment's interpreter is a link, and what it links to has none of its packages.
    given = {"own": Path(sys.executable), "modelopt": arguments.modelopt_python, "nncf": arguments.nncf_python}
    pythons = {name: python and python.absolute() for name, python in given.items()}
    bench = Bench(arguments.data, arguments.work, pythons, arguments.timeout)
    tools = [tool for tool in TOOLS if any(word in tool.name for word in arguments.only.split(","))]
    info = describe()
    print(f"{info.cpu}, {info.usable_cores} cores")
    print(f"{'network':<9} {'tool':<23} {'top-1 %':>7} {'':16} {'as FP32 %':>9} {'':16} {'p':>6} {'s':>7} {'MiB':>6}  pairs")
    rows = [row for name in arguments.networks.split(",") for row in _rows(bench, name, tools, arguments)]
    if arguments.json is not None:
        found = {tool.name: python and versions(python, tool.packages) for tool in tools if (python := pythons[tool.interpreter])}
        report = {"cpu": info.cpu, "cores": info.usable_cores, "seed": SEED, "versions": found, "rows": rows}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", default=",".join(NETWORKS), help="default: %(default)s")
    parser.add_argument("--only", default="", help="words separated by commas: the rows whose tool's name holds one of them")
    parser.add_argument("--folds", type=int, choices=(1, 2), default=2, help="of ImageNet; with 1 about half is held out")
    parser.add_argument("--test-images", type=int, help="at most so many per fold, for a quick look")
    parser.add_argument("--modelopt-python", type=Path, help="interpreter of the environment with Model Optimizer")
    parser.add_argument("--nncf-python", type=Path, help="interpreter of the environment with NNCF")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "edge-resnet-quantization")
    parser.add_argument("--timeout", type=float, default=4 * 3600.0, help="seconds for one tool on one fold")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _rows(bench: Bench, name: str, tools: list[Tool], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """FP32's row and one per tool, printed as they come."""
    network = NETWORKS[name]
    folds = network.folds(bench.data, arguments.folds, arguments.test_images)
    model = fp32_graph(bench, network)
    labels = np.concatenate([fold.labels for fold in folds])
    reference = np.concatenate([predictions(model, fold) for fold in folds])
    rows = [{"network": name, "tool": "FP32", **_accuracy(reference, labels, reference)}]
    print(_line(rows[0]), flush=True)
    ours: Ints | None = None
    for tool in tools:
        results = [measure(bench, tool, network, model, fold) for fold in folds]
        measured = [result for result in results if isinstance(result, Measured)]
        row = {"network": name, "tool": tool.name}
        if len(measured) == len(folds):
            classes = np.concatenate([np.array(result.predictions) for result in measured])
            ours = classes if tool.name == OURS else ours
            row |= _accuracy(classes, labels, reference, None if tool.name == OURS else ours) | _cost(measured)
        else:
            row["note"] = next(result for result in results if isinstance(result, str))
        rows.append(row)
        print(_line(row), flush=True)
    return rows


def _accuracy(classes: Ints, labels: Ints, reference: Ints, ours: Ints | None = None) -> dict[str, Any]:
    """Shares in percent with their intervals, of (N,) classes each. ``ours``: what the p-value compares with."""
    same, count = classes == reference, len(labels)
    row: dict[str, Any] = {"images": count}
    for name, hits in (("top1", int((classes == labels).sum())), ("agreement", int(same.sum()))):
        low, high = wilson_interval(hits, count)
        row |= {name: 100 * hits / count, f"{name}_ci95": [100 * low, 100 * high]}
    if ours is not None:
        same_ours = ours == reference
        row["p"] = mcnemar_exact(int((same & ~same_ours).sum()), int((same_ours & ~same).sum()))
    return row


def _cost(measured: list[Measured]) -> dict[str, Any]:
    return {
        "seconds": sum(result.seconds for result in measured) / len(measured),
        "peak_mib": max(result.peak_mib for result in measured),
        "pairs": [measured[0].activations, measured[0].weights],
        "note": ", ".join(dict.fromkeys(result.note for result in measured if result.note)),
    }


def _line(row: dict[str, Any]) -> str:
    line = f"{row['network']:<9} {row['tool']:<23}"
    for name, width in (("top1", 7), ("agreement", 9)):
        if name in row:
            low, high = row[f"{name}_ci95"]
            line += f" {row[name]:>{width}.2f} [{low:6.2f}, {high:6.2f}]"
    if "seconds" in row:
        p = f"{row['p']:6.3f}" if "p" in row else f"{'':6}"
        line += f" {p} {row['seconds']:7.1f} {row['peak_mib']:6.0f}  {row['pairs'][0]}/{row['pairs'][1]}"
    return f"{line}  {row.get('note', '')}".rstrip()


if __name__ == "__main__":
    main()
