"""Compares edge-resnet with other ways to run a ResNet on a CPU: one table, one run, the same images, weights and cores.

    python benchmarks/peers.py --weights-dir DIR --data val.csv [--depths 18,50] [--batches 1,8] [--rounds 15] [--json FILE]
    python benchmarks/peers.py --weights-dir DIR --data val.csv --quick

engine     milliseconds of the network alone on preprocessed images: float32 for the peers, uint8 for ours, which normalises
           inside
frame      from a decoded 1920x1080 BGR frame to the class
jpeg       from a JPEG file to the class, at the file's own size

Peers preprocess as their users do: torchvision's transforms for torch, Pillow and NumPy for ONNX Runtime and OpenVINO, cv2 for
OpenCV (whose resize does not antialias). Each row is a separate process with all cores of this one, and all rows take turns in
every round, so that the machine's noise affects them equally. A figure is the median over rounds with its 95 % interval (order
statistics); ``x`` is the median over rounds of the row's time divided by that of our INT8, on the backend that ``auto`` chooses,
in the same round. ``same`` counts the images for which the row predicts torch's class. A row that cannot run says why.

Each row needs only its own package: opencv-python, openvino, torch, torchvision, safetensors; torch.compile needs a C++ compiler.
Graphs and artifacts are kept in --work.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["PATHS", "ROWS", "Peer", "interval", "main", "table"]

PATHS = ("engine", "frame", "jpeg")
#: Calls of a turn that count. One call before them does not, because another process used the caches and cores.
BURST, QUICK_BURST = 3, 2
IMAGES = 16
FRAME = (1920, 1080)
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
#: Loading and, for torch.compile, compiling both batches.
TIMEOUT_S = 900.0
OURS = ("ours INT8, openvino", "ours INT8, onnxruntime")


@dataclass(frozen=True)
class Peer:
    """A loaded row. ``from_frame`` and ``from_jpeg`` preprocess a frame (H, W, 3) uint8 BGR and a file; ``run`` takes a stack of
    the results and returns logits (N, 1000). ``note`` is the version and anything particular.
    """

    note: str
    from_frame: Callable[[Any], Any]
    from_jpeg: Callable[[str], Any]
    stack: Callable[[list[Any]], Any]
    run: Callable[[Any], Any]


def torch_network(work: dict[str, Any]) -> Any:
    """torchvision's network with the weights."""
    import torch
    import torchvision
    from safetensors.torch import load_file

    torch.set_num_threads(cores())
    network = getattr(torchvision.models, f"resnet{work['depth']}")()
    weights = {name: value.float() for name, value in load_file(work["weights"]).items()}
    missing, unexpected = network.load_state_dict(weights, strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"the weights do not fit: {[*unexpected, *missing][:3]}")
    return network.eval()


def torch_peer(work: dict[str, Any], *, compiled: bool) -> Peer:
    """Eager, or torch.compile with its defaults and a graph for each batch size."""
    import cv2
    import torch
    from PIL import Image
    from torchvision import transforms

    network = torch_network(work)
    prepare = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    forward = torch.compile(network, dynamic=False) if compiled else network

    def run(images: Any) -> Any:
        with torch.inference_mode():
            return forward(images).numpy()

    return Peer(
        f"torch {torch.__version__}",
        lambda frame: prepare(Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))),
        lambda path: prepare(Image.open(path).convert("RGB")),
        torch.stack,
        run,
    )


def with_pillow(image: Any) -> Any:
    """The usual code in Pillow and NumPy: (3, 224, 224) float32."""
    from PIL import Image

    width, height = image.size
    scale = 256 / min(width, height)
    image = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
    return ((pixels - MEAN) / STD).transpose(2, 0, 1)


def pillow_peer(note: str, run: Callable[[Any], Any]) -> Peer:
    """A row that preprocesses with Pillow and NumPy."""
    from PIL import Image

    return Peer(
        note,
        lambda frame: with_pillow(Image.fromarray(frame[..., ::-1])),
        lambda path: with_pillow(Image.open(path).convert("RGB")),
        lambda images: np.ascontiguousarray(np.stack(images)),
        run,
    )


