"""The gates where data from outside comes in, with valid inputs of each. Does not know how hostile ones are derived or counted.

A gate is fed bytes; it returns, or raises one of edge_resnet's errors. Whatever else it does is a fault.
"""

from __future__ import annotations

import io
import json
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from PIL import Image
from safetensors.torch import save as save_safetensors

from edge_resnet.artifact.enginecache import find_engine, store_engine
from edge_resnet.artifact.folder import CALIBRATION, CORRECTIONS, MANIFEST, Artifact, describe_files, open_artifact
from edge_resnet.compiler.graph.corrections import apply, load_corrections
from edge_resnet.core.records import ModelSpec
from edge_resnet.core.statistics import LatencyStats
from edge_resnet.images.imageset import open_images
from edge_resnet.images.labelfile import read_labels
from edge_resnet.images.preprocess import decode_image
from edge_resnet.network.resnet import build_network
from edge_resnet.network.weights import load_weights
from edge_resnet.quantization.recipes import load_recipe
from edge_resnet.streaming.records import RunStatus, SourceStatus
from edge_resnet.streaming.sources import mjpeg
from edge_resnet.streaming.sources.multipart import Parts
from edge_resnet.streaming.sources.rtsp import explain_refusal
from edge_resnet.streaming.sources.uri import TIMEOUT, parse_address, public_uri, take_options
from edge_resnet.streaming.web import WebSink

__all__ = ["Gate", "open_gates"]

_JSON = (b"null", b"true", b"[]", b"{}", b'""', b'{"a": 1}', b"1e999", b"-1", b'"int8"', b'"../up"', b'"/etc/passwd"', b",", b":")
_SPEC = ModelSpec(family="cifar", depth=8, shortcut="A", classes=10, input_size=32)


@dataclass(frozen=True)
class Gate:
    """``feed`` takes an input. ``seeds``: valid inputs; ``tokens``: its format's words; ``zipped``: seeds are archives."""

    name: str
    seeds: tuple[bytes, ...]
    feed: Callable[[bytes], object]
    tokens: tuple[bytes, ...] = ()
    zipped: bool = False


@contextmanager
def open_gates(artifact: Path, folder: Path) -> Iterator[dict[str, Gate]]:
    """Every gate by name, with the servers that some need. ``artifact``: an INT8 one, read only; ``folder``: empty."""
    with ExitStack() as stack:
        gates = (
            *_artifact_gates(open_artifact(artifact), folder),
            *_image_gates(folder),
            *_text_gates(folder),
            _checkpoint(folder),
            _mjpeg(),
            stack.enter_context(_rtsp()),
            stack.enter_context(_http()),
        )
        yield {gate.name: gate for gate in gates}


def _artifact_gates(whole: Artifact, folder: Path) -> Iterator[Gate]:
    """The manifest, the ranges, the corrections and an engine's record, all in an artifact that is otherwise whole."""
    copy = folder / "artifact"
    copy.mkdir()
    for path in whole.folder.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    manifest = (copy / MANIFEST).read_bytes()
    yield Gate("manifest", (manifest,), _file(copy / MANIFEST, lambda _: open_artifact(copy)), _JSON)

    other = folder / "ranges"
    other.mkdir()
    ranges = (copy / CALIBRATION).read_bytes()
    graph = onnx.load_model(str(whole.model_path))
    # The hashes fit: whoever can change a file can change the manifest too.
    yield Gate("calibration", (ranges,), _file(other / CALIBRATION, lambda _: replace(whole, folder=other).calibration()), _JSON)
    corrections = (
        (whole.folder / CORRECTIONS).read_bytes()
        if (whole.folder / CORRECTIONS).is_file()
        else _zipped(bias=np.zeros(3, np.float32))
    )
    yield Gate(
        "corrections",
        (corrections,),
        _file(other / CORRECTIONS, lambda path: apply(graph, load_corrections(path))),
        (b"NUMPY", b"'descr': '<f4'", b"'shape': (1000000000000000,)", b"True", b"|O", b".npy", b"\x00\x00\xc0\x7f"),
        zipped=True,
    )
    engine = store_engine(open_artifact(copy), "key", "fuzz", lambda work: (work / "engine.onnx").write_bytes(b"engine") and None)
    opened = open_artifact(copy) if describe_files(copy) else whole
    meta = engine / "meta.json"
    yield Gate("engine record", (meta.read_bytes(),), _file(meta, lambda _: find_engine(opened, "key")), _JSON)


