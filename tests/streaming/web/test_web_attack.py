"""A hostile web client: it gets no 500, stops no health check, fills no log and keeps no descriptor."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webattacks import ATTACKS, Target, raw
from webstage import TOKEN, ask, frame, prediction, served, until

from edge_resnet.streaming.web import WebSink, limits

#: What an attack may be answered: 200 and 303 for what is open to everyone, refusals, and nothing.
EXPECTED = {0, 200, 303, 400, 401, 403, 404, 405, 408, 413, 429, 431, 503}


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextmanager
def _health_checks(target: Target) -> Iterator[Counter[int]]:
    """Ask for the health ten times a second meanwhile; the status codes."""
    seen, stop = Counter[int](), threading.Event()

    def check() -> None:
        while not stop.wait(0.1):
            seen[raw(target, target.request("GET", "/healthz", "Connection: close\r\n"))] += 1

    thread = threading.Thread(target=check)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def attacked(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebSink]:
    """A server with a token, few places and little patience, so that the attacks are short."""
    monkeypatch.setattr(limits, "HEADER_S", 0.3)
    monkeypatch.setattr(limits, "limits_for", lambda descriptors: limits.Limits(16, 8, 4))
    with served(token=TOKEN) as sink:
        sink.write(prediction(), frame())
        yield sink


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_changes_nothing(attacked: WebSink, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each attack for a moment: no 500, no traceback, at most a warning and an error in the log, health checks answered, and no
    descriptor left."""
    parts = urlsplit(attacked.url)
    target = Target(parts.hostname or "", parts.port or 0, 30)
    ask(attacked.url, "/healthz")
    before = _descriptors(os.getpid())
    with caplog.at_level(logging.WARNING), _health_checks(target) as health:
        answers = Counter(ATTACKS[name](target, 0.15))
    assert set(answers) <= EXPECTED
    assert set(health) <= {200}
    assert len(caplog.records) <= 2
    assert not [record for record in caplog.records if record.exc_info or "\n" in record.getMessage()]
    assert until(lambda: _descriptors(os.getpid()) <= before + 2)
    assert ask(attacked.url, "/api/status", headers={"Authorization": f"Bearer {TOKEN}"}).status == 200


_TEXT = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=30)
_NAMES = st.sampled_from(
    ("Host", "Origin", "Cookie", "Authorization", "Content-Length", "Expect", "Transfer-Encoding", "Upgrade")
)
_VALUES = st.sampled_from(("chunked", "100-continue", "Bearer x", "null", "9" * 5000, "http://[")) | _TEXT
_METHODS = st.sampled_from(("GET", "POST", "HEAD", "OPTIONS", "get", "")) | _TEXT
_PATHS = (
    st.sampled_from(("/login", "/api/status", "/stream/0.mjpeg", "/api/predictions?max_per_s=", "/static/", "*", "//")) | _TEXT
)


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    """A server for many requests."""
    with served(token=TOKEN) as sink:
        parts = urlsplit(sink.url)
        yield Target(parts.hostname or "", parts.port or 0, 1)


@given(_METHODS, _PATHS, st.lists(st.tuples(_NAMES, _VALUES), max_size=4), st.binary(max_size=40))
def test_any_request_is_answered_or_refused(
    target: Target, method: str, path: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    """Whatever a request consists of, its answer is one of those expected, or the connection is closed."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    data = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{lines}\r\n".encode("latin-1") + body
    assert raw(target, data, 0.2) in EXPECTED | {100}


def _fewer_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))


def _resident_mib(pid: int) -> float:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))[0]) / 1024


@pytest.mark.slow
@pytest.mark.alone
def test_a_run_under_every_attack(tiny_int8: Path, tmp_path: Path) -> None:
    """A real run with 1,024 descriptors, twice through all attacks with 1,100 connections: it keeps its rate within 5 % and its
    memory within 32 MiB, writes at most 20 lines a minute, and ends in 2 s."""
    log, predictions = tmp_path / "log", tmp_path / "out.jsonl"
    options = f"--web 127.0.0.1:0 --source synthetic://?fps=20&frames=0 --jsonl {predictions} --headless"
    with log.open("w") as stderr:
        command = [sys.executable, "-m", "edge_resnet", "run", str(tiny_int8), *options.split()]
        environment = {**os.environ, "EDGE_RESNET_WEB_TOKEN": TOKEN}
        run = subprocess.Popen(command, stderr=stderr, env=environment, preexec_fn=_fewer_descriptors)
    try:
        assert until(lambda: "the page is at" in log.read_text(encoding="utf-8"), 30)
        target = Target("127.0.0.1", int(re.findall(r"127\.0\.0\.1:(\d+)", log.read_text(encoding="utf-8"))[0]), 1100)
        assert until(lambda: raw(target, target.request("GET", "/readyz")) == 200)
        quiet = _rate(predictions, 5.0)
        _all_attacks(target)
        assert run.poll() is None, log.read_text(encoding="utf-8")
        before, memory, began = _descriptors(run.pid), _resident_mib(run.pid), time.monotonic()
        first = _count(predictions)
        answers, health = _all_attacks(target)
        rate = (_count(predictions) - first) / (time.monotonic() - began)
        assert set(answers) <= EXPECTED
        assert set(health) <= {200}
        assert rate >= 0.95 * quiet
        assert until(lambda: _descriptors(run.pid) <= before + 2, 20)
        assert _resident_mib(run.pid) <= memory + 32
        run.send_signal(signal.SIGTERM)
        ended = time.monotonic()
        assert run.wait(30) == 0
        assert time.monotonic() - ended < 2
        lines = log.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 20
        assert "Traceback" not in "".join(lines)
        assert all(json.loads(line) for line in predictions.read_text(encoding="utf-8").splitlines())
    finally:
        run.kill()
        run.wait()


def _all_attacks(target: Target) -> tuple[Counter[int], Counter[int]]:
    answers = Counter[int]()
    with _health_checks(target) as health:
        for attack in ATTACKS.values():
            answers.update(attack(target, 2.0))
    return answers, health


def _count(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def _rate(path: Path, seconds: float) -> float:
    first, began = _count(path), time.monotonic()
    time.sleep(seconds)
    return (_count(path) - first) / (time.monotonic() - began)