def onnxruntime_peer(work: dict[str, Any], graph: str) -> Peer:
    """A session with its defaults, except the number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = cores(), 3
    session = onnxruntime.InferenceSession(work[graph], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return pillow_peer(f"onnxruntime {onnxruntime.__version__}", lambda images: session.run(None, {name: images})[0])


def openvino_peer(work: dict[str, Any], *, precision: str | None) -> Peer:
    """The CPU plugin with its latency hint; ``precision`` None lets it choose, which is bfloat16 if the CPU has it."""
    from edge_resnet.runtime.openvino import load_openvino

    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": cores()}
    properties |= {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    openvino = load_openvino()
    network = openvino.Core().compile_model(work["fp32"], "CPU", properties)
    chosen = network.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    note = f"openvino {openvino.__version__.partition('-')[0]}, computes in {chosen}"
    return pillow_peer(note, lambda images: network([images])[0])


def opencv_peer(work: dict[str, Any]) -> Peer:
    """cv2.dnn on the same graph, one for each batch size: it has no dynamic batch."""
    import cv2

    cv2.setNumThreads(cores())
    networks: dict[int, Any] = {}

    def run(blob: Any) -> Any:
        count = len(blob)
        if count not in networks:
            networks[count] = cv2.dnn.readNetFromONNX(work[f"fp32 batch {count}"])
        networks[count].setInput(blob)
        return networks[count].forward()

    def prepare(frame: Any) -> Any:
        height, width = frame.shape[:2]
        scale = 256 / min(width, height)
        image = cv2.resize(frame, (round(width * scale), round(height * scale)))
        top, left = (image.shape[0] - 224) // 2, (image.shape[1] - 224) // 2
        crop = image[top : top + 224, left : left + 224]
        mean = (float(MEAN[0]) * 255, float(MEAN[1]) * 255, float(MEAN[2]) * 255)
        return cv2.dnn.blobFromImage(crop, 1 / 255, None, mean, swapRB=True)[0] / STD[:, None, None]

    return Peer(f"opencv {cv2.__version__}", prepare, lambda path: prepare(cv2.imread(path)), np.stack, run)


def our_peer(work: dict[str, Any], backend: str, *, int8: bool) -> Peer:
    """An artifact of ``build --int8``, or its FP32 graph, preprocessed as `run` and `eval` do."""
    from edge_resnet.artifact.folder import open_artifact
    from edge_resnet.core import __version__
    from edge_resnet.images.preprocess import preprocess_bgr, preprocess_file
    from edge_resnet.runtime.backend import open_backend

    artifact = open_artifact(Path(work["artifact"]))
    spec = artifact.manifest.preprocess
    opened = open_backend(artifact, backend, "native" if int8 else "reference")
    return Peer(
        f"edge-resnet {__version__}",
        lambda frame: preprocess_bgr(frame, spec),
        lambda path: preprocess_file(path, spec),
        np.stack,
        opened.infer,
    )


ROWS: dict[str, Callable[[dict[str, Any]], Peer]] = {
    "torch eager": lambda work: torch_peer(work, compiled=False),
    "torch.compile": lambda work: torch_peer(work, compiled=True),
    "ONNX Runtime FP32": lambda work: onnxruntime_peer(work, "fp32"),
    "ONNX Runtime's own INT8": lambda work: onnxruntime_peer(work, "int8"),
    "OpenVINO FP32": lambda work: openvino_peer(work, precision="f32"),
    "OpenVINO as it comes": lambda work: openvino_peer(work, precision=None),
    "OpenCV DNN FP32": opencv_peer,
    "ours FP32, onnxruntime": lambda work: our_peer(work, "onnxruntime", int8=False),
    "ours FP32, openvino": lambda work: our_peer(work, "openvino", int8=False),
    "ours INT8, onnxruntime": lambda work: our_peer(work, "onnxruntime", int8=True),
    "ours INT8, openvino": lambda work: our_peer(work, "openvino", int8=True),
}


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def main() -> None:
    """Prepare, measure each depth, print a table per depth and batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights-dir", type=Path, required=True, help="folder with resnet18*.safetensors and so on")
    parser.add_argument("--data", type=Path, required=True, help="CSV of labelled images: file, class_index")
    parser.add_argument("--depths", default="18,50")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", default=",".join(ROWS).replace(", ", "; "), help="names, with ; for the comma in ours")
    parser.add_argument("--work", type=Path, default=Path("peers-work"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="ResNet-18, batch 1, 3 rounds, without torch.compile")
    arguments = parser.parse_args()
    depths = [18] if arguments.quick else [int(word) for word in arguments.depths.split(",")]
    batches = [1] if arguments.quick else [int(word) for word in arguments.batches.split(",")]
    rows = [name.strip().replace("; ", ", ") for name in arguments.rows.split(",")]
    if unknown := set(rows) - set(ROWS):
        parser.error(f"no row is called {', '.join(sorted(unknown))}")
    rounds, burst = (3, QUICK_BURST) if arguments.quick else (arguments.rounds, BURST)
    report: dict[str, Any] = {"cores": cores(), "rounds": rounds, "burst": burst, "tables": []}
    for depth in depths:
        work = prepared(arguments.work, arguments.weights_dir, arguments.data, depth, batches)
        left_out = {"torch.compile": "left out by --quick"} if arguments.quick else {}
        for found in measured(rows, work, batches, (rounds, burst), left_out):
            report["tables"].append(found)
            print(table(found), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(report, indent=1), encoding="utf-8")


def prepared(folder: Path, weights_dir: Path, data: Path, depth: int, batches: Sequence[int]) -> dict[str, Any]:
    """The images, graphs and artifact of a depth; missing ones are made."""
    from edge_resnet.images.imageset import open_images

    found = sorted(weights_dir.glob(f"resnet{depth}[!0-9]*.safetensors"))
    if not found:
        sys.exit(f"error: {weights_dir} holds no resnet{depth}*.safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    images = open_images(data)
    chosen = [int(index) for index in np.linspace(0, len(images) - 1, IMAGES)]
    work: dict[str, Any] = {"depth": depth, "weights": str(found[0]), "images": str(folder / "images")}
    work["labels"] = [images.labels[index] for index in chosen] if images.labels is not None else None
    write_once(folder / "images", lambda place: write_images(place, images, chosen))
    graphs = {"fp32": None, **{f"fp32 batch {batch}": batch for batch in batches}}
    for name, batch in graphs.items():
        work[name] = str(folder / f"resnet{depth} {name}.onnx")
        write_once(Path(work[name]), lambda place, batch=batch: export(work, place, batch))
    work["int8"] = str(folder / f"resnet{depth} int8.onnx")
    work["int8 failed"] = attempted(lambda: write_once(Path(work["int8"]), lambda place: static_int8(work, place)))
    work["artifact"] = str(folder / f"artifact{depth}")
    write_once(Path(work["artifact"]), lambda place: build_artifact(work, data, place))
    return work


def write_once(path: Path, write: Callable[[Path], None]) -> None:
    """Write a missing file or folder under a temporary name, then rename it."""
    if not path.exists():
        print(f"making {path.name}", file=sys.stderr, flush=True)
        part = path.with_name(f"part-{path.name}")
        write(part)
        part.rename(path)


def attempted(action: Callable[[], None]) -> str:
    """Returns an empty string, or the first line of why the action failed."""
    try:
        action()
    except Exception as error:  # only this row fails; the others continue
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:120]}"
    return ""


