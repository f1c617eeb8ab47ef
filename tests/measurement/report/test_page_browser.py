"""The page in a real browser: sorting by mouse and keyboard, phone and print layout, no errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from browser import chromium
from reports import answers, report, row, usual

from edge_resnet.measurement.report.write import write_report

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

_COLUMN = (
    'return [...document.querySelectorAll("#measurements tbody tr")].map(row => row.cells[arguments[0]].firstChild.textContent)'
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Five rows, one of them without a latency."""
    folder = tmp_path_factory.mktemp("page")
    found = usual()
    rows = (*found.rows, row("resnet101 fp32", None, answers(320)))
    return write_report(report(*rows, pairs=found.pairs, holes=found.holes), folder).as_uri()


def look(browser: Chrome, page: str, width: int = 1280, media: str = "screen") -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page)


def column(browser: Chrome, index: int) -> list[str]:
    return list(browser.execute_script(_COLUMN, index))


def heading(browser: Chrome, index: int) -> Any:
    return browser.find_elements("css selector", "#measurements thead th")[index]


def test_a_click_sorts_and_another_reverses(browser: Chrome, page: str) -> None:
    """By number, not by letter; cells that were not measured come last either way, and the heading shows the direction."""
    look(browser, page)
    assert column(browser, 1) == ["9.00", "18.0", "19.5", "52.0", "\N{EN DASH}"]
    button = heading(browser, 4).find_element("css selector", "button")
    button.click()
    assert column(browser, 4) == ["74.0", "75.0", "76.2", "77.5", "80.0"]
    assert heading(browser, 4).get_attribute("aria-sort") == "ascending"
    button.click()
    assert column(browser, 4) == ["80.0", "77.5", "76.2", "75.0", "74.0"]
    heading(browser, 1).find_element("css selector", "button").click()
    heading(browser, 1).find_element("css selector", "button").click()
    assert column(browser, 1) == ["52.0", "19.5", "18.0", "9.00", "\N{EN DASH}"]
    assert heading(browser, 4).get_attribute("aria-sort") is None


def test_the_keyboard_sorts_too(browser: Chrome, page: str) -> None:
    """A heading can be reached by Tab and activated by Enter."""
    look(browser, page)
    button = heading(browser, 0).find_element("css selector", "button")
    button.send_keys("\ue007")
    assert column(browser, 0)[0] == "resnet18 fp32"
    assert column(browser, 0)[-1] == "resnet101 fp32"
    assert browser.switch_to.active_element == button


def test_the_browser_reports_no_error(browser: Chrome, page: str) -> None:
    """No script fails, and the page's own policy allows everything that it needs."""
    look(browser, page)
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    natural = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert natural
    assert all(natural)


@pytest.mark.parametrize(("width", "media"), [(360, "screen"), (1280, "screen"), (690, "print")])
def test_it_fits_the_width(browser: Chrome, page: str, width: int, media: str) -> None:
    """On a phone wide tables and charts scroll inside themselves; on a screen and on A4 nothing is cut off."""
    look(browser, page, width, media)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    if width > 500:
        cut = "e => e.scrollWidth > e.clientWidth + 1"
        code = f'return [...document.querySelectorAll(".scroll")].filter({cut}).map(e => e.ariaLabel)'
        assert browser.execute_script(code) == []


def test_charts_take_the_text_colour_of_a_dark_page(browser: Chrome, page: str) -> None:
    """Their text is light in dark mode."""
    look(browser, page)
    colours = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": features})
        colours.append(browser.execute_script('return getComputedStyle(document.querySelector("#chart-front svg text")).fill'))
    assert colours == ["rgb(23, 33, 29)", "rgb(233, 239, 236)"]
