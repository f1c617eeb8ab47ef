"""INT8 of networks that are hard to quantize: agreement with FP32, what the build warns of, and the layers that are to blame.

    python benchmarks/hard_int8.py --data DATA [--networks cifar20-scaled,resnet18-scaled] [--recipes default,quick]

The networks are those of hard_networks.py; sound ones can be named too. Each is built by the family's recipe (``default``), with
what a quick build changes in it (``quick``), or with plain ranges alone (``plain``), on the calibration images of the protocol's
first fold, and TensorRT's form is simulated on its held-out images. Where the agreement falls short, every layer is quantized
alone and the worst are kept in high precision until the agreement is back. ``named``: how many of the layers that make half of
that damage the build's own warnings name. Results are kept in --work, one file each.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from hard_networks import HARD, hard_network
from peers.networks import BATCH, NETWORKS, Fold, Network
from peers.tools import QUICK, source_digest

from edge_resnet.artifact.folder import Artifact
from edge_resnet.artifact.schema import CalibrationTable
from edge_resnet.compiler.graph.corrections import Corrections, read_corrections
from edge_resnet.compiler.graph.placement import quantized_weights
from edge_resnet.compiler.graph.qdq import quantize
from edge_resnet.core.files import sha256_of
from edge_resnet.core.records import Preprocess, QuantRecipe
from edge_resnet.pipelines.build import BuildOptions, build
from edge_resnet.quantization.blame import (
    Agreement,
    Blame,
    Disagreement,
    agreement_of,
    blame_layers,
    unheld_warning,
    wanted_agreement,
)
from edge_resnet.quantization.recipes import load_recipe, recipe_for
from edge_resnet.quantization.simulate import simulate

_WORK = Path(__file__).resolve().parent.parent / "quantization-results" / "hard"
#: Recipe → what it changes in the family's.
_RECIPES: dict[str, dict[str, Any]] = {"default": {}, "quick": QUICK, "plain": {"correction": "none", "exact_input": False}}


@dataclass(frozen=True, eq=False)
class _Simulation:
    """INT8 of an artifact on held-out images, with any nodes in high precision."""

    model: onnx.ModelProto
    table: CalibrationTable
    corrections: Corrections
    fold: Fold

    def logits(self, keep: frozenset[str], positions: Sequence[int]) -> npt.NDArray[np.float32]:
        """As ``Disagreement.logits``.

        A kept node has its learned weights as floats, because what they were before is not in an artifact, or its own bias if
        only biases were corrected.
        """
        found = self.corrections
        kept = {name: _floats(found, name) for name in keep & found.integers.keys()}
        corrections = replace(
            found,
            integers={name: value for name, value in found.integers.items() if name not in keep},
            scales={name: value for name, value in found.scales.items() if name not in keep},
            floats={**found.floats, **kept},
            biases={name: value for name, value in found.biases.items() if found.integers or name not in keep},
        )
        recipe = replace(self.table.recipe, keep_high_precision=tuple(sorted(keep)))
        graph = quantize(self.model, replace(self.table, recipe=recipe), "tensorrt", corrections)
        parts = (list(positions[start : start + BATCH]) for start in range(0, len(positions), BATCH))
        return simulate(graph, (self.fold.images[part] for part in parts))


def main() -> None:
    """Print a block per network and recipe, and write all to --json and --markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", default=",".join(HARD), help="default: %(default)s")
    parser.add_argument("--recipes", default="default,quick", help=f"of {', '.join(_RECIPES)}; default: %(default)s")
    parser.add_argument("--test-images", type=int, help="at most so many, for a quick look")
    parser.add_argument("--work", type=Path, default=_WORK)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.networks.split(",") if name not in (*HARD, *NETWORKS)]
    unknown += [name for name in arguments.recipes.split(",") if name not in _RECIPES]
    if unknown:
        parser.error(f"there is no {unknown[0]}: networks are {', '.join((*HARD, *NETWORKS))}; recipes {', '.join(_RECIPES)}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in arguments.networks.split(","):
        network = NETWORKS[name] if name in NETWORKS else hard_network(arguments.data, arguments.work, name)
        fold = network.folds(arguments.data, "halves", arguments.test_images)[0]
        for recipe in arguments.recipes.split(","):
            rows.append(_kept_row(arguments, name, network, fold, recipe))
            print(_lines(rows[-1]), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if arguments.markdown is not None:
        arguments.markdown.write_text(_markdown(rows), encoding="utf-8")


def _kept_row(arguments: argparse.Namespace, name: str, network: Network, fold: Fold, recipe: str) -> dict[str, Any]:
    """The kept row of the same weights, code, recipe and images, or a new one."""
    weights = arguments.data / "weights" / network.weights
    facts = [
        name,
        recipe,
        str(_RECIPES[recipe]),
        sha256_of(weights),
        source_digest(),
        sha256_of(Path(__file__)),
        len(fold.images),
    ]
    kept = arguments.work / f"{name}-{recipe}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.json"
    if not kept.exists():
        print(f"{name}: {recipe}", file=sys.stderr, flush=True)
        kept.write_text(
            json.dumps({"network": name, "recipe": recipe, **_row(network, str(weights), fold, recipe)}), encoding="utf-8"
        )
    row: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return row


def _row(network: Network, weights: str, fold: Fold, name: str) -> dict[str, Any]:
    """Build, simulate, and find the layers to blame if the agreement falls short."""
    shipped = load_recipe(recipe_for(network.spec.family)).recipe
    recipe = replace(shipped, images=len(fold.calibration), **_RECIPES[name])
    with tempfile.TemporaryDirectory() as folder:
        started, processor = time.monotonic(), time.process_time()
        artifact = _built(network, weights, fold, recipe, Path(folder))
        cost = {"seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - processor}
        warnings = list(artifact.manifest.warnings)
        corrections = read_corrections(artifact) or Corrections()
        run = _Simulation(onnx.load(artifact.model_path), artifact.calibration(), corrections, fold)
        reference = simulate(run.model, (fold.images[start : start + BATCH] for start in range(0, len(fold.images), BATCH)))
    already = frozenset(run.table.recipe.keep_high_precision)
    agreement = agreement_of(reference, run.logits(already, range(len(fold.images))))
    wanted = wanted_agreement(network.spec.classes)
    row = {**_shares(agreement), "wanted": wanted, **cost, "warnings": warnings}
    if agreement.percent < wanted:
        started = time.monotonic()
        nodes = tuple(quantized_weights(run.model, already))
        blame = blame_layers(Disagreement(nodes, reference, run.logits), wanted)
        culprits = _half(blame)
        named = [node for node in culprits if any(f"{node}:" in warning for warning in warnings)]
        row |= {"layers": [asdict(layer) for layer in blame.layers], "culprits": culprits, "named": named, "kept": blame.kept}
        row |= {"with_kept": _shares(blame.agreement), "blame_seconds": time.monotonic() - started}
        row["unheld"] = unheld_warning(agreement, wanted, blame)
    return row


def _built(network: Network, weights: str, fold: Fold, recipe: QuantRecipe, folder: Path) -> Artifact:
    size = network.spec.input_size
    np.savez(folder / "images.npz", images=fold.calibration)
    options = BuildOptions(
        network.spec,
        Preprocess(resize=size, crop=size),
        "int8",
        weights,
        folder / "artifact",
        calibration_data=str(folder / "images.npz"),
        recipe=recipe,
        backend="onnxruntime",
    )
    return build(options)


def _shares(agreement: Agreement) -> dict[str, Any]:
    return {"agreement": agreement.percent, "ci95": agreement.ci95, "images": agreement.count}


def _half(blame: Blame) -> list[str]:
    """The fewest layers that make half of the damage."""
    culprits, made = [], 0.0
    for layer in blame.layers:
        if made >= 0.5:
            break
        made += layer.share
        culprits.append(layer.node)
    return culprits


def _floats(corrections: Corrections, name: str) -> npt.NDArray[np.float32]:
    integers = corrections.integers[name]
    scales = corrections.scales[name].reshape(-1, *[1] * (integers.ndim - 1))
    return (integers * scales).astype(np.float32)


def _lines(row: dict[str, Any]) -> str:
    low, high = row["ci95"]
    verdict = "holds" if row["agreement"] >= row["wanted"] else "FALLS SHORT"
    text = f"{row['network']} {row['recipe']}: {row['agreement']:.2f} % as FP32 [{low:.2f}, {high:.2f}] of {row['images']}, "
    text += f"{verdict}; {row['seconds']:.0f} s, {row['cpu_seconds']:.0f} of processor time"
    more = [f"the build warns: {warning}" for warning in row["warnings"]]
    if "culprits" in row:
        more.append(f"half of the damage: {', '.join(row['culprits'])}; named: {len(row['named'])} of {len(row['culprits'])}")
        more += row["unheld"]
    return "\n  ".join([text, *more])


def _markdown(rows: list[dict[str, Any]]) -> str:
    head = ["network", "recipe", "as FP32 % [95 %]", "wanted", "processor s", "half of the damage", "named", "with layers kept"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        low, high = row["ci95"]
        cells = [row["network"], row["recipe"], f"{row['agreement']:.2f} [{low:.2f}, {high:.2f}]", f"{row['wanted']:g}"]
        cells += [f"{row['cpu_seconds']:.0f}", "", "", ""]
        if "culprits" in row:
            cells[5] = f"{len(row['culprits'])} of {len(row['layers'])}: {', '.join(row['culprits'][:4])}"
            cells[6] = f"{len(row['named'])}"
            cells[7] = f"{row['with_kept']['agreement']:.2f} with {len(row['kept'])}"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
