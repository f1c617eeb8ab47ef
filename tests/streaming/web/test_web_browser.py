"""The page in a real browser: it shows the run, updates, reconnects, fits a phone, and requests nothing from other hosts."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import chromium
from webstage import LABELS, TOKEN, Script, ask, prediction, served, source, until

from edge_resnet.streaming.records import Answer, Frame
from edge_resnet.streaming.web import WebSink

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CSS = Path(__file__).resolve().parents[3] / "edge_resnet/streaming/web/static/page.css"
CAMERAS = (source("camera:0"), source("camera:1"), source("camera:2", "reconnecting"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def script() -> Script:
    script = Script()
    script.change(sources=CAMERAS)
    return script


@pytest.fixture
def sink(script: Script) -> Iterator[WebSink]:
    with served(script) as opened, filmed(opened, lambda index: int(index >= 0)):
        yield opened


@contextmanager
def filmed(sink: WebSink, best: Any) -> Iterator[None]:
    """Two cameras at twenty frames per second: a light one with the answer ``best``, and a dark one that always shows a cup."""
    stop = threading.Event()

    def film() -> None:
        index = 0
        while not stop.wait(0.05):
            light = Frame(np.full((90, 160, 3), 200, np.uint8), index, time.monotonic_ns(), "camera:0")
            dark = Frame(np.full((90, 120, 3), 30, np.uint8), index, time.monotonic_ns(), "camera:1")
            sink.write(prediction(index, best(index)), light)
            sink.write(prediction(index, 4, "camera:1", Answer(-1, "unknown", 0.31, False)), dark)
            index += 1

    thread = threading.Thread(target=film)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def visit(browser: Chrome, url: str) -> None:
    """Load the page, and clear the browser's log."""
    browser.get("about:blank")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(url)


def text(browser: Chrome, selector: str) -> str:
    return str(browser.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))


def shown(browser: Chrome, selector: str) -> bool:
    return bool(browser.execute_script("return Boolean(document.querySelector(arguments[0])?.checkVisibility())", selector))


def pixel(browser: Chrome) -> list[int]:
    """The colour in the middle of the live frame, [-1] if there is none."""
    code = """const image = document.getElementById("image");
        if (image.hidden || !image.naturalWidth) return [-1];
        const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
        const pen = canvas.getContext("2d");
        pen.drawImage(image, image.naturalWidth / 2, image.naturalHeight / 2, 1, 1, 0, 0, 1, 1);
        return [...pen.getImageData(0, 0, 1, 1).data]"""
    return list(browser.execute_script(code))


def complaints(browser: Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_it_shows_image_answer_and_health(browser: Chrome, sink: WebSink) -> None:
    """The newest frame, the best class with its bars, and each camera's state as text; no error in the console."""
    visit(browser, sink.url)
    assert until(lambda: 190 < pixel(browser)[0] < 210)
    assert until(lambda: text(browser, "#answer") == LABELS[1])
    assert text(browser, "#sureness") == "60.0 % probability"
    rows = browser.execute_script(
        "return [...document.querySelectorAll('#bars li')].map(row => [row.innerText, row.querySelector('.fill').style.width])"
    )
    assert [width for _, width in rows] == ["60%", "20%", "10%", "6%", "4%"]
    assert rows[0][0].split("\n") == [LABELS[1], "60.0 %"]
    assert until(lambda: "Reconnecting" in text(browser, "#cameras"))
    assert "Live" in text(browser, "#cameras")
    assert "the disk is full" in text(browser, "#outputs")
    assert text(browser, "#connection") == "Connected"
    assert until(lambda: text(browser, "#latency .now") == "6.6 ms")
    assert text(browser, "#rate .now") == "29.5"
    assert until(lambda: browser.execute_script("return document.querySelector('#rate .line').getAttribute('d')").count("L") >= 2)
    assert complaints(browser) == []


def test_no_request_leaves_the_host(browser: Chrome, sink: WebSink) -> None:
    """All requests of the page go to this server."""
    visit(browser, sink.url)
    assert until(lambda: text(browser, "#answer") == LABELS[1])
    log = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {entry["params"]["request"]["url"] for entry in log if entry["method"] == "Network.requestWillBeSent"}
    assert {urlsplit(url).path for url in asked} >= {"/", "/static/page.css", "/static/page.js", "/api/status", "/stream/0.mjpeg"}
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(sink.url).netloc}


