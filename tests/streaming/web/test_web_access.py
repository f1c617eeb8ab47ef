"""Access control: tokens, cookies, wrong attempts, host names, headers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urlsplit

import pytest
from webstage import TIMEOUT_S, TOKEN, Reader, Reply, Script, ask, frame, prediction, served

from edge_resnet.streaming.web import WebSink, tokens
from edge_resnet.streaming.web.tokens import Attempts, Token

GUARDED = ("/", "/static/page.js", "/stream/0.mjpeg", "/api/predictions", "/api/status", "/metrics", "/nothing")
BEARER = {"Authorization": f"Bearer {TOKEN}"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def sink() -> Iterator[WebSink]:
    """For tests with fewer than ten wrong tokens in all."""
    with served(token=TOKEN) as opened:
        opened.write(prediction(), frame())
        yield opened


@pytest.fixture(scope="module")
def bare() -> Iterator[WebSink]:
    """Without a token."""
    with served() as opened:
        yield opened


def _sign_in(sink: WebSink, token: str, **headers: str) -> Reply:
    return ask(sink.url, "/login", method="POST", headers={**FORM, **headers}, body=urlencode({"token": token}))


def _cookie(reply: Reply) -> dict[str, str]:
    jar = SimpleCookie(reply.headers["set-cookie"])
    return {"Cookie": "; ".join(f"{name}={morsel.value}" for name, morsel in jar.items())}


@pytest.mark.parametrize("path", GUARDED)
def test_nothing_is_served_without_the_token(sink: WebSink, path: str) -> None:
    """Every route, also unknown ones; another kind of header or a foreign cookie does not help."""
    for headers in ({}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}, {"Cookie": f"edge_resnet_80={TOKEN}"}):
        answer = ask(sink.url, path, headers=headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert b"coffee" not in answer.body


def test_with_the_token_everything_is_served(sink: WebSink) -> None:
    """Also with the scheme in small letters; streams, too."""
    for path in ("/", "/static/page.js", "/api/status", "/metrics"):
        assert ask(sink.url, path, headers=BEARER).status == 200
    assert ask(sink.url, "/nothing", headers={"Authorization": f"bearer {TOKEN}"}).status == 404
    for path in ("/stream/0.mjpeg", "/api/predictions"):
        with Reader(sink.url, path, BEARER) as reader:
            assert reader.status == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/login", "/static/page.css", "/static/icon.svg"])
def test_health_and_the_form_are_open(sink: WebSink, path: str) -> None:
    """Health checks and the sign-in form need no token."""
    assert ask(sink.url, path).status == 200


def test_a_browser_is_shown_the_form(sink: WebSink) -> None:
    """Instead of what it requested, as a 401."""
    answer = ask(sink.url, "/", headers={"Accept": "text/html,*/*"})
    assert answer.status == 401
    assert 'name="token"' in answer.text


def test_signing_in_sets_a_cookie_that_opens_everything(sink: WebSink) -> None:
    """The cookie is not the token, is hidden from scripts and other sites, and expires after a week."""
    answer = _sign_in(sink, TOKEN, Origin=sink.url.rstrip("/"))
    assert (answer.status, answer.headers["location"]) == (303, "/")
    header = answer.headers["set-cookie"].lower()
    assert "httponly" in header
    assert "samesite=strict" in header
    assert "max-age=604800" in header
    assert TOKEN not in header
    assert f"edge_resnet_{urlsplit(sink.url).port}=" in header
    assert ask(sink.url, "/api/status", headers=_cookie(answer)).status == 200
    with Reader(sink.url, "/api/predictions", _cookie(answer)) as reader:
        assert reader.data()["frame"] == 0


def test_a_cookie_is_not_forged(sink: WebSink) -> None:
    """A later expiry, another signature, none, nonsense: each is refused, and none counts as an attempt."""
    good = _cookie(_sign_in(sink, TOKEN))["Cookie"]
    name, _, value = good.partition("=")
    until, _, signature = value.partition(".")
    other = Token("another-token-altogether").cookie()
    forged = [
        f"{int(until) + 1}.{signature}",
        f"{until}.{'0' * 64}",
        until,
        f"{until}.",
        other,
        "ä.ö",
        "²." + signature,
        '"',
        TOKEN,
    ]
    for value in forged * 2:
        cookie = f"{name}={value}".encode().decode("latin-1")
        assert ask(sink.url, "/api/status", headers={"Cookie": cookie}).status == 401
    assert ask(sink.url, "/api/status", headers={"Cookie": good}).status == 200


def test_a_cookie_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a week, to the second; it stays valid after a restart of the server with the same token."""
    cookie = Token(TOKEN).cookie()
    assert Token(TOKEN).signed(cookie)
    now = time.time()
    monkeypatch.setattr(tokens.time, "time", lambda: now + tokens.COOKIE_S + 2)
    assert not Token(TOKEN).signed(cookie)


