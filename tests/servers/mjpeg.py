"""An MJPEG camera from http.server and Pillow. Each fault is a path, so that one server has all of them."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["SIZE", "MjpegServer", "brightness", "claim_size", "jpeg", "repeat_scan"]

Painter = Callable[[int], npt.NDArray[np.uint8]]

#: Width and height of the default image.
SIZE = (64, 48)


def brightness(index: int) -> int:
    """The brightness of the default image ``index``, which identifies up to 40 of them."""
    return 6 * (index % 40)


def jpeg(image: npt.NDArray[np.uint8]) -> bytes:
    """The image (H, W, 3) RGB as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def claim_size(image: bytes, width: int, height: int) -> bytes:
    """The same JPEG with another size in its header."""
    at = re.search(rb"\xff\xc0..\x08", image, re.DOTALL)
    assert at is not None
    return image[: at.end()] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + image[at.end() + 4 :]


def repeat_scan(count: int) -> bytes:
    """A small progressive JPEG with ``count`` more scans than usual."""
    buffer = io.BytesIO()
    Image.fromarray(_grey(7)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    return data[:-2] + data[data.rfind(b"\xff\xda") : -2] * count + b"\xff\xd9"


class MjpegServer:
    """Serves at ``url(path)`` with ``fps`` frames per second; image i is ``paint(i)`` (H, W, 3) RGB, counted per request.

    Paths: /stream; /plain has no lengths, /dashes has dashes in the header's boundary, /chunked is chunked. Every third image is
    cut short in /cut, shorter than its length in /lying, not an image in /garbage, of 65,500 x 65,500 pixels in /huge, has 40,000
    scans in /scans. /stall
    ends sending after five images, /drip sends a byte now and then, /endless an image without an end, /giant one that announces
    100 GB, /short two images. /silent does not answer, /image is a single image, /moved redirects. Any other path is not found.
    ``login``: user and password, with Digest if ``digest``. ``tls``: https with its certificate. ``readers``: the number of
    requests so far.
    """

    def __init__(
        self,
        *,
        fps: float = 50,
        paint: Painter | None = None,
        login: tuple[str, str] | None = None,
        digest: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.fps, self.login, self.digest, self.tls = fps, login, digest, tls
        self.paint = paint or _grey
        self.readers = 0
        self.port = 0
        self.flowing = threading.Event()
        self.flowing.set()
        self.running = False
        self._server: _Server | None = None

    def url(self, path: str = "/stream", login: str = "") -> str:
        """The address of a path, with ``login`` (``user:password``) if given."""
        return f"{'https' if self.tls else 'http'}://{login + '@' if login else ''}127.0.0.1:{self.port}{path}"

    def start(self) -> MjpegServer:
        """Listen, on the previous port if there was one."""
        self._server = _Server(self)
        self.port = self._server.server_address[1]
        self.running = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        """End every connection and stop listening."""
        self.running = False
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.hang_up()
            self._server = None

    def restart(self) -> None:
        """Stop and listen again on the same port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop sending on all connections, but keep them."""
        self.flowing.clear()

    def resume(self) -> None:
        """Continue sending."""
        self.flowing.set()

    def __enter__(self) -> MjpegServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.resume()
        self.stop()


def _grey(index: int) -> npt.NDArray[np.uint8]:
    return np.full((SIZE[1], SIZE[0], 3), brightness(index), np.uint8)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, camera: MjpegServer) -> None:
        self.camera = camera
        self.connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", camera.port), _Handler)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        tls = self.camera.tls
        return (connection if tls is None else tls.wrap_socket(connection, server_side=True)), address

    def hang_up(self) -> None:
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that disconnects is not an error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def setup(self) -> None:
        self.server.connections.add(self.request)
        super().setup()

    def finish(self) -> None:
        self.server.connections.discard(self.request)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's signature
        """Log nothing."""

    def do_GET(self) -> None:
        camera = self.server.camera
        if camera.login is not None and not self._is_allowed():
            self.send_response(401)
            digest = 'Digest realm="camera", nonce="abc", qop="auth", opaque="o"'
            self.send_header("WWW-Authenticate", digest if camera.digest else 'Basic realm="camera"')
            self.end_headers()
            return
        camera.readers += 1
        path = self.path.partition("?")[0]
        if path == "/silent":
            self._wait(30)
        elif path == "/image":
            self._head("image/jpeg")
            self.wfile.write(jpeg(camera.paint(0)))
        elif path == "/moved":
            self.send_response(302)
            self.send_header("Location", f"http://user:hunter2@127.0.0.1:{camera.port}/stream")
            self.end_headers()
        elif path[1:] in _WAYS:
            self._stream(path[1:])
        else:
            self.send_error(404)

    def _stream(self, way: str) -> None:
        word = "--images" if way == "dashes" else "images"
        self.protocol_version = "HTTP/1.1" if way == "chunked" else "HTTP/1.0"
        self._head(f"multipart/x-mixed-replace; boundary={word}", chunked=way == "chunked")
        for piece in _pieces(way, self.server.camera.paint):
            data = piece if way != "chunked" else b"%x\r\n%s\r\n" % (len(piece), piece)
            self.server.camera.flowing.wait(60)
            self.wfile.write(data)
            if way != "endless":
                self._wait(1 / self.server.camera.fps)
            if not self.server.camera.running:
                return

    def _head(self, kind: str, *, chunked: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _wait(self, seconds: float) -> None:
        """Wait, but not beyond the end of the server."""
        end = threading.Event()
        while seconds > 0 and self.server.camera.running:
            end.wait(min(seconds, 0.1))
            seconds -= 0.1

    def _is_allowed(self) -> bool:
        camera = self.server.camera
        assert camera.login is not None
        user, password = camera.login
        said = self.headers.get("Authorization", "")
        if not camera.digest:
            return said == "Basic " + b64encode(f"{user}:{password}".encode()).decode()
        fields = dict(re.findall(r'(\w+)="?([^",]+)"?', said))

        def md5(text: str) -> str:
            return hashlib.md5(text.encode()).hexdigest()

        secret, request = md5(f"{user}:camera:{password}"), md5(f"GET:{self.path}")
        expected = md5(f"{secret}:abc:{fields.get('nc')}:{fields.get('cnonce')}:auth:{request}")
        return fields.get("response") == expected and fields.get("uri") == self.path and fields.get("opaque") == "o"


_WAYS = (
    "stream", "plain", "dashes", "chunked", "cut", "lying", "garbage", "huge", "scans", "stall", "drip",
    "endless", "giant", "short",
)  # fmt: skip


def _pieces(way: str, paint: Painter) -> Iterator[bytes]:
    """The bytes of the response, one image at a time."""
    index = 0
    while True:
        data = jpeg(paint(index))
        if way == "stall" and index == 5:
            yield from _silence()
        if way == "short" and index == 2:
            yield b"--images--\r\n"
            return
        if way == "endless" and index == 1:
            yield b"--images\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8"
            while True:
                yield bytes(1 << 20)
        if way == "giant" and index == 1:
            yield b"--images\r\nContent-Type: image/jpeg\r\nContent-Length: 100000000000\r\n\r\n\xff\xd8"
        if way == "drip" and index == 1:
            yield b"--images\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n\xff\xd8"
            while True:
                yield b"x"
        length = len(data)
        if index % 3 == 1:
            if way == "cut":
                data = data[: length // 2]
                length = len(data)
            elif way == "lying":
                data = data[: length // 2]
            elif way == "garbage":
                data, length = b"no image\n" * 40, 440
            elif way == "huge":
                data = claim_size(data, 65500, 65500)
            elif way == "scans":
                data = repeat_scan(40_000)
                length = len(data)
        announced = b"" if way == "plain" else b"Content-Length: %d\r\n" % length
        yield b"--images\r\nContent-Type: image/jpeg\r\n" + announced + b"\r\n" + data + b"\r\n"
        index += 1


def _silence() -> Iterator[bytes]:
    while True:
        yield b""