def _image_gates(folder: Path) -> Iterator[Gate]:
    """Images in files, arrays, and lists of images."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)).resize((24, 16))

    def saved(kind: str, **how: object) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **how)
        return stream.getvalue()

    animated = saved("GIF", save_all=True, append_images=[image.rotate(90)])
    seeds = (saved("JPEG"), saved("JPEG", progressive=True), saved("PNG"), saved("BMP"), saved("TIFF"), saved("WEBP"), animated)
    yield Gate(
        "image",
        (*seeds, saved("PPM")),
        _file(folder / "image.png", decode_image),
        (b"\xff\xda", b"\xff\xc4", b"IDAT", b"II*\x00"),
    )

    rows = folder / "list.csv"
    (folder / "list").mkdir()
    for name in ("a.png", "b.png"):
        image.save(folder / "list" / name)
    text = b"file,class_index\na.png,0\nb.png,3\n"
    listed = (text, b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"), text.replace(b"a.png", b'"a.png"'))
    yield Gate("csv", listed, _file(rows, open_images), (b'"', b",", b"\n", b"../", b"file", b"class_index"))

    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    arrays = (_zipped(images=pixels, labels=np.arange(3)), _zipped(images=pixels))
    tokens = (b"NUMPY", b"'shape': (3, 8, 8, 3)", b"(1000000000000000, 8, 8, 3)", b"|O", b"<i8", b"True", b"(-1,)")
    yield Gate("npz", arrays, _file(folder / "images.npz", lambda path: open_images(path).load(0)), tokens, zipped=True)


def _text_gates(folder: Path) -> Iterator[Gate]:
    """Labels, recipes and addresses."""
    names = [f"class {index}" for index in range(10)]
    lines = "\n".join(f"{index}: {name}" for index, name in enumerate(names))
    indexed = json.dumps({str(index): name for index, name in enumerate(names)}, indent=1)
    labels = ("\n".join(names), lines, json.dumps(names), indexed, str(dict(enumerate(names))))
    yield Gate(
        "labels", tuple(text.encode() for text in labels), _file(folder / "labels.txt", read_labels), (*_JSON, b"0: a", b"\n")
    )

    recipe = (
        b'method = "percentile"\npercentile = 99.9\nimages = 64\nseed = 1\nkeep_high_precision = ["conv1"]\ncorrection = "bias"\n'
    )
    words = (b"[", b"]", b"=", b'"""', b"'''", b"[[a]]", b"a.b.c = 1", b"inf", b"nan", b"1979-05-27", b"method", b"data", b"true")
    yield Gate("recipe", (recipe,), _file(folder / "recipe.toml", load_recipe), words)

    uris = (
        b"rtsp://admin:secret@192.168.1.9:554/main?timeout=3",
        b"http://[fe80::1%eth0]:8080/video?token=secret&timeout=2.5",
        b"https://user@door.example/cam/1;x=y?a=b",
    )
    yield Gate("uri", uris, _address, (b"://", b"@", b":", b"[", b"]", b"%", b"%00", b"?timeout=", b"&", b"#", b"/../"))


def _checkpoint(folder: Path) -> Gate:
    """Weights of the smallest network, as torch and safetensors write them."""
    torch.manual_seed(0)
    network = build_network(_SPEC)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    kept = io.BytesIO()
    torch.save({"state_dict": state, "epoch": 3}, kept)
    old = io.BytesIO()
    torch.save(state, old, _use_new_zipfile_serialization=False)
    tokens = (
        b"layer1.0.conv1.weight",
        b"layer3.60000.conv1.weight",
        b"state_dict",
        b"module.",
        b"fc.",
        b"F32",
        b"data_offsets",
        b"cos\nsystem",
    )
    return Gate(
        "checkpoint",
        (kept.getvalue(), old.getvalue(), save_safetensors(state)),
        _file(folder / "weights.pth", lambda path: load_weights(network, _SPEC, str(path))),
        tokens,
        zipped=True,
    )