@pytest.mark.parametrize("way", ["header", "form"])
def test_ten_wrong_tokens_and_the_address_waits(way: str) -> None:
    """The eleventh wrong one is a 429; the right token is accepted all the same, since behind a proxy all clients share an
    address, and a browser that is signed in stays so."""
    with served(token=TOKEN) as sink:
        _guess_ten_times(sink, way)


def _guess_ten_times(sink: WebSink, way: str) -> None:
    signed = _cookie(_sign_in(sink, TOKEN))

    def guess(token: str) -> Reply:
        if way == "form":
            return _sign_in(sink, token)
        return ask(sink.url, "/api/status", headers={"Authorization": f"Bearer {token}"})

    assert [guess(f"wrong-token-{index}").status for index in range(10)] == [401] * 10
    blocked = guess("wrong-token-10")
    assert blocked.status == 429
    assert 0 < int(blocked.headers["retry-after"]) <= 60
    assert ask(sink.url, "/api/status", headers=BEARER).status == 200
    assert _sign_in(sink, TOKEN).status == 303
    assert guess("wrong-token-11").status == 429
    assert ask(sink.url, "/api/status", headers=signed).status == 200
    assert ask(sink.url, "/healthz").status == 200


def test_the_wait_ends_and_guesses_are_forgotten() -> None:
    """A minute after the last wrong token; nine slow attempts never add up to ten."""
    now = 0.0
    attempts = Attempts(lambda: now)
    for _ in range(10):
        assert attempts.wait_s("192.0.2.1") == 0
        attempts.wrong("192.0.2.1")
    assert attempts.wait_s("192.0.2.1") == 60
    assert attempts.wait_s("192.0.2.2") == 0
    now = 60.0
    assert attempts.wait_s("192.0.2.1") == 0
    attempts.wrong("192.0.2.1")
    assert attempts.wait_s("192.0.2.1") == 0
    for _ in range(30):
        now += 61
        attempts.wrong("192.0.2.3")
    assert attempts.wait_s("192.0.2.3") == 0


def test_addresses_are_remembered_within_bounds() -> None:
    """The number of addresses is limited; a /64 of IPv6 is one client, an IPv4-mapped address is the IPv4 address."""
    attempts = Attempts(lambda: 0.0)
    for index in range(5000):
        attempts.wrong(f"10.0.{index // 250}.{index % 250}")
    assert len(attempts) == Attempts.REMEMBERED
    for index in range(10):
        attempts.wrong(f"2001:db8::{index:x}")
        attempts.wrong("::ffff:192.0.2.9")
    assert attempts.wait_s("2001:db8::ffff") > 0
    assert attempts.wait_s("2001:db8:0:1::1") == 0
    assert attempts.wait_s("192.0.2.9") > 0
    assert attempts.wait_s("") == 0


def test_a_wrong_token_in_the_form_is_reported(sink: WebSink) -> None:
    """The form is shown again with a message; it does not repeat what was typed."""
    answer = _sign_in(sink, "<b>wrong</b>")
    assert answer.status == 401
    assert 'role="alert"' in answer.text
    assert "<b>" not in answer.text
    assert "set-cookie" not in answer.headers


def test_the_form_of_another_site_is_refused(sink: WebSink) -> None:
    """With the token or without: else any page could use up the attempts of its visitors."""
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert _sign_in(sink, TOKEN, Origin=origin).status == 403
        assert _sign_in(sink, "wrong-token", Origin=origin).status == 403


