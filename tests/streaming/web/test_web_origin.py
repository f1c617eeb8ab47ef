"""What is an origin, and what is refused as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_resnet.core.errors import ConfigError
from edge_resnet.streaming.web.origin import Origin, parse_origin, web_origin


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://cam.example", Origin("https", "cam.example", 443)),
        ("HTTPS://Cam.Example:443", Origin("https", "cam.example", 443)),
        ("http://192.0.2.1:8080", Origin("http", "192.0.2.1", 8080)),
        ("http://[2001:db8::1]", Origin("http", "2001:db8::1", 80)),
    ],
)
def test_an_origin_has_scheme_host_and_port(text: str, origin: Origin) -> None:
    """The usual port is the same origin, written or not; so are capital letters."""
    assert parse_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    ["", "null", "cam.example", "https://", "https://a/path", "https://a?", "https://a#", "https://a:", "https://u@a", "ftp://a",
     "http://[", "http://[::1", "http://a:b", "http://a:0", "http://a:65536", "http://a:" + "9" * 5000, "https://ä.example",
     "https://a\x00b", "https://*", "https://a b"],
)  # fmt: skip
def test_what_is_more_or_less_than_an_origin_is_none(text: str) -> None:
    """None, never an exception; as an option it is an error that shows the right form."""
    assert parse_origin(text) is None
    with pytest.raises(ConfigError) as caught:
        web_origin(text)
    assert "https://cam.example" in caught.value.hint


@given(st.text(st.characters(codec="latin-1"), max_size=60) | st.text(alphabet="htps:/[]@.%0123456789?#", max_size=40))
def test_any_text_is_an_origin_or_none(text: str) -> None:
    """Whatever a header contains, it is parsed without an exception, and an origin has a host."""
    origin = parse_origin(text)
    assert origin is None or (origin.host and 0 < origin.port < 65536)


def test_the_option_may_end_in_a_slash() -> None:
    """As a browser's address bar shows it."""
    assert web_origin("https://cam.example/") == Origin("https", "cam.example", 443)
