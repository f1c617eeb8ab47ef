"""Streams of JPEG images over HTTP (multipart/x-mixed-replace), read with the standard library and Pillow.

Does not know about other videos over HTTP. OpenCV reads these streams, too, but accepts incomplete images.
"""

from __future__ import annotations

import http.client
import io
import logging
import re
import socket
import ssl
import time
from contextlib import suppress
from email.message import Message
from urllib.parse import urljoin

import numpy as np
import numpy.typing as npt
from PIL import Image

from edge_resnet.core.errors import DataError, SourceError
from edge_resnet.images.limits import refuse_costly
from edge_resnet.streaming.sources.connection import answer_challenge, connect, refused_login
from edge_resnet.streaming.sources.live import CapturedImage, LiveSource
from edge_resnet.streaming.sources.multipart import Parts
from edge_resnet.streaming.sources.uri import TIMEOUT, Address, Range, Timeouts, parse_address, public_uri, take_options

__all__ = ["open_mjpeg"]

_log = logging.getLogger(__name__)

_PORTS = {"http": 80, "https": 443}
#: Of an image, in millions: a camera for 8K has 33, most have fewer than 12. A JPEG of a few bytes can claim 4,294.
_MEGAPIXELS = Range(20, 1, 89)
#: Seconds after which it is said again that images cannot be read.
_QUIET_S = 60.0
#: Letters of a new address that are shown.
_SHOWN = 200
_JPEG_END = b"\xff\xd9"
_NO_STREAM = "use the address of its MJPEG stream; for other video streams use rtsp://, and download files"


def open_mjpeg(uri: str) -> LiveSource:
    """Open ``http://user:password@host/stream``, also ``https://``; Basic and Digest passwords.

    In the query ``timeout=5``, ``megapixels=20`` and, for https, ``verify=0`` (most cameras have a self-signed certificate) are
    options of edge-resnet and not sent. An image that is cut short, claims more pixels, or has more than 100 scans is skipped and
    counted, and a warning says why. No proxy is used. Raises SourceError if the server cannot be reached, refuses, or sends
    something else.
    """
    rest, options = take_options(uri, {"timeout": TIMEOUT, "verify": Range(1, 0, 1), "megapixels": _MEGAPIXELS})
    name, address, timeouts = public_uri(rest), parse_address(rest), Timeouts.of(options["timeout"])
    max_pixels = 1_000_000 * int(options["megapixels"])
    capture = _MjpegCapture(name, address, timeouts, max_pixels, verify=bool(options["verify"]))
    return LiveSource(name, capture, timeouts, "check that the camera is on, and the bandwidth of the network")


