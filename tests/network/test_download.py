"""Downloads from a real server on loopback: complete and with the right hash, or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edge_resnet.core.errors import WeightsError
from edge_resnet.network.pretrained import download

BODY = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(BODY).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """/whole serves the body, /short announces more than it sends, anything else is a 404."""

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY if self.path == "/whole" else BODY[: len(BODY) // 3])

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The server's base URL."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_the_file_arrives_whole_with_progress(server: str, tmp_path: Path) -> None:
    """The bytes are the server's; progress rises to the length that was announced."""
    calls: list[tuple[str, int, int]] = []
    path = download(f"{server}/whole", tmp_path / "deep" / "w.bin", DIGEST[:8], progress=lambda *call: calls.append(call))
    assert path.read_bytes() == BODY
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert calls[-1] == ("download", len(BODY), len(BODY))
    assert [entry.name for entry in path.parent.iterdir()] == ["w.bin"]


def test_a_cached_file_needs_no_network(tmp_path: Path) -> None:
    """A cached file with the right hash is used without a download."""
    target = tmp_path / "w.bin"
    target.write_bytes(BODY)
    assert download("http://127.0.0.1:9/never", target, DIGEST[:8]) == target


def test_a_damaged_cached_file_is_named(tmp_path: Path) -> None:
    """A cached file with another hash is neither used nor replaced; the hint is the command that removes it."""
    target = tmp_path / "w.bin"
    target.write_bytes(BODY[:-1])
    with pytest.raises(WeightsError, match="damaged") as caught:
        download("http://127.0.0.1:9/never", target, DIGEST[:8])
    assert str(target) in caught.value.hint


@pytest.mark.parametrize(("name", "prefix"), [("whole", "deadbeef"), ("short", DIGEST[:8]), ("missing", DIGEST[:8])])
def test_nothing_is_left_of_a_failed_download(server: str, tmp_path: Path, name: str, prefix: str) -> None:
    """A wrong hash, an incomplete response and a 404 are errors that name the URL, and leave no file."""
    with pytest.raises(WeightsError) as caught:
        download(f"{server}/{name}", tmp_path / "w.bin", prefix)
    assert f"{server}/{name}" in caught.value.message
    assert "--weights" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    """It has the URL, the path in the cache and the option for a file."""
    with pytest.raises(WeightsError) as caught:
        download("http://127.0.0.1:9/w.bin", tmp_path / "w.bin", "00")
    assert "http://127.0.0.1:9/w.bin" in caught.value.message
    assert str(tmp_path / "w.bin") in caught.value.hint
    assert "--weights" in caught.value.hint
    assert caught.value.exit_code == 2


def test_an_interrupted_download_leaves_nothing(server: str, tmp_path: Path) -> None:
    """Ctrl-C during a download removes the partial file."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(f"{server}/whole", tmp_path / "w.bin", DIGEST[:8], progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_cannot_be_written(server: str, tmp_path: Path) -> None:
    """A cache folder that is a file is an error of the same kind, not a traceback."""
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(WeightsError):
        download(f"{server}/whole", tmp_path / "cache" / "w.bin", DIGEST[:8])
