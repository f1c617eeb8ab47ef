"""csi:// and rtsp:// through an OpenCV with GStreamer, with NumPy 1 and elements of the Jetson's names, as on a board.

OpenCV, appsink, decodebin, caps and the RTSP server are real; the Jetson's camera source, converter and decoder are stand-ins.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from children import started
from jetsonlike import JetsonLike, make_jetson_like, why_no_jetson_like
from once import Once
from servers.rtsp import RtspServer, why_no_rtsp

from edge_resnet.artifact.folder import Artifact

#: Prints a line of JSON for each URI: what its first frames are, or why there are none.
_LOOK = """
import json, logging, sys
from itertools import islice
from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.sources import open_source
log = []
logging.getLogger("edge_resnet").setLevel(logging.INFO)
logging.getLogger("edge_resnet").addHandler(type("H", (logging.Handler,), {"emit": lambda s, r: log.append(r.getMessage())})())
for uri in sys.argv[1:]:
    try:
        with open_source(uri) as source:
            frames = [frame.image for frame in islice(source, 12)]
    except SourceError as error:
        print(json.dumps({"error": error.message, "hint": error.hint, "log": log}))
        continue
    image = frames[-1]
    bright = [image[y, x].tolist() for y in (4, -5) for x in (4, -5)]
    gray = [bool((abs(f[::4, ::4].astype(int) - 128).max(2) < 12).mean() > 0.2) for f in frames]
    different = len({f.tobytes() for f in frames})
    print(json.dumps({"shape": image.shape, "different": different, "bright": bright, "gray": gray, "log": log}))
"""


@pytest.fixture(scope="session")
def jetson(once: Once) -> JetsonLike:
    if why_no_jetson_like():
        pytest.skip(why_no_jetson_like())
    return JetsonLike(once("jetson-like", make_jetson_like))


@pytest.fixture
def sensors(tmp_path: Path) -> Path:
    """The folder that says what each sensor does; there is one, and it works."""
    folder = tmp_path / "sensors"
    folder.mkdir()
    (folder / "0").write_text("on\n")
    return folder


@pytest.fixture
def camera() -> Iterator[RtspServer]:
    if why_no_rtsp():
        pytest.skip(why_no_rtsp())
    with RtspServer() as server:
        yield server


def test_frames_of_a_sensor(jetson: JetsonLike, sensors: Path) -> None:
    """Frames come out of the GPU's memory as BGR, in the sensor's size or in the one asked for, and move; it is opened once."""
    uris = ("csi://0", "csi://0?width=1280&height=720&fps=60&out_width=640")
    full, scaled = map(json.loads, jetson.said(_LOOK, *uris, variables=jetson.variables(sensors)))
    assert (sensors / "0.opened").read_text().splitlines() == ["opened"] * len(uris)
    assert full["shape"] == [1080, 1920, 3]
    assert scaled["shape"] == [360, 640, 3]
    for seen in (full, scaled):
        assert seen["different"] > 6
        assert min(seen["bright"][0]) > 120, "the corner that the sensor shows bright, in each colour"
        assert max(max(corner) for corner in seen["bright"][1:]) < 60


#: Where each of nvvidconv's methods brings the top left corner: 0 and 1 are the upper corners, 2 and 3 the lower ones.
_CORNERS = (0, 2, 3, 1, 1, 3, 2, 0)


@pytest.mark.slow
def test_every_flip_method(jetson: JetsonLike, sensors: Path) -> None:
    """Each method of nvvidconv gives frames of the shape that the pipeline announces, turned as NVIDIA's documentation says."""
    uris = [f"csi://0?width=320&height=180&fps=240&flip={method}" for method in range(8)]
    for method, line in enumerate(jetson.said(_LOOK, *uris, variables=jetson.variables(sensors))):
        seen = json.loads(line)
        assert seen["shape"] == ([320, 180, 3] if method % 2 else [180, 320, 3])
        brightness = [min(corner) for corner in seen["bright"]]
        assert brightness.index(max(brightness)) == _CORNERS[method], method


def test_sensors_that_give_nothing(jetson: JetsonLike, sensors: Path) -> None:
    """A sensor that is not there and one that hangs are errors in time, each with a remedy."""
    (sensors / "2").write_text("hang")
    uris = ("csi://1?timeout=2", "csi://2?timeout=1")
    absent, hanging = map(json.loads, jetson.said(_LOOK, *uris, variables=jetson.variables(sensors)))
    assert absent["error"] == "csi://1 gives no frames"
    assert absent["hint"].startswith(("there is no /dev/video*", "there are "))
    assert hanging["error"] == "csi://2 gave no frame within 2 s"
    assert all("nvargus-daemon" in seen["hint"] for seen in (absent, hanging))


def test_gstreamer_without_the_elements_of_a_jetson(jetson: JetsonLike) -> None:
    """On a desktop csi:// is refused at once: OpenCV would wait for ever for an element that is not there."""
    (line,) = jetson.said(_LOOK, "csi://0", variables=jetson.variables())
    seen = json.loads(line)
    assert seen["error"] == "csi://0: GStreamer has no nvarguscamerasrc here"
    assert "works on a Jetson only" in seen["hint"]


@pytest.mark.parametrize(
    "word", [pytest.param("end", marks=pytest.mark.slow), pytest.param("error", marks=pytest.mark.slow), "hang"]
)
def test_a_run_whose_sensor_fails_and_comes_back(
    jetson: JetsonLike, sensors: Path, tiny_artifacts: dict[str, Artifact], tmp_path: Path, word: str
) -> None:
    """The stream ends, errs or hangs: the run reopens the sensor, numbers continue, and SIGTERM ends it with 0."""
    out = tmp_path / "out.jsonl"
    uri = "csi://0?width=640&height=360&out_width=320&timeout=1"
    command = [
        jetson.python,
        "-m",
        "edge_resnet",
        "run",
        tiny_artifacts["int8"].folder,
        "--source",
        uri,
        "--headless",
        "--jsonl",
        out,
    ]

    def lines() -> list[str]:
        return out.read_text(encoding="ascii").split("\n")[:-1] if out.exists() else []

    with started(command, stderr=subprocess.PIPE, text=True, env=jetson.variables(sensors), cwd=tmp_path) as run:

        def until(held: Callable[[], bool]) -> None:
            deadline = time.monotonic() + 60
            while not held():
                assert time.monotonic() < deadline
                assert run.poll() is None
                time.sleep(0.05)

        until(lambda: len(lines()) >= 5)
        (sensors / "0").write_text(word)
        time.sleep(2.5 if word == "hang" else 0.5)
        before = len(lines())
        (sensors / "0").write_text("on")
        until(lambda: len(lines()) >= before + 5)
        run.send_signal(signal.SIGTERM)
        _, log = run.communicate(timeout=30)
    assert run.returncode == 0, log
    assert "reopening it" in log
    # OpenCV 4.6 does not end a pipeline that fails while it opens, and GStreamer complains of each of its elements.
    assert word == "error" or "CRITICAL" not in log
    numbers = [json.loads(line)["frame"] for line in lines()]
    assert numbers == sorted(set(numbers))
    assert re.search(r"\d+ reconnect", log)


def test_a_network_camera_through_the_decoder_of_a_jetson(jetson: JetsonLike, sensors: Path, camera: RtspServer) -> None:
    """decodebin chooses nvv4l2decoder, whose frames are in the GPU's memory, and nvvidconv brings them out of it."""
    (line,) = jetson.said(_LOOK, camera.url(), variables=jetson.variables(sensors))
    seen = json.loads(line)
    assert seen["shape"] == [240, 320, 3]
    assert seen["different"] > 6
    assert seen["log"] == [f"{camera.url()} is read with GStreamer, the Jetson's decoder, over TCP"]


#: OpenCV's own switch, for a build that has GStreamer and no FFmpeg.
_WITHOUT_FFMPEG = {"OPENCV_VIDEOIO_PRIORITY_FFMPEG": "0"}


@pytest.mark.slow
def test_a_network_camera_through_decodebin(jetson: JetsonLike, camera: RtspServer) -> None:
    """Where OpenCV has no FFmpeg and the machine is no Jetson, decodebin takes its own decoder."""
    (line,) = jetson.said(_LOOK, camera.url(), variables=jetson.variables() | _WITHOUT_FFMPEG)
    seen = json.loads(line)
    assert seen["different"] > 6
    assert seen["log"] == [f"{camera.url()} is read with GStreamer, decodebin, over TCP"]


def test_a_network_camera_on_a_desktop(jetson: JetsonLike, camera: RtspServer) -> None:
    """FFmpeg is preferred to a GStreamer that has no hardware decoder; what the server has not is refused with its reason."""
    seen, refused = map(json.loads, jetson.said(_LOOK, camera.url(), camera.url("/nowhere"), variables=jetson.variables()))
    assert seen["different"] > 6
    assert seen["log"] == [f"{camera.url()} is read with FFmpeg, its own decoders, over TCP"]
    assert "has no stream of that path" in refused["error"]


def test_no_grey_frames_of_a_stream_that_runs_already(jetson: JetsonLike, sensors: Path, camera: RtspServer) -> None:
    """Whoever joins between two key frames gets the next one as the first, not grey frames that a network would classify."""
    code = (
        "import sys; from edge_resnet.streaming.sources import open_source\nfor _ in open_source(sys.argv[1]): print(flush=True)"
    )
    with started(
        [jetson.python, "-c", code, camera.url()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=jetson.variables()
    ) as first:
        assert first.stdout is not None
        first.stdout.readline()
        lines = jetson.said(_LOOK, *[camera.url()] * 4, variables=jetson.variables(sensors))
        first.kill()
    assert len(lines) == 4
    assert all(json.loads(line)["log"][-1].endswith("the Jetson's decoder, over TCP") for line in lines)
    assert not any(any(json.loads(line)["gray"]) for line in lines)


@pytest.mark.parametrize("without", ["rtsp", "libav"])
def test_gstreamer_without_its_plugins(jetson: JetsonLike, camera: RtspServer, tmp_path: Path, without: str) -> None:
    """Debian's OpenCV brings no plugins: without rtspsrc or a decoder GStreamer is not begun, since it would wait for ever."""
    variables = jetson.variables(without=(without,), folder=tmp_path / "plugins") | _WITHOUT_FFMPEG
    (line,) = jetson.said(_LOOK, camera.url(), variables=variables)
    assert json.loads(line)["error"] == f"{camera.url()} has no video that OpenCV can decode here"


_EXAMINE = """
import json, sys
from dataclasses import asdict, replace
from pathlib import Path
from edge_resnet.deployment.doctor.checks import examine
from edge_resnet.device.machine import describe
info = replace(describe(), l4t=sys.argv[1] or None, jetpack="6.2" if sys.argv[1] else None)
print(json.dumps({check.name: asdict(check) for check in examine(Path(sys.argv[2]), info)}))
"""


def test_the_doctor_sees_gstreamer_and_the_elements(jetson: JetsonLike, sensors: Path, tmp_path: Path) -> None:
    """OpenCV is fine on a Jetson if GStreamer has the camera's element; NumPy is never upgraded beyond what this OpenCV takes."""

    def examined(l4t: str, variables: dict[str, str]) -> dict[str, dict[str, str]]:
        (line,) = jetson.said(_EXAMINE, l4t, str(tmp_path), variables=variables)
        checks: dict[str, dict[str, str]] = json.loads(line)
        return checks

    board = examined("36.4.3", jetson.variables(sensors))
    bare = examined("36.4.3", jetson.variables())
    desktop = examined("", jetson.variables())
    for checks in (board, desktop):
        assert checks["opencv"]["status"] == "ok"
        assert re.fullmatch(r"4\.\d+\.\d+ with GStreamer", checks["opencv"]["detail"])
    assert bare["opencv"]["status"] == "problem"
    assert bare["opencv"]["fix"] == "sudo apt-get install -y nvidia-l4t-gstreamer"
    numpy = board["numpy"]
    assert numpy["status"] == "ok" or numpy["fix"].endswith("'numpy>=1.26,<2'")


def test_a_network_camera_that_is_off_costs_nothing(jetson: JetsonLike, sensors: Path) -> None:
    """However often it is tried, no threads and no open files are left: a pipeline that cannot connect is not begun."""
    code = (
        "import os; from edge_resnet.core.errors import SourceError; from edge_resnet.streaming.sources import open_source\n"
        "for attempt in range(15):\n"
        "    try:\n        open_source('rtsp://127.0.0.1:9/x')\n    except SourceError as error:\n        said = error.message\n"
        "    print(said, len(os.listdir('/proc/self/task')), len(os.listdir('/proc/self/fd')), sep='; ')\n"
    )
    lines = jetson.said(code, variables=jetson.variables(sensors))
    assert lines[0].startswith("nothing listens at 127.0.0.1, port 9")
    (early_threads, early_files), (threads, files) = ([int(number) for number in lines[n].split("; ")[1:]] for n in (2, -1))
    # Twelve attempts lay between: half a thread and half a file each was the fault. One that is just ending may be counted.
    assert threads <= early_threads + 2
    assert files <= early_files + 2
