"""Colours have enough contrast on every background."""

from __future__ import annotations

import itertools

import pytest

from edge_resnet.measurement.page.figure import DARK_GROUND, DARK_INK, DIMMED, INK, MARKERS, SERIES


def _luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.1)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    lights = sorted((_luminance(one), _luminance(other)))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


@pytest.mark.parametrize("colour", [*SERIES, DIMMED])
def test_every_series_shows_in_light_and_in_dark(colour: str) -> None:
    """A colour has a contrast of 3 : 1 with white and with the dark background."""
    assert _contrast(colour, "#ffffff") >= 3
    assert _contrast(colour, DARK_GROUND) >= 3


def test_text_is_easily_read() -> None:
    """Text has a contrast of 7 : 1 with its background, in light and in dark mode."""
    assert _contrast(INK, "#ffffff") >= 7
    assert _contrast(DARK_INK, DARK_GROUND) >= 7


def test_series_differ_without_their_colour() -> None:
    """Each series has its own marker, and no colour is that of the text, which a page may change."""
    assert len(set(MARKERS)) == len(MARKERS) == len(SERIES) == len(set(SERIES))
    assert INK not in SERIES


#: Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
_SEEN_BY = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
}


@pytest.mark.parametrize("eye", sorted(_SEEN_BY))
def test_the_first_four_series_differ_for_colour_blind_readers(eye: str) -> None:
    """Without red or green cones, any two of the first four differ by at least 12 in CIE Lab."""
    seen = [_lab(colour, eye) for colour in SERIES[:4]]
    nearest = min(
        sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5 for one, other in itertools.combinations(seen, 2)
    )
    assert nearest >= 12


def _lab(colour: str, eye: str) -> tuple[float, float, float]:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    red, green, blue = (min(1.0, max(0.0, sum(m * c for m, c in zip(row, linear, strict=True)))) for row in _SEEN_BY[eye])
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    fx, fy, fz = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)