class _MjpegCapture:
    """One request, whose response does not end."""

    def __init__(self, name: str, address: Address, timeouts: Timeouts, max_pixels: int, *, verify: bool) -> None:
        self._name, self._address, self._timeouts, self._max_pixels = name, address, timeouts, max_pixels
        self._context = _tls(verify=verify) if address.scheme == "https" else None
        self._socket: socket.socket | None = None
        self._response: http.client.HTTPResponse | None = None
        self._parts: Parts | None = None
        self._unreadable = 0
        self._told_s = -_QUIET_S
        self._stopped = False

    @property
    def lost(self) -> int:
        return self._unreadable + (self._parts.cut if self._parts else 0)

    def open(self) -> None:
        response = self._request(None)
        if response.status == 401:
            challenges = response.headers.get_all("WWW-Authenticate") or []
            answer = answer_challenge(challenges, "GET", self._address.target, self._address)
            if answer is not None:
                self.close()
                response = self._request(answer)
        self._parts = Parts(self._receive, self._judge(response), _is_whole, ending=_JPEG_END)

    def read(self) -> CapturedImage:
        assert self._parts is not None
        while True:
            try:
                part = self._parts.next()
            except EOFError:
                raise self._ended() from None
            except SourceError as error:
                raise SourceError(f"{self._name}: {error.message}", hint=error.hint) from None
            try:
                return CapturedImage(_decode(part.body, self._max_pixels), part.began_ns)
            except DataError as error:
                self._unreadable += 1
                self._tell(error)

    def _tell(self, error: DataError) -> None:
        now = time.monotonic()
        if now - self._told_s >= _QUIET_S:
            self._told_s = now
            _log.warning("%s: an image is skipped: it %s", self._name, error.message)

    def interrupt(self) -> None:
        self._stopped = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for resource in (self._response, self._socket):
            if resource is not None:
                with suppress(OSError):
                    resource.close()

    def _request(self, authorization: str | None) -> http.client.HTTPResponse:
        address, timeout = self._address, self._timeouts.read_s
        port = address.port or _PORTS[address.scheme]
        self._socket = connect(address, port, timeout)
        if self._stopped:
            raise self._ended()
        connection = http.client.HTTPConnection(address.host, port, timeout=timeout)
        try:
            if self._context is not None:
                self._socket = self._context.wrap_socket(self._socket, server_hostname=address.host)
            connection.sock = self._socket
            headers = {"User-Agent": "edge-resnet", "Accept": "multipart/x-mixed-replace, */*"}
            if authorization:
                headers["Authorization"] = authorization
            connection.request("GET", address.target, headers=headers)
            self._response = connection.getresponse()
        except ssl.SSLError as error:
            hint = "for a self-signed certificate add ?verify=0; else check that it is an https port"
            raise SourceError(f"{self._name}: no secure connection ({error.reason or 'TLS failed'})", hint=hint) from None
        except TimeoutError:
            hint = "restart the camera's server, and check that it is an HTTP port"
            message = f"{self._name} accepts the connection and does not answer within {timeout:g} s"
            raise SourceError(message, hint=hint) from None
        except (OSError, ValueError, http.client.HTTPException):
            hint = "check the address; rtsp:// uses another port"
            raise SourceError(f"{self._name} does not answer as an HTTP server", hint=hint) from None
        return self._response

    def _judge(self, response: http.client.HTTPResponse) -> str:
        """The boundary between the images as declared, or empty. Raises SourceError if the response is no stream of images."""
        name, status = self._name, response.status
        if status == 401:
            raise refused_login(name, self._address)
        if status in (301, 302, 303, 307, 308):
            raise SourceError(f"{name} has moved to {self._new_place(response)}", hint="use that address, if you trust it")
        if status != 200:
            reason = re.sub(r"[^ -~]", "?", response.reason or "")[:80]
            raise SourceError(f"{name}: the server refuses with {status} {reason}".rstrip(), hint="check the path in a browser")
        message: Message = response.headers
        kind = message.get_content_type()
        # Servers without a type, or with one that says nothing, are judged by what they send.
        if kind.startswith("multipart/") or "Content-Type" not in message or kind == "application/octet-stream":
            return message.get_boundary() or ""
        if kind == "image/jpeg":
            raise SourceError(f"{name} is a single image", hint=f"{_NO_STREAM}; a program can fetch the image again and again")
        kind = re.sub(r"[^ -~]", "?", message.get_content_type())[:80]
        raise SourceError(f"{name} is not a stream of JPEG images but {kind}", hint=_NO_STREAM)

    def _new_place(self, response: http.client.HTTPResponse) -> str:
        location = response.headers.get("Location", "")
        try:
            where = public_uri(urljoin(self._address.bare, location))
        except ValueError:
            return "an address that cannot be read"
        return where if len(where) <= _SHOWN else f"{where[:_SHOWN]}…"

    def _receive(self) -> bytes:
        assert self._response is not None
        try:
            return self._response.read1(65536)
        except TimeoutError:
            message = f"{self._name} sent nothing for {self._timeouts.read_s:g} s"
            raise SourceError(message, hint="check that the camera is on and the network reaches it") from None
        except (OSError, ValueError, http.client.HTTPException):
            return b""

    def _ended(self) -> SourceError:
        return SourceError(f"{self._name} has ended: the server closed the stream", hint="check that the camera is still on")


def _tls(*, verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_whole(body: bytes | bytearray) -> bool:
    """Whether it has the begin and the end of a JPEG; some cameras pad with zeros or line ends."""
    return body.startswith(b"\xff\xd8") and body.rstrip(b"\x00\r\n").endswith(_JPEG_END)


def _decode(body: bytes, max_pixels: int) -> npt.NDArray[np.uint8]:
    """The image (H, W, 3) BGR. Raises DataError, as a predicate, if it is not a JPEG, cut short, or too costly to decode."""
    if not _is_whole(body):
        raise DataError("is not a whole JPEG")
    file = io.BytesIO(body)
    try:
        with Image.open(file, formats=("JPEG",)) as image:
            refuse_costly(image, file, max_pixels)
            width, height = image.size
            image.load()
            pixels = (image if image.mode == "RGB" else image.convert("RGB")).tobytes("raw", "BGR")
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders may raise anything for damaged data
        raise DataError(f"cannot be decoded: {type(error).__name__}") from error
    return np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
