"""URIs: options within their ranges, addresses with any password, names without one."""

from __future__ import annotations

import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.errors import SourceError
from edge_resnet.streaming.sources.uri import (
    _HARMLESS,
    TIMEOUT,
    Range,
    Timeouts,
    parse_address,
    public_uri,
    read_options,
    take_options,
)

_PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=4, max_size=20).filter(
    lambda word: word.strip("*")
)
_KNOWN = {"width": Range(640, 1, 4096), "rate": Range(30, 0.5, 240, whole=False)}


@given(_PASSWORDS, st.sampled_from(["rtsp", "rtsps", "http", "https", "RTSP"]))
def test_no_password_is_shown(password: str, scheme: str) -> None:
    """Whatever special characters a password has, escaped or not, the public name is the same as with another password."""
    shown = f"{scheme}://***@192.168.1.9:554/live?channel=1"
    for written in (password, quote(password, safe="")):
        assert public_uri(f"{scheme}://admin:{written}@192.168.1.9:554/live?channel=1") == shown


@given(_PASSWORDS, st.sampled_from(["rtsp", "http"]))
def test_no_error_shows_a_password(password: str, scheme: str) -> None:
    """A malformed address is refused without the password in message, hint or cause."""
    marked = f"Zz{password}zZ"
    try:
        address = parse_address(f"{scheme}://admin:{marked}@host:99999/")
    except SourceError as error:
        assert marked not in f"{error.message} {error.hint} {error.__cause__!r}"  # noqa: PT017 - a fragment of it may parse
    else:
        assert marked not in repr(address)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://h/user=admin_password=tlJwpbo6_channel=1", "rtsp://h/user=admin_password=***"),
        ("http://h/v?user=a&pwd=secret&x=1", "http://h/v?user=***&pwd=***&x=***"),
        ("rtsp://h/?loginuse=a&loginpas=secret", "rtsp://h/?loginuse=***&loginpas=***"),
        ("http://h/v?p=secret&sid=12&channel=1&SubType=0", "http://h/v?p=***&sid=***&channel=1&SubType=0"),
        ("http://h/v?%70assword=secret", "http://h/v?%70assword=***"),
        ("http://h/v?channel=1;pw=secret", "http://h/v?channel=1;pw=***"),
        ("http://h/v?channel=1?pw=secret", "http://h/v?channel=1?pw=***"),
        ("http://h/v?channel=&secret", "http://h/v?channel=&***"),
        ("rtsp://h/%70assword=secret/1", "rtsp://h/***"),
        ("http://h/v?TOKEN=secret", "http://h/v?TOKEN=***"),
        ("http://h/v?api_key=secret#f", "http://h/v?api_key=***#***"),
        ("http://h/monkey=1/compass=2", "http://h/monkey=1/compass=2"),
        ("http://token@h/v", "http://***@h/v"),
        ("http://h/cam@1", "http://h/cam@1"),
        ("rtsp://h:554/live", "rtsp://h:554/live"),
        ("clip@home.mp4", "clip@home.mp4"),
        ("a:b@c/d.png", "a:b@c/d.png"),
        ("0", "0"),
    ],
)
def test_names(uri: str, shown: str) -> None:
    """Secrets in queries and paths are masked; file names, and words that only look similar, are not."""
    assert public_uri(uri) == shown


@given(st.text(string.ascii_letters + "_%", min_size=1, max_size=12), st.sampled_from(["rtsp", "https"]))
def test_no_value_of_an_unknown_key_is_shown(key: str, scheme: str) -> None:
    """Whatever a camera calls its password."""
    shown = public_uri(f"{scheme}://h/v?channel=3&{key}=Zz8zZ")
    assert "Zz8zZ" not in shown or key.lower() in _HARMLESS
    assert "channel=3" in shown


@given(_PASSWORDS, _PASSWORDS)
def test_a_login_survives_escaping(user: str, password: str) -> None:
    """User and password are unescaped, and escaped again in the full address."""
    password = f"Zz{password}zZ"
    address = parse_address(f"rtsp://{quote(user, safe='')}:{quote(password, safe='')}@host/path")
    assert (address.user, address.password) == (user, password)
    assert parse_address(address.full) == address
    assert address.bare == "rtsp://host/path"
    assert password not in repr(address)