def test_bars_move_when_the_answer_changes(browser: Chrome, script: Script) -> None:
    """Within a moment, and it is announced once: the text of the live region changes only with the answer."""
    seen = threading.Event()
    with served(script) as sink, filmed(sink, lambda _: 2 if seen.is_set() else 1):
        visit(browser, sink.url)
        assert until(lambda: text(browser, "#answer") == LABELS[1])
        browser.execute_script(
            "window.spoken = 0; new MutationObserver(() => window.spoken++)"
            ".observe(document.getElementById('answer'), {childList: true, characterData: true, subtree: true})"
        )
        time.sleep(1.0)
        assert browser.execute_script("return window.spoken") == 0
        seen.set()
        assert until(lambda: text(browser, "#answer") == LABELS[2])
        assert text(browser, "#bars li:first-child .label") == LABELS[2]
        assert browser.execute_script("return window.spoken") == 1
        live = "return [...document.querySelectorAll('[aria-live], output, [role=status]')].map(one => one.id)"
        assert browser.execute_script(live) == ["answer"]


def test_another_camera_is_chosen_with_the_keyboard(browser: Chrome, sink: WebSink) -> None:
    """With Tab and an arrow; frame, answer and title are then that camera's, and an answer without a class is unknown."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    visit(browser, sink.url)
    assert until(lambda: 190 < pixel(browser)[0] < 210)
    ActionChains(browser).send_keys(Keys.TAB).perform()
    outline = "return getComputedStyle(document.querySelector('#choice input:focus-visible + span')).outlineStyle"
    assert browser.execute_script(outline) == "solid"
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT).perform()
    assert until(lambda: 20 < pixel(browser)[0] < 40)
    assert until(lambda: text(browser, "#answer") == "unknown")
    assert text(browser, "#sureness") == "No class is probable enough"
    assert text(browser, "#view-title") == "camera:1"
    assert browser.execute_script("return document.getElementById('image').alt") == "Live frames of camera:1"
    browser.find_elements("css selector", "#choice span")[2].click()
    assert until(lambda: shown(browser, "#no-image"))
    assert text(browser, "#answer") == "No answer yet"
    assert text(browser, "#caption") == "Reconnecting"


def test_a_lost_connection_is_shown_and_restored(browser: Chrome, script: Script) -> None:
    """The banner shows while the server is away; when it is back on its port everything continues without a click."""
    with served(script) as first, filmed(first, lambda _: 1):
        visit(browser, first.url)
        assert until(lambda: 190 < pixel(browser)[0] < 210)
        assert not shown(browser, "#banner")
    assert until(lambda: shown(browser, "#banner"))
    assert text(browser, "#connection") == "Not connected"
    assert text(browser, "#no-image") == "No frame"
    assert text(browser, "#caption") == "Not connected"
    with WebSink(urlsplit(first.url).netloc, script) as second, filmed(second, lambda _: 3):
        assert until(lambda: not shown(browser, "#banner"))
        assert until(lambda: text(browser, "#answer") == LABELS[3])
        assert until(lambda: 190 < pixel(browser)[0] < 210)
        browser.get("about:blank")


def test_a_hidden_page_keeps_no_stream(browser: Chrome, sink: WebSink) -> None:
    """A browser opens six connections to a server: hidden tabs must not use them up. Shown again, it continues."""
    hide = """Object.defineProperty(document, "hidden", {configurable: true, get: () => window.away});
        document.dispatchEvent(new Event("visibilitychange"))"""
    visit(browser, sink.url)
    assert until(lambda: 190 < pixel(browser)[0] < 210)
    browser.execute_script("window.away = true;" + hide)
    assert until(lambda: _open_streams(sink) == [0, 0])
    browser.execute_script("window.away = false;" + hide)
    assert until(lambda: _open_streams(sink) == [1, 1])
    assert until(lambda: 190 < pixel(browser)[0] < 210)


def _open_streams(sink: WebSink) -> list[float]:
    lines = ask(sink.url, "/metrics").text.splitlines()
    return [float(line.split()[-1]) for line in lines if line.startswith("edge_resnet_web_clients{")]


def test_a_camera_that_is_gone_makes_its_answer_an_old_one(browser: Chrome, script: Script, sink: WebSink) -> None:
    """Title, caption and alternative text say so."""
    visit(browser, sink.url)
    assert until(lambda: 190 < pixel(browser)[0] < 210)
    gone = replace(source("camera:0", "reconnecting"), last_frame_age_s=37.0, error="connection refused")
    script.change(sources=(gone, *CAMERAS[1:]))
    assert until(lambda: text(browser, "#caption") == "Reconnecting, last frame 37 s ago")
    assert text(browser, "#answer-title") == "Last answer"
    assert "connection refused" in text(browser, "#cameras")
    assert browser.execute_script("return document.getElementById('image').alt") == "Last frame of camera:0"


@pytest.mark.parametrize("width", [320, pytest.param(390, marks=pytest.mark.slow), 768])
def test_it_fits_a_phone(browser: Chrome, script: Script, sink: WebSink, width: int) -> None:
    """At 320 pixels nothing scrolls sideways, not even with long names and labels."""
    long = replace(source("rtsp://camera-with-a-very-long-name.example/stream/of/the/loading/dock", "failed"), error="x" * 200)
    script.change(sources=(*CAMERAS, long), artifact="resnet152-int8-with-a-rather-long-name-of-its-own-and-no-spaces-in-it")
    visit(browser, sink.url)
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    assert until(lambda: text(browser, "#answer") == LABELS[1] and "xxx" in text(browser, "#cameras"))
    assert browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [width, width]


def test_it_follows_the_preferences_of_the_system(browser: Chrome, sink: WebSink) -> None:
    """Light and dark colours; no animated bars if reduced motion is preferred."""
    visit(browser, sink.url)
    assert until(lambda: text(browser, "#answer") == LABELS[1])

    def look(scheme: str, motion: str) -> tuple[float, float, str]:
        features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": motion}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        ground, ink, glide = browser.execute_script(
            "const body = getComputedStyle(document.body), fill = getComputedStyle(document.querySelector('.fill'));"
            "return [body.backgroundColor, body.color, fill.transitionDuration]"
        )
        return _light(ground), _light(ink), glide

    assert look("light", "no-preference") == (pytest.approx(244, abs=8), pytest.approx(28, abs=12), "0.15s")
    assert look("dark", "reduce") == (pytest.approx(19, abs=8), pytest.approx(236, abs=10), "0s")


def _light(colour: str) -> float:
    return float(np.mean([float(part) for part in re.findall(r"[\d.]+", colour)[:3]]))


def test_the_page_has_landmarks_headings_and_names(browser: Chrome, sink: WebSink) -> None:
    """One h1, no level skipped, every region named, every control labelled."""
    visit(browser, sink.url)
    assert until(lambda: text(browser, "#answer") == LABELS[1])
    found = browser.execute_script(
        """return {
            levels: [...document.querySelectorAll("h1, h2, h3")]
                .filter((one) => one.checkVisibility()).map((one) => +one.tagName[1]),
            marks: ["header", "main", "footer"].map((name) => document.querySelectorAll(name).length),
            regions: [...document.querySelectorAll("section")].map(
                (one) => document.getElementById(one.getAttribute("aria-labelledby"))?.textContent ?? ""),
            nameless: [...document.querySelectorAll("input")].filter((one) => !one.labels[0]?.innerText).length,
            heads: [...document.querySelectorAll("th")].filter((one) => !one.scope).length,
            language: document.documentElement.lang,
        }"""
    )
    assert found["levels"][0] == 1
    assert found["levels"].count(1) == 1
    assert all(after - before <= 1 for before, after in zip(found["levels"], found["levels"][1:], strict=False))
    assert found["marks"] == [1, 1, 1]
    assert all(found["regions"])
    assert (found["nameless"], found["heads"], found["language"]) == (0, 0, "en")


def test_signing_in(browser: Chrome, script: Script) -> None:
    """The form rejects a wrong token with a message, accepts the right one, and the page works with the cookie alone."""
    with served(script, token=TOKEN) as sink, filmed(sink, lambda _: 1):
        visit(browser, sink.url)
        browser.find_element("id", "token").send_keys("not-the-token")
        browser.find_element("css selector", "button").click()
        assert until(lambda: text(browser, "#wrong") == "This is not the token.")
        browser.find_element("id", "token").send_keys(TOKEN)
        browser.find_element("css selector", "button").click()
        assert until(lambda: text(browser, "#answer") == LABELS[1])
        assert until(lambda: 190 < pixel(browser)[0] < 210)
        assert TOKEN not in str(
            browser.execute_script("return document.cookie + location.href + document.documentElement.outerHTML")
        )
        browser.get("about:blank")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(scheme: str) -> None:
    """The contrast of every text colour on its background is at least 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    blocks = re.findall(r":root \{(.*?)\}", CSS.read_text(encoding="utf-8"), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[("light", "dark").index(scheme)]))
    pairs = [(ink, ground) for ink in ("text", "quiet", "good", "bad") for ground in ("ground", "card")]
    pairs += [("wait", "card"), ("wait", "ground"), ("accent", "card"), ("on-bad", "bad"), ("card", "accent"), ("quiet", "empty")]
    poor = {pair: ratio for pair in pairs if (ratio := _contrast(colours[pair[0]], colours[pair[1]])) < 4.5}
    assert poor == {}


def _contrast(one: str, other: str) -> float:
    first, second = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (first + 0.05) / (second + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
