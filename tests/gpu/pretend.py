"""A GPU machine for trying these tests and the benchmark on: packages that stand in for TensorRT and PyCUDA, in other processes.

What the strict stand-ins refuse is refused here too; beyond them an engine computes what ONNX Runtime makes of its graph, streams
have events, and the inspector lists layers in full. Nothing of it says how fast or how exact a GPU is.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["pretend", "write_data"]

TESTS = Path(__file__).resolve().parent.parent
_TENSORRT = """
import base64, functools, hashlib, json, sys
from pathlib import Path

sys.path.insert(0, {tests!r})
import numpy as np, onnxruntime
from layerinfo import document
from standins import pycuda_driver as cuda, tensorrt_build
from standins.surface import strict
from standins.tensorrt_run import RUN_CLASSES

FAULT = {fault!r}
builds, runs = dict(tensorrt_build.BUILD_CLASSES), dict(RUN_CLASSES)


def with_graph(self, network, config):
    plan = builds["Builder"].build_serialized_network(self, network, config)
    return plan and json.dumps({{**json.loads(plan), "onnx": base64.b64encode(network.graph).decode()}}).encode()


@functools.cache
def session(graph):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(base64.b64decode(graph), options, providers=["CPUExecutionProvider"])


def execute(self, stream_handle):
    # What the strict stand-in checks and queues, with other numbers in the end.
    if not runs["IExecutionContext"].execute_async_v3(self, stream_handle):
        return False
    count, facts, addresses = self._count, self._facts, dict(self._addresses)

    def run():
        shape = (count, facts["size"], facts["size"], 3)
        images = cuda.read(addresses["images"], int(np.prod(shape))).reshape(shape)
        logits = session(facts["onnx"]).run(None, {{"images": images}})[0]
        if FAULT == "numbers":
            logits = logits[::-1].copy()
        dtype = {{"FLOAT": np.float32, "HALF": np.float16}}[facts["dtype"]]
        cuda.write(addresses["logits"], np.ascontiguousarray(logits, dtype).view(np.uint8).reshape(-1))

    cuda.STREAMS[stream_handle].work[-1] = run
    return True


tensorrt_build._Inspector.get_engine_information = lambda self, form: json.dumps(document())
Builder = type("Builder", (), {{**vars(builds["Builder"]), "build_serialized_network": with_graph}})
Context = type("IExecutionContext", (), {{**vars(runs["IExecutionContext"]), "execute_async_v3": execute}})
classes = {{**builds, "Builder": Builder}}
if "edge_resnet.compiler.tensorrt" not in sys.orig_argv:  # the child that builds inspects its engine and runs none
    classes |= {{**runs, "IExecutionContext": Context}}
module = strict({version!r}, classes, Path({surfaces!r}))
module.__spec__ = __spec__
sys.modules[__name__] = module
"""
_PYCUDA = """
import ctypes, sys, time

sys.path.insert(0, {tests!r})
from standins import pycuda_driver as cuda

globals().update({{name: value for name, value in vars(cuda.driver(integrated={integrated})).items() if name[0] != "_"}})
cuda.record_through(ctypes.CDLL("libcuda.so.1"))


class Event:
    def __init__(self):
        assert cuda.depth() > 0, "an event without a current context"
        self._at = None

    def record(self, stream):
        self._at = None
        stream.work.append(lambda: setattr(self, "_at", time.perf_counter()))

    def time_till(self, later):
        assert self._at is not None and later._at is not None, "an event was not waited for"
        return (later._at - self._at) * 1e3
"""


def pretend(
    folder: Path, libcuda: Path, surfaces: Path, *, version: str = "8.6.1", integrated: bool = False, fault: str = ""
) -> dict[str, str]:
    """The environment of a process that finds a GPU with that TensorRT. ``folder``: for packages, nvcc's stand-in and caches.

    ``fault``: ``numbers`` for an engine that returns its rows in the wrong order.
    """
    packages, programs = folder / "packages", folder / "bin"
    (packages / "pycuda").mkdir(parents=True)
    programs.mkdir()
    words = {"tests": str(TESTS), "version": version, "surfaces": str(surfaces), "integrated": integrated, "fault": fault}
    (packages / "tensorrt.py").write_text(_TENSORRT.format(**words), encoding="utf-8")
    (packages / "pycuda" / "__init__.py").touch()
    (packages / "pycuda" / "driver.py").write_text(_PYCUDA.format(**words), encoding="utf-8")
    Path(shutil.copy(TESTS / "standins" / "nvcc", programs / "nvcc")).chmod(0o755)
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(libcuda.parent),
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(packages), str(TESTS.parent), *filter(None, sys.path[1:])]),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }


def write_data(folder: Path, count: int, side: int) -> Path:
    """A folder laid out like the real data, with ``count`` smooth labelled images of ten classes, and no weights."""
    images = folder / "imagenet" / "sample500"
    images.mkdir(parents=True)
    y, x = np.mgrid[0:side, 0:side] / side
    lines = ["file,class_index"]
    for index, waves in enumerate(np.random.default_rng(1).uniform(1, 6, (count, 3, 2))):
        phase = waves[:, 0, None, None] * x + waves[:, 1, None, None] * y
        pixels = (127.5 + 127.5 * np.sin(2 * np.pi * phase)).astype(np.uint8).transpose(1, 2, 0)
        Image.fromarray(pixels).save(images / f"{index}.png")
        lines.append(f"{index}.png,{index % 10}")
    (folder / "imagenet" / "sample500.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