@pytest.mark.parametrize(
    ("uri", "host", "port", "target"),
    [
        ("http://h", "h", None, "/"),
        ("http://h?x=1", "h", None, "/?x=1"),
        ("rtsp://192.168.1.9:8554/a/b?c=d&e", "192.168.1.9", 8554, "/a/b?c=d&e"),
        ("http://[fe80::1]:80/x", "fe80::1", 80, "/x"),
        ("http://u:p@ss@h/x#frag", "h", None, "/x"),
        ("http://10.0.0.9:80/cam@1", "10.0.0.9", 80, "/cam@1"),
        ("http://h/größe?%20~!", "h", None, "/gr%C3%B6%C3%9Fe?%20~!"),
    ],
)
def test_addresses(uri: str, host: str, port: int | None, target: str) -> None:
    """Host, port and path of common forms; with two @ the last one counts."""
    address = parse_address(uri)
    assert (address.host, address.port, address.target) == (host, port, target)


@pytest.mark.parametrize(
    "uri",
    [
        "http://",
        "http:///x",
        "rtsp://h:0/",
        "rtsp://h:66000/",
        "rtsp://h:x/",
        "rtsp://admin:12/34@cam/",
        "http://a b/",
        "http://h/\n",
    ],
)
def test_malformed_addresses(uri: str) -> None:
    """Each is refused in one line with a hint."""
    with pytest.raises(SourceError) as caught:
        parse_address(uri)
    assert "\n" not in caught.value.message
    assert caught.value.hint


@given(st.text(max_size=60))
def test_any_address_parses_or_is_refused(rest: str) -> None:
    """No text raises anything but SourceError."""
    try:
        address = parse_address(f"http://{rest}")
    except SourceError:
        return
    assert address.host
    assert address.target.startswith("/")


@given(st.text(max_size=60))
def test_any_query_is_read_or_refused(query: str) -> None:
    """Options are within their ranges, or SourceError is raised."""
    try:
        options = read_options("x", query, _KNOWN)
    except SourceError as error:
        assert error.hint  # noqa: PT017 - either outcome is right, each with its own demand
        return
    assert all(_KNOWN[key].low <= value <= _KNOWN[key].high for key, value in options.items())


@given(st.integers(1, 4096), st.floats(0.5, 240).map(lambda rate: round(rate, 3)))
def test_options_within_their_ranges(width: int, rate: float) -> None:
    """Whole numbers and decimals are read as written; missing ones have their defaults."""
    assert read_options("x", f"width={width}&rate={rate}", _KNOWN) == {"width": width, "rate": rate}
    assert read_options("x", f"rate={rate}", _KNOWN)["width"] == 640


@pytest.mark.parametrize(
    ("query", "match"),
    [
        ("width=0", "must lie in 1..4096"),
        ("rate=0.4", r"must lie in 0\.5"),
        ("width=1.5", "not valid"),
        ("width=", "not valid"),
        ("height=3", "height=3 is not valid"),
        ("width=-1", "not valid"),
        ("width=1e3", "not valid"),
        ("width=٣", "not valid"),
    ],
)
def test_refused_options(query: str, match: str) -> None:
    """A misspelt option is not ignored."""
    with pytest.raises(SourceError, match=match) as caught:
        read_options("camera:0", query, _KNOWN)
    assert caught.value.hint


def test_the_servers_query_stays_its_own() -> None:
    """Our options are removed from the query, and the rest is passed on byte by byte."""
    rest, options = take_options("http://h/v?b=%2F&timeout=7&a=1&a&=", {"timeout": TIMEOUT})
    assert rest == "http://h/v?b=%2F&a=1&a&="
    assert options == {"timeout": 7.0}
    assert take_options("http://h/v?timeout=7", {"timeout": TIMEOUT})[0] == "http://h/v"
    assert Timeouts.of(7) == Timeouts(open_s=14, read_s=7)