@pytest.mark.parametrize(
    "origin", ["http://[", "http://[::1", "http://a:b", "http://a:99999", "//", "https://", "http://a@", "\xff"]
)
def test_a_broken_origin_is_refused(sink: WebSink, origin: str) -> None:
    """As that of another site is: what is no origin is nobody's."""
    assert _sign_in(sink, TOKEN, Origin=origin).status == 403


def test_behind_a_proxy_a_browser_signs_in() -> None:
    """The page's own address may be the Origin and the Host; the cookie is Secure there and, without TLS, not."""
    with WebSink("127.0.0.1:0", Script(), token=TOKEN, origin="https://cam.example") as sink:
        local = sink.url.rstrip("/")
        for host in ("cam.example", urlsplit(local).netloc):
            reply = _sign_in(sink, TOKEN, Origin="https://cam.example", Host=host)
            assert reply.status == 303
            assert "secure" in reply.headers["set-cookie"].lower().split("; ")
            assert ask(sink.url, "/api/status", headers={**_cookie(reply), "Host": host}).status == 200
        reply = _sign_in(sink, TOKEN, Origin=local)
        assert reply.status == 303
        assert "secure" not in reply.headers["set-cookie"].lower().split("; ")
        for origin in ("http://cam.example", "https://cam.example:8443", "https://cam.example.evil", "https://evil.example"):
            assert _sign_in(sink, TOKEN, Origin=origin, Host=urlsplit(local).netloc).status == 403
        assert ask(sink.url, "/healthz", headers={"Host": "evil.example"}).status == 400


def test_without_the_option_a_proxy_that_keeps_the_host_works() -> None:
    """A browser's Origin whose host is that of the Host header is the page's own; over TLS the cookie is Secure."""
    with WebSink("0.0.0.0:0", Script(), token=TOKEN) as sink:
        url = sink.url.replace("0.0.0.0", "127.0.0.1")
        headers = {**FORM, "Host": "cam.example", "Origin": "https://cam.example"}
        reply = ask(url, "/login", method="POST", headers=headers, body=urlencode({"token": TOKEN}))
        assert reply.status == 303
        assert "secure" in reply.headers["set-cookie"].lower().split("; ")


def test_a_form_too_long_is_refused(sink: WebSink) -> None:
    """Four KiB are enough for any token; headers may have 16."""
    assert _sign_in(sink, "x" * 5000).status == 413
    parts = urlsplit(sink.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=TIMEOUT_S) as client:
        client.sendall(f"GET /healthz HTTP/1.1\r\nHost: {parts.netloc}\r\nX-Long: {'x' * 20_000}".encode())
        assert client.recv(100).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "", "[::2]", "0.0.0.0"]
)
def test_on_loopback_other_names_are_refused(bare: WebSink, host: str) -> None:
    """A site that points its own host name at 127.0.0.1 gets nothing."""
    for path in ("/", "/api/status", "/healthz", "/static/page.css"):
        assert ask(bare.url, path, headers={"Host": host}).status == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1", "127.0.0.1:1234", "[::1]", "[::1]:80"])
def test_on_loopback_its_own_names_are_served(bare: WebSink, host: str) -> None:
    """With any port, since a tunnel may have another one."""
    assert ask(bare.url, "/healthz", headers={"Host": host}).status == 200


def test_every_answer_carries_the_headers(sink: WebSink) -> None:
    """Pages, refusals and errors alike; nothing is allowed for other sites."""
    for path, headers in (
        ("/", BEARER),
        ("/", {}),
        ("/nothing", BEARER),
        ("/healthz", {}),
        ("/healthz", {"Host": "evil.example"}),
    ):
        answer = ask(sink.url, path, headers=headers).headers
        assert "default-src 'self'" in answer["content-security-policy"]
        assert "frame-ancestors 'none'" in answer["content-security-policy"]
        assert "unsafe" not in answer["content-security-policy"]
        assert answer["x-content-type-options"] == "nosniff"
        assert answer["referrer-policy"] == "same-origin"
        assert answer["cache-control"]
        assert not [name for name in answer if name.lower().startswith("access-control")]
        assert "server" not in answer


def test_without_a_token_there_is_no_form(bare: WebSink) -> None:
    """There is nothing to sign in to."""
    assert ask(bare.url, "/login").status == 404
