"""Every program in examples/ runs as its first line says, on tiny artifacts and small images; a mistake ends it with a hint."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from foreignnets import onnx_of
from PIL import Image
from tiny import as_trained

import edge_resnet as er
from edge_resnet.artifact.folder import Artifact

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
#: What each program needs beside what the base and these tests need.
NEEDS = {
    "webcam.py": ("cv2",),
    "web_endpoint.py": ("starlette", "uvicorn"),
    "quantize_own_model.py": ("torch", "torchvision"),
    "build_own_network.py": ("torch",),
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def photos(smooth_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight PNG files in a flat folder."""
    folder = tmp_path_factory.mktemp("photos")
    images = er.open_images(smooth_images)
    for index in range(8):
        Image.fromarray(images.load(index)).save(folder / f"{index}.png")
    return folder


def test_every_example_is_described() -> None:
    """The README has a line for each, and each begins with how it is called."""
    programs = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert sorted(re.findall(r"^\| \[(\w+\.py)\]", (EXAMPLES / "README.md").read_text(), flags=re.MULTILINE)) == programs
    for name in programs:
        assert f"python {name} " in (EXAMPLES / name).read_text().split('"""')[1]


def test_predict_image(tiny_artifacts: dict[str, Artifact], photos: Path) -> None:
    """Five lines, the best first, as ``predict`` says."""
    lines = _output("predict_image.py", tiny_artifacts["fp32"].folder, photos / "3.png").splitlines()
    with er.load(tiny_artifacts["fp32"]) as model:
        expected = model.predict(photos / "3.png").top
    assert [line.split("%")[1].strip() for line in lines] == [score.label for score in expected]
    assert [float(line.split("%")[0]) for line in lines] == [round(100 * score.probability, 1) for score in expected]


def test_a_mistake_ends_with_a_hint(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """No traceback."""
    result = _run("predict_image.py", tiny_artifacts["fp32"].folder, tmp_path / "missing.png")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "hint: " in result.stderr
    assert "Traceback" not in result.stderr


def test_webcam_on_a_video(tiny_artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    """A line per frame until the limit, and to the end without one; each is that of the frame as OpenCV reads it."""
    cv2 = pytest.importorskip("cv2")
    video = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for index in range(6):
        writer.write(np.full((48, 64, 3), (40 * index, 0, 255 - 40 * index), np.uint8))
    writer.release()
    lines = _output("webcam.py", tiny_artifacts["fp32"].folder, video, "--frames", "4", "--headless").splitlines()
    assert [line.split(":")[0] for line in lines] == ["1", "2", "3", "4"]
    reader = cv2.VideoCapture(str(video))
    with er.load(tiny_artifacts["fp32"]) as model:
        for line in lines:
            best = model.predict(reader.read()[1][..., ::-1], top=1).top[0]
            assert line.split(": ")[1] == f"{best.label} {100 * best.probability:.0f} %"
    reader.release()
    result = _run("webcam.py", tiny_artifacts["fp32"].folder, tmp_path / "missing.avi")
    assert result.returncode == 2
    assert "cannot open" in result.stderr


def test_evaluate_folder_without_labels(tiny_artifacts: dict[str, Artifact], photos: Path) -> None:
    """A line per image; what cannot be read is counted."""
    broken = photos / "9.png"
    broken.write_bytes(b"no image")
    result = _run("evaluate_folder.py", tiny_artifacts["fp32"].folder, photos)
    broken.unlink()
    assert result.returncode == 0, result.stderr
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == [str(photos / f"{index}.png") for index in range(8)]
    assert f"1 files cannot be read: {broken}" in result.stderr


def test_evaluate_folder_with_labels(tiny_artifacts: dict[str, Artifact], smooth_images: Path, tmp_path: Path) -> None:
    """The accuracy of a trained network; of a random one the error says that it has none."""
    result = _run("evaluate_folder.py", tiny_artifacts["fp32"].folder, smooth_images)
    assert result.returncode == 1
    assert "random weights" in result.stderr
    trained = as_trained(tiny_artifacts["fp32"], tmp_path / "trained")
    output = _output("evaluate_folder.py", trained, smooth_images)
    with er.load(trained) as model:
        found = er.evaluate(model, smooth_images)
    assert f"64 images: top-1 {found.top1:.2f} %" in output


@pytest.mark.slow
def test_quantize_own_model(photos: Path, tmp_path: Path) -> None:
    """Two artifacts of one torch module, and how often they agree."""
    for name in NEEDS["quantize_own_model.py"]:
        pytest.importorskip(name)
    output = _output("quantize_own_model.py", photos, tmp_path / "out")
    assert re.search(r"the same answer as FP32 on \d of 8 images", output)
    for precision in ("fp32", "int8"):
        with er.load(tmp_path / "out" / precision, backend="fake") as model:
            assert model.artifact.manifest.precision == precision
            assert model.labels == ("cat", "dog", "bird", "fish", "horse")


def test_build_own_network(photos: Path, tmp_path: Path) -> None:
    """A line for each change and each image."""
    (tmp_path / "joined.onnx").write_bytes(onnx_of("joined", 13))
    lines = _output("build_own_network.py", tmp_path / "joined.onnx", photos, tmp_path / "made").splitlines()
    assert lines[:2] == ["joined: 5 classes, images of 16 pixels", "changed: opset 13 is converted to 17"]
    assert len(lines) == 10


@pytest.fixture
def server(tiny_artifacts: dict[str, Artifact]) -> Iterator[str]:
    """The endpoint on a port of its own, until the test ends."""
    for name in NEEDS["web_endpoint.py"]:
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, EXAMPLES / "web_endpoint.py", tiny_artifacts["fp32"].folder, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    try:
        _await(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def test_web_endpoint(server: str, tiny_artifacts: dict[str, Artifact], photos: Path) -> None:
    """A posted image has the answer that ``predict`` gives; what is no image is refused, and the server stays up."""
    with er.load(tiny_artifacts["fp32"]) as model:
        for path in (photos / "0.png", photos / "1.png"):
            status, answer = _post(f"{server}/predict", path.read_bytes())
            assert status == 200
            expected = model.predict(path).top
            assert [score["label"] for score in answer["top"]] == [score.label for score in expected]
            assert [score["probability"] for score in answer["top"]] == pytest.approx([s.probability for s in expected])
    floats = io.BytesIO()
    Image.new("F", (8, 8)).save(floats, "TIFF")
    for body in (b"", b"no image", floats.getvalue(), (photos / "0.png").read_bytes()[:200]):
        assert _post(f"{server}/predict", body)[0] == 400
    assert _post(f"{server}/predict", bytes(10_000_001))[0] == 413
    assert _post(f"{server}/predict", (photos / "2.png").read_bytes())[0] == 200


def _post(address: str, body: bytes) -> tuple[int, dict[str, list[dict[str, object]]]]:
    """Status and JSON."""
    try:
        with urlopen(Request(address, data=body, method="POST"), timeout=20) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        return error.code, json.load(error)


def _await(port: int) -> None:
    """Return once the server listens."""
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "the server does not listen"
        time.sleep(0.05)


def _run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    for module in NEEDS.get(name, ()):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    command = [sys.executable, EXAMPLES / name, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=120)


def _output(name: str, *arguments: str | Path) -> str:
    result = _run(name, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout
