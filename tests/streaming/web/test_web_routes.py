"""Every route, over real HTTP: the page, frames, predictions, status, health."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from webstage import Reader, Script, ask, frame, prediction, served, source, until

from edge_resnet.streaming.records import Answer, Frame, SinkStatus
from edge_resnet.streaming.web import WebSink


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def sink(script: Script) -> Iterator[WebSink]:
    with served(script) as opened:
        yield opened


@pytest.fixture(scope="module")
def calm() -> Iterator[WebSink]:
    """For tests that only read."""
    with served() as opened:
        yield opened


def test_the_page_and_its_files_are_served(calm: WebSink) -> None:
    """One HTML page, one style sheet, one script, one icon, each with its type."""
    page = ask(calm.url)
    assert page.status == 200
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        assert f"/static/{name}" in page.text or name == "icon.svg"
        found = ask(calm.url, f"/static/{name}")
        assert found.status == 200
        assert found.headers["content-type"].startswith(kind)


def test_the_page_requests_nothing_from_other_hosts(calm: WebSink) -> None:
    """None of its files contains an address of another host; the icon's namespace is only a name."""
    for path in ("/", "/static/page.css", "/static/page.js"):
        text = ask(calm.url, path).text
        assert "http://" not in text
        assert "https://" not in text
        assert "<script>" not in text
        assert "style=" not in text


@pytest.mark.parametrize(
    "path",
    [
        "/static/../api.py",
        "/static/..%2fapi.py",
        "/static/%2e%2e/api.py",
        "/static//etc/passwd",
        "/static/page.html",
        "/static/",
        "/nothing",
        "/stream/0",
        "/stream/-1.mjpeg",
        "/stream/x.mjpeg",
        "/stream/1.mjpeg",
        "/stream/%C2%B2.mjpeg",
        f"/stream/{'9' * 5000}.mjpeg",
        "/login",
        "//",
        "/api/status/",
    ],
)
def test_what_is_not_there_is_404(calm: WebSink, path: str) -> None:
    """No path leads out of the page's files, and an unknown source has no stream."""
    assert ask(calm.url, path).status == 404


@pytest.mark.parametrize("path", ["/", "/api/status", "/metrics", "/api/predictions", "/stream/0.mjpeg"])
def test_nothing_is_changed_over_http(calm: WebSink, path: str) -> None:
    """Every route only reads; other methods are 405."""
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert ask(calm.url, path, method=method).status == 405


@pytest.mark.parametrize("path", ["/", "/api/predictions", "/stream/0.mjpeg", "/healthz"])
def test_head_has_no_end_to_wait_for(calm: WebSink, path: str) -> None:
    """HEAD of a stream returns its headers."""
    answer = ask(calm.url, path, method="HEAD")
    assert answer.status == 200
    assert answer.body == b""


def test_the_image_is_the_newest(sink: WebSink) -> None:
    """A client gets the newest frame as a JPEG of its colour (BGR in, RGB out), then the next one."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[..., 0] = 200  # blue
    sink.write(prediction(0), Frame(image, 0, 0, "camera:0"))
    with Reader(sink.url, "/stream/0.mjpeg") as reader:
        assert reader.answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        first = Image.open(io.BytesIO(reader.image()))
        assert first.size == (64, 48)
        red, green, blue = first.getpixel((30, 20))
        assert blue > 180
        assert red < 20
        assert green < 20
        sink.write(prediction(1), frame(1, grey=250))
        second = Image.open(io.BytesIO(reader.image()))
        assert min(second.getpixel((30, 20))) > 240


def test_a_big_image_is_scaled_down(sink: WebSink) -> None:
    """1920 x 1080 is sent as 960 x 540; a view with negative strides is read correctly, too."""
    big = np.zeros((1080, 1920, 3), np.uint8)
    big[:, :960] = (10, 20, 240)
    sink.write(prediction(0), Frame(big[:, ::-1], 0, 0, "camera:0"))
    with Reader(sink.url, "/stream/0.mjpeg") as reader:
        image = Image.open(io.BytesIO(reader.image()))
    assert image.size == (960, 540)
    assert image.getpixel((900, 270))[0] > 200
    assert image.getpixel((50, 270))[0] < 20


def test_an_image_comes_at_most_ten_times_a_second(sink: WebSink) -> None:
    """However fast frames arrive, and each is newer than the one before."""
    with Reader(sink.url, "/stream/0.mjpeg") as reader:
        for index in range(5):
            sink.write(prediction(index), frame(index))
        reader.image()
        began = time.monotonic()
        images = []
        for index in range(5):
            sink.write(prediction(index), frame(index, grey=100 + 20 * index))
            images.append(reader.image())
        assert time.monotonic() - began >= 0.4
    greys = [Image.open(io.BytesIO(jpeg)).getpixel((5, 5))[0] for jpeg in images]
    assert greys == sorted(greys)


def test_files_of_a_folder_belong_to_the_folder(script: Script, sink: WebSink) -> None:
    """Each image of a folder has its own name; the page shows them as one source."""
    script.change(sources=(source("photos"), source("photos/door"), source("camera:0")))
    assert until(lambda: len(ask(sink.url, "/api/status").json()["sources"]) == 3)
    sink.write(prediction(0, name="photos/door/a.jpg"), frame(0, "photos/door/a.jpg"))
    sink.write(prediction(0, name="photos/b.jpg"), frame(0, "photos/b.jpg"))
    sink.write(prediction(0, name="elsewhere/c.jpg"), frame(0, "elsewhere/c.jpg"))
    with Reader(sink.url, "/api/predictions") as reader:
        seen = [reader.data() for _ in range(2)]
    assert [(event["source"], event["source_index"]) for event in seen] == [("photos/door/a.jpg", 1), ("photos/b.jpg", 0)]


def test_predictions_come_as_events(sink: WebSink) -> None:
    """The newest first, then each as it comes, with all fields of the prediction and the index of its source."""
    sink.write(prediction(0), frame(0))
    sink.write(prediction(1, best=1), frame(1))
    with Reader(sink.url, "/api/predictions", {"Last-Event-ID": "77"}) as reader:
        assert reader.answer.headers["content-type"].startswith("text/event-stream")
        assert reader.data()["frame"] == 1
        sink.write(prediction(2, answer=Answer(-1, "unknown", 0.3, True)), frame(2))
        event = reader.event()
    content = json.loads(event["data"])
    assert event["id"] == "3"
    assert content["source_index"] == 0
    assert content["answer"] == {"class_index": -1, "label": "unknown", "probability": 0.3, "changed": True}
    fields = {"source", "frame", "captured_ns", "age_ms", "top", "stages_ms", "wall_ns"}
    assert fields < set(content)
    assert set(content) == fields | {"answer", "source_index"}
    assert content["top"][0] == {"class_index": 0, "label": "coffee mug", "probability": 0.6}


def test_on_change_only_changes_come(sink: WebSink) -> None:
    """Of many predictions the first one, and those whose answer differs; the smoothed answer takes precedence over the best
    class."""
    with Reader(sink.url, "/api/predictions?on_change=1") as reader:
        reader.joined()
        for index, best in enumerate((0, 0, 1, 1, 1, 0)):
            sink.write(prediction(index, best), frame(index))
        held = Answer(4, "cup", 0.5, False)
        for index in (6, 7, 8):
            sink.write(prediction(index, best=index % 3, answer=held), frame(index))
        assert [reader.data()["frame"] for _ in range(4)] == [0, 2, 5, 6]


def test_a_rate_thins_out_but_not_changes(sink: WebSink) -> None:
    """At one per second, a burst is reduced to its first event and all changes."""
    with Reader(sink.url, "/api/predictions?max_per_s=1") as reader:
        reader.joined()
        for index in range(20):
            sink.write(prediction(index, best=int(index >= 15)), frame(index))
        assert [reader.data()["frame"] for _ in range(2)] == [0, 15]


@pytest.mark.parametrize(
    "query", ["on_change=2", "on_change=yes", "max_per_s=-1", "max_per_s=1e3", "max_per_s=%C2%B2", "max_per_s=1234567"]
)
def test_an_invalid_query_is_400(calm: WebSink, query: str) -> None:
    """The response says what is allowed."""
    assert ask(calm.url, f"/api/predictions?{query}").status == 400


def test_the_status_is_the_runs(script: Script, sink: WebSink) -> None:
    """All its fields and the version; numbers that are not finite are null, invalid text is escaped."""
    script.change(frames_per_s=float("nan"), sinks=(SinkStatus("jsonl", 1, 2, "name \udcff"),))
    assert until(lambda: ask(sink.url, "/api/status").json()["frames_per_s"] is None)
    content = ask(sink.url, "/api/status").json()
    assert content["artifact"] == "resnet50-int8"
    assert content["version"]
    assert content["sources"][0]["state"] == "live"
    assert content["latency"]["p99_ms"] == 9.0
    assert content["sinks"][0] == {"name": "jsonl", "written": 1, "lost": 2, "error": "name \udcff"}


def test_many_pages_ask_the_run_a_few_times(script: Script, sink: WebSink) -> None:
    """Forty requests in a burst cause one or a few calls."""
    asked, began = script.asked, time.monotonic()
    for _ in range(40):
        ask(sink.url, "/api/status")
    assert script.asked - asked <= 2 + (time.monotonic() - began) / 0.25


def test_ready_is_what_the_run_says(script: Script, sink: WebSink) -> None:
    """200 or 503, with a reason."""
    assert ask(sink.url, "/readyz").status == 200
    script.change(ready=False)
    assert until(lambda: ask(sink.url, "/readyz").status == 503)
    assert ask(sink.url, "/readyz").text.startswith("not ready")


def test_a_run_that_began_is_healthy(sink: WebSink) -> None:
    """Even before the first prediction."""
    answer = ask(sink.url, "/healthz")
    assert (answer.status, answer.text) == (200, "ok\n")