def _mjpeg() -> Gate:
    """The parts of a stream of images, each decoded as the camera's reader does it."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 90, 200)).save(stream, "JPEG")
    image = stream.getvalue()
    head = b"Content-Type: image/jpeg\r\n"
    long = b"".join(b"--frame\r\n%sContent-Length: %d\r\n\r\n%s\r\n" % (head, len(image), image) for _ in range(3))
    short = b"".join(b"--frame\r\n%s\r\n%s\r\n" % (head, image) for _ in range(3))

    def feed(data: bytes) -> None:
        pieces = iter([data[at : at + 4096] for at in range(0, len(data), 4096)])
        parts = Parts(lambda: next(pieces, b""), "frame", mjpeg._is_whole)
        try:
            while True:
                mjpeg._decode(parts.next().body, 1 << 20)
        except EOFError:
            return

    return Gate(
        "mjpeg stream", (long, short), feed, (b"--frame", b"\r\n\r\n", b"Content-Length: ", b"\xff\xd8", b"\xff\xd9", b"\xff\xda")
    )


@contextmanager
def _rtsp() -> Iterator[Gate]:
    """What a server answers to DESCRIBE."""
    answer = b""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            while not ended.is_set():
                with server.accept()[0] as connection:
                    connection.settimeout(1)
                    try:
                        connection.recv(4096)
                        connection.sendall(answer)
                        connection.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = parse_address(f"rtsp://admin:secret@127.0.0.1:{port}/main")

        def feed(data: bytes) -> None:
            nonlocal answer
            answer = data
            explain_refusal("camera", address, port, 2)

        body = b"v=0\r\nm=video 0 RTP/AVP 96\r\n"
        digest = b'WWW-Authenticate: Digest realm="cam", nonce="abc", qop="auth", algorithm=MD5\r\n'
        seeds = (
            b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body),
            b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n%sWWW-Authenticate: Basic realm=c\r\n\r\n" % digest,
            b"RTSP/1.0 404 Not Found\r\nCSeq: 1\r\n\r\n",
        )
        try:
            yield Gate(
                "rtsp answer",
                seeds,
                feed,
                (b"\r\n", b"Content-Length: ", b"algorithm=SHA-256", b'realm="', b"qop=", b"m=audio", b","),
            )
        finally:
            ended.set()
            with socket.create_connection(("127.0.0.1", port)):
                thread.join(5)


@contextmanager
def _http() -> Iterator[Gate]:
    """Requests to the web port, which answers health checks all the while and never with an error of its own."""
    none = LatencyStats(1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    camera = SourceStatus("camera:0", "live", 1, 1, 0, 0, 0, 30.0, 0.03, False, False, "")
    status = RunStatus("resnet", "onnxruntime", "int8", 1.0, True, 1, 30.0, none, none, {}, (camera,), ())
    with WebSink("127.0.0.1:0", lambda: status, token="a-token-for-the-tests") as sink:
        port = int(sink.url.rpartition(":")[2].split("/")[0])

        def ask(data: bytes, patience_s: float) -> bytes:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                try:
                    connection.sendall(data)
                    connection.settimeout(patience_s)
                    return connection.recv(65536)
                except (ConnectionError, TimeoutError):
                    return b""

        def feed(data: bytes) -> None:
            # A request that does not end gets no answer.
            answer = ask(data, 0.02)
            assert not answer.startswith(b"HTTP/1.1 500"), "the server failed"

        def request(head: bytes, body: bytes = b"") -> bytes:
            return b"%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (
                head,
                port,
                len(body),
                body,
            )

        login = request(b"POST /login", b"token=wrong").replace(b"\r\n\r\n", b"\r\nOrigin: http://127.0.0.1:%d\r\n\r\n" % port)
        pages = (
            b"GET /",
            b"GET /healthz",
            b"GET /metrics",
            b"GET /status",
            b"GET /stream/0",
            b"GET /events?source=0&every=2",
            b"GET /image/0",
        )
        bearer = request(b"GET /status").replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer a-token-for-the-tests\r\n\r\n")
        tokens = (
            b"\r\n",
            b"Origin: http://[\r\n",
            b"Host: ",
            b"Cookie: a=b\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Range: bytes=0-\r\n",
            b"/../",
        )
        yield Gate("http request", (*(request(page) for page in pages), login, bearer), feed, tokens)
        answer = ask(request(b"GET /healthz"), 10)
        assert answer.startswith(b"HTTP/1.1 "), "the server is gone"


def _file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Feeds ``read`` a file of the input's bytes."""

    def feed(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return feed


def _address(data: bytes) -> None:
    uri = data.decode("utf-8", "surrogateescape").replace("\x00", "")
    public_uri(uri)
    rest, _ = take_options(uri, {"timeout": TIMEOUT})
    address = parse_address(rest)
    assert parse_address(address.full) == address, "an address that is written out is another one"


def _zipped(**arrays: np.ndarray) -> bytes:  # type: ignore[type-arg]
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    assert zipfile.is_zipfile(packed)
    return packed.getvalue()