def write_images(folder: Path, images: Any, chosen: Sequence[int]) -> None:
    """JPEG files at their own size, and the same as frames."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for number, index in enumerate(chosen):
        image = Image.fromarray(images.load(index))
        image.save(folder / f"{number:02}.jpg", quality=90)
        frame = np.asarray(image.resize(FRAME, Image.Resampling.BICUBIC))[..., ::-1]
        np.save(folder / f"{number:02}.npy", np.ascontiguousarray(frame))


def export(work: dict[str, Any], path: Path, batch: int | None) -> None:
    """torchvision's network as its users export it: float32 (N, 3, 224, 224)."""
    import warnings

    import torch

    warnings.simplefilter("ignore", DeprecationWarning)  # the exporter announces its successor
    axes = None if batch else {"images": {0: "batch"}, "logits": {0: "batch"}}
    names = {"input_names": ["images"], "output_names": ["logits"], "dynamic_axes": axes}
    content = io.BytesIO()
    torch.onnx.export(
        torch_network(work), (torch.zeros(batch or 1, 3, 224, 224),), content, dynamo=False, opset_version=17, **names
    )
    path.write_bytes(content.getvalue())


def static_int8(work: dict[str, Any], path: Path) -> None:
    """ONNX Runtime's quantize_static as it recommends for x86: Q/DQ, unsigned activations, per-channel weights, after its own
    preprocessing; min-max over the images.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process
    from PIL import Image

    images = [with_pillow(Image.open(name).convert("RGB"))[None] for name in sorted(Path(work["images"]).glob("*.jpg"))]

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows = iter([{"images": image} for image in images])

        def get_next(self) -> Any:
            return next(self._rows, None)

    ready = path.with_suffix(".ready.onnx")
    quant_pre_process(work["fp32"], str(ready))
    quantize_static(
        str(ready), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    ready.unlink()


def build_artifact(work: dict[str, Any], data: Path, folder: Path) -> None:
    """INT8 without learned corrections, which change accuracy but not speed."""
    command = [
        sys.executable,
        "-m",
        "edge_resnet",
        "build",
        "--depth",
        str(work["depth"]),
        "--int8",
        "--weights",
        work["weights"],
    ]
    command += ["--calib-data", str(data), "--calib-images", "64", "--correct", "none", "-o", str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)


class Row:
    """The process of a row, which loads and then measures on request. ``failed``: why it cannot."""

    def __init__(self, name: str, work: dict[str, Any], failed: str = "") -> None:
        self.failed, self.note = failed, ""
        self._process: subprocess.Popen[str] | None = None
        if not failed:
            command = [sys.executable, str(Path(__file__).resolve()), "--child", name, json.dumps(work)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(cores()), "PYTHONWARNINGS": "ignore"}
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
            )
            self.note = self.ask(None) or ""

    def ask(self, order: dict[str, Any] | None) -> Any:
        """The answer; None if the row failed, now or before."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None or self.failed:
            return None
        timeout = threading.Timer(TIMEOUT_S, process.kill)
        timeout.start()
        try:
            if order is not None:
                process.stdin.write(json.dumps(order) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timeout.cancel()
        answer = json.loads(line) if line else {"failed": f"its process ended with {process.wait()}"}
        self.failed = answer.get("failed", "")
        return answer.get("answer")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


def measured(
    rows: Sequence[str], work: dict[str, Any], batches: Sequence[int], effort: tuple[int, int], left_out: dict[str, str]
) -> list[dict[str, Any]]:
    """A table per batch size. All rows load first; then in every round each row takes a turn with each path."""
    rounds, burst = effort
    reasons = {**left_out, **({"ONNX Runtime's own INT8": work["int8 failed"]} if work["int8 failed"] else {})}
    running = {name: Row(name, work, reasons.get(name, "")) for name in rows}
    tables = []
    try:
        classes = {name: row.ask({"path": "jpeg", "batch": 1, "classes": True}) for name, row in running.items()}
        for batch in batches:
            times: dict[str, dict[str, list[float]]] = {name: {path: [] for path in PATHS} for name in rows}
            for turn in range(rounds + 1):  # the first is a warm-up, in which graphs of this batch size are made
                for path in PATHS:
                    for name, row in running.items():
                        took = row.ask({"path": path, "batch": batch, "burst": burst})
                        if turn and took is not None:
                            times[name][path].append(took)
            tables.append(summary(running, work, batch, times, classes))
    finally:
        for row in running.values():
            row.close()
    return tables


def summary(
    running: dict[str, Row], work: dict[str, Any], batch: int, times: dict[str, dict[str, list[float]]], classes: dict[str, Any]
) -> dict[str, Any]:
    """Medians with intervals, and the ratios to ours in each round."""
    ours = next((name for name in OURS if name in running and not running[name].failed), "")
    found = []
    for name, row in running.items():
        record: dict[str, Any] = {"row": name, "note": row.note, "failed": row.failed}
        if not row.failed:
            for path in PATHS:
                mine, base = times[name][path], times[ours][path] if ours else []
                low, high = interval(mine)
                ratios = [one / other for one, other in zip(mine, base, strict=True)] if base else []
                record[path] = {"ms": statistics.median(mine), "ci95": [low, high]}
                record[path] |= {"x": statistics.median(ratios), "x_ci95": interval(ratios)} if ratios else {}
            if classes.get("torch eager") and classes[name]:
                record["same"] = sum(a == b for a, b in zip(classes[name], classes["torch eager"], strict=True))
            if work["labels"] and classes[name]:
                record["right"] = sum(a == b for a, b in zip(classes[name], work["labels"], strict=True))
        found.append(record)
    return {"depth": work["depth"], "batch": batch, "ours": ours, "images": IMAGES, "rows": found}


def interval(samples: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median by order statistics; minimum and maximum for fewer than six samples."""
    ordered, count = sorted(samples), len(samples)
    reach = int(np.floor(count / 2 - 1.96 * np.sqrt(count) / 2))
    return (ordered[0], ordered[-1]) if reach < 1 else (ordered[reach - 1], ordered[count - reach])


def table(found: dict[str, Any]) -> str:
    """Markdown, sorted by frame time; below it the fastest row of each path, relative to ours."""
    title = f"ResNet-{found['depth']}, batch {found['batch']}: milliseconds per batch (95 % interval)"
    lines = [f"\n{title}, x = relative to {found['ours']}\n"]
    lines += ["| | engine | x | frame | x | jpeg | x | same | |", "|---|---|---|---|---|---|---|---|---|"]
    alive = sorted((row for row in found["rows"] if not row["failed"]), key=lambda row: row["frame"]["ms"])
    for row in alive:
        cells = [cell for path in PATHS for cell in _cells(row[path])]
        same = f"{row['same']} of {found['images']}" if "same" in row else ""
        lines.append(f"| {row['row']} | {' | '.join(cells)} | {same} | {row['note']} |")
    lines += [f"| {row['row']} | did not run: {row['failed']} | | | | | | | |" for row in found["rows"] if row["failed"]]
    for path in PATHS if alive and found["ours"] else ():
        first = min(alive, key=lambda row: row[path].get("x", 1.0))
        low, high = first[path].get("x_ci95", (1.0, 1.0))
        lines.append(f"\n{path}: fastest is {first['row']}, {first[path].get('x', 1.0):.2f} ({low:.2f} to {high:.2f}) of ours")
    return "\n".join(lines)


def _cells(figure: dict[str, Any]) -> tuple[str, str]:
    low, high = figure["ci95"]
    return f"{figure['ms']:.2f} ({low:.2f} to {high:.2f})", f"{figure['x']:.2f}" if "x" in figure else ""


def child(name: str, work: dict[str, Any]) -> None:
    """Load the row, report that, and execute each order on standard input."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")  # libraries may print to standard output
    os.dup2(2, 1)

    def reply(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        peer = ROWS[name](work)
        files = sorted(str(path) for path in Path(work["images"]).glob("*.jpg"))
        frames = [np.load(path.replace(".jpg", ".npy")) for path in files]
        reply(answer=peer.note)
        for line in sys.stdin:
            order = json.loads(line)
            if order.get("classes"):
                reply(answer=[int(np.argmax(peer.run(peer.stack([peer.from_jpeg(path)])), axis=1)[0]) for path in files])
            else:
                reply(answer=statistics.median(timed(peer, order, files, frames)))
    except Exception as error:  # whatever is missing, the table says so
        reply(failed=f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}")


def timed(peer: Peer, order: dict[str, Any], files: Sequence[str], frames: Sequence[Any]) -> list[float]:
    """Milliseconds of each call except the first."""
    batch, took = order["batch"], []
    for turn in range(order["burst"] + 1):
        chosen = [(turn * batch + index) % len(files) for index in range(batch)]
        ready = peer.stack([peer.from_frame(frames[index]) for index in chosen]) if order["path"] == "engine" else None
        started = time.perf_counter()
        if order["path"] == "frame":
            ready = peer.stack([peer.from_frame(frames[index]) for index in chosen])
        elif order["path"] == "jpeg":
            ready = peer.stack([peer.from_jpeg(files[index]) for index in chosen])
        np.argmax(peer.run(ready), axis=1)
        took.append(1e3 * (time.perf_counter() - started))
    return took[1:]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()
