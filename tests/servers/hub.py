"""A server on loopback that speaks as much of the Hugging Face Hub's API as huggingface_hub asks for to download a file."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "fedcba9876543210fedcba9876543210fedcba98"


@dataclass
class Repository:
    """Files by revision; ``gated``: 403 for every file; ``private``: 401 for everything without the token ``secret``.

    ``stated``: file → its size as the listing has it, where that is not its length. ``chunked``: files come without a length.
    """

    files: dict[str, bytes]
    older: dict[str, bytes] | None = None
    gated: bool = False
    private: bool = False
    license: str | None = "apache-2.0"
    stated: dict[str, int] = field(default_factory=dict)
    chunked: bool = False

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and the files of a branch or a commit."""
        if revision in ("main", COMMIT):
            return COMMIT, self.files
        return (OLDER, self.older) if self.older is not None and revision in ("v1", OLDER) else None


@dataclass
class Hub:
    """``requests``: method and path of each; ``down``: whether it answers 503."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    down: bool = False


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub on a free port, until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub that huggingface_hub asks in this process, with an empty cache in ``folder`` and no token."""
    from huggingface_hub import constants

    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def log_message(self, *_: object) -> None:
            """Nothing is written to stderr."""

        def _answer(self, *, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            status, headers, content = self._found()
            self.send_response(status)
            chunked = headers.get("Transfer-Encoding") == "chunked"
            for name, value in (({} if chunked else {"Content-Length": str(len(content))}) | headers).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # whoever asks may leave
                self._send(content if body else b"", chunked=body and chunked)

        def _send(self, content: bytes, *, chunked: bool) -> None:
            if not chunked:
                self.wfile.write(content)
                return
            for start in range(0, len(content), 1 << 16):
                part = content[start : start + (1 << 16)]
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

        def _found(self) -> tuple[int, dict[str, str], bytes]:
            parts = self.path.partition("?")[0].strip("/").split("/")
            api = parts[:2] == ["api", "models"]
            name = "/".join(parts[2:4] if api else parts[:2])
            rest = parts[4:] if api else parts[2:]
            repository = hub.repositories.get(name)
            if hub.down:
                return 503, {}, b"maintenance"
            if repository is None or (repository.private and self.headers.get("Authorization") != "Bearer secret"):
                return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"{}"
            revision = rest[1] if len(rest) > 1 and rest[0] in ("revision", "resolve") else "main"
            at = repository.at(revision)
            if at is None:
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            commit, files = at
            if api:
                card = {} if repository.license is None else {"license": repository.license}
                siblings = [
                    {"rfilename": file, "size": repository.stated.get(file, len(content))}
                    if "blobs=" in self.path
                    else {"rfilename": file}
                    for file, content in files.items()
                ]
                answer = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "cardData": card, "tags": []}
                return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()
            if repository.gated:
                return 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this repository is restricted"}, b"{}"
            content = files.get("/".join(rest[2:]))
            if content is None:
                return 404, {"X-Error-Code": "EntryNotFound"}, b"{}"
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
            return 200, headers | ({"Transfer-Encoding": "chunked"} if repository.chunked else {}), content

    return Handler
