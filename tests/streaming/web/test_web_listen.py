"""HOST:PORT: parsed, refused with a hint, bound before anything else starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from webstage import TOKEN, Script, ask, served

from edge_resnet.core.errors import ConfigError
from edge_resnet.streaming.web import WebSink
from edge_resnet.streaming.web.listen import listen, resolve

REPO = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8080",
        ":8080",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:-1",
        "::1:8080",
        "[::1]",
        "http://127.0.0.1:80",
        "127.0.0.1:80/",
        "a b:80",
        "[127.0.0.1:80",
        "user@host:80",
        "127.0.0.1:999999",
        "127.0.0.1:80\n",
    ],
)
def test_a_malformed_address_is_refused(text: str) -> None:
    """The error quotes it, and the hint has an example."""
    with pytest.raises(ConfigError) as caught:
        resolve(text)
    assert "HOST:PORT" in caught.value.message
    assert "127.0.0.1:8080" in caught.value.hint


def test_a_port_beyond_the_last_is_refused() -> None:
    """65535 is the last."""
    assert resolve("127.0.0.1:65535").port == 65535
    with pytest.raises(ConfigError, match="no port 65536"):
        resolve("127.0.0.1:65536")


def test_an_unknown_host_is_refused() -> None:
    """An invalid host name is one line, not a traceback of the resolver."""
    with pytest.raises(ConfigError, match="cannot be resolved"):
        resolve("a..b:80")


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("127.0.0.1:0", True),
        ("127.9.9.9:0", True),
        ("localhost:0", True),
        ("[::1]:0", True),
        ("0.0.0.0:0", False),
        ("[::]:0", False),
        ("192.0.2.1:0", False),
    ],
)
def test_loopback_is_recognised(text: str, loopback: bool) -> None:
    """By the address that the name resolves to."""
    assert resolve(text).loopback is loopback


def test_the_url_names_what_was_bound() -> None:
    """With port 0 the URL has the port that the kernel chose."""
    with served() as sink:
        assert sink.url.startswith("http://127.0.0.1:")
        assert not sink.url.endswith(":0/")
        assert ask(sink.url).status == 200


def test_a_taken_port_is_refused_before_anything_starts() -> None:
    """No thread is left, and the hint says what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        before = threading.active_count()
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use") as caught:
            WebSink(f"127.0.0.1:{port}", Script()).open()
        assert "another port" in caught.value.hint
        assert threading.active_count() == before


def test_an_address_of_another_machine_is_refused() -> None:
    """192.0.2.1 is reserved for documentation."""
    with pytest.raises(ConfigError, match="not an address of this machine"):
        listen(resolve("192.0.2.1:0"))


def test_a_port_that_may_not_be_opened_is_refused() -> None:
    """A user without privileges requests port 80, in a process of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can give up its rights here; another user's kernel may allow low ports")
    start = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if not start.exists() or int(start.read_text()) <= 80:
        pytest.skip("this kernel lets everyone open port 80")
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from edge_resnet.core.errors import ConfigError\n"
        "from edge_resnet.streaming.web.listen import listen, resolve\n"
        "address = resolve('127.0.0.1:80'); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try:\n    listen(address)\n"
        "except ConfigError as error:\n    print(error.message, '|', error.hint)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(REPO)], capture_output=True, text=True, check=True)
    assert "permission denied | choose a port from 1024 on" in result.stdout


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"])
def test_beyond_loopback_a_token_is_needed(address: str) -> None:
    """Without one the constructor raises; the hint names the option and the variable."""
    with pytest.raises(ConfigError) as caught:
        WebSink(address, Script())
    assert "--web-token" in caught.value.hint
    assert "EDGE_RESNET_WEB_TOKEN" in caught.value.hint


def test_beyond_loopback_with_a_token_it_serves() -> None:
    """On all addresses of the machine, with any Host header."""
    with WebSink("0.0.0.0:0", Script(), token=TOKEN) as sink:
        url = sink.url.replace("0.0.0.0", "127.0.0.1")
        headers = {"Authorization": f"Bearer {TOKEN}", "Host": "board.example"}
        assert ask(url, "/api/status", headers=headers).status == 200


@pytest.mark.parametrize("token", ["", "short", "with a space in it", "umlaut-äöü-äöü", "line\nbreak-in-it"])
def test_a_poor_token_is_refused(token: str) -> None:
    """It could be guessed, or a header cannot contain it; the hint creates a good one."""
    with pytest.raises(ConfigError) as caught:
        WebSink("127.0.0.1:0", Script(), token=token)
    assert "secrets.token_urlsafe" in caught.value.hint
    assert not token or token not in caught.value.message


def test_the_libraries_are_imported_when_it_is_opened_and_not_before() -> None:
    """Importing and constructing the sink loads none of them; opening it without them is one line with the install command."""
    code = (
        "import sys\n"
        "for name in ('starlette', 'uvicorn', 'prometheus_client'): sys.modules[name] = None\n"
        "from edge_resnet.streaming.web import WebSink\n"
        "from edge_resnet.core.errors import MissingDependencyError\n"
        "sink = WebSink('127.0.0.1:0', lambda: None)\n"
        "try:\n    sink.open()\n"
        "except MissingDependencyError as error:\n    print(error.message, '|', error.hint)\n"
        "sink.close()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPO)
    assert result.stdout.startswith("--web needs ")
    assert "pip install 'edge-resnet[web]'" in result.stdout
