"""Charts: reproducible, legible in light and dark mode, and safe to combine in one page."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from edge_resnet.core.errors import BuildError, MissingDependencyError
from edge_resnet.measurement.page.figure import INK, Chart, draw, save


def _paint(axes: Axes) -> None:
    axes.plot([1, 2, 3], [3, 1, 2], marker="o", label='5 < 6 & "so"')
    axes.fill_between([1, 2, 3], [3, 1, 2], clip_on=True)
    axes.set_xlabel("p90, ms")
    axes.legend()


@pytest.fixture(scope="module")
def chart() -> Chart:
    return draw("front", "Accuracy & speed", _paint, alt='Falls from 3 to 1, "then" rises')


def test_the_same_data_gives_the_same_bytes(chart: Chart) -> None:
    """A chart does not depend on time, process or randomness."""
    again = draw("front", "Accuracy & speed", _paint, alt='Falls from 3 to 1, "then" rises')
    assert (again.svg, again.png) == (chart.svg, chart.png)


def test_a_users_matplotlibrc_changes_nothing(chart: Chart) -> None:
    """matplotlib's global settings are neither used nor changed."""
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "lines.linewidth": 9}):
        assert draw("front", "Accuracy & speed", _paint, alt='Falls from 3 to 1, "then" rises').svg == chart.svg
    assert dict(mpl.rcParams) == before


def test_the_svg_is_one_well_formed_element_with_text(chart: Chart) -> None:
    """It parses as XML, has a text description, and its labels are text that can be searched and read aloud."""
    root = ET.fromstring(chart.svg)
    assert root.tag.endswith("svg")
    assert root.get("role") == "img"
    assert root.get("aria-label") == 'Falls from 3 to 1, "then" rises'
    texts = ["".join(node.itertext()) for node in root.iter() if node.tag.endswith("text")]
    assert {"Accuracy & speed", "p90, ms", '5 < 6 & "so"'} <= set(texts)


def test_the_svg_takes_its_colours_from_the_page(chart: Chart) -> None:
    """It has no text colour and no background of its own, except as a separate file."""
    drawn = re.sub(r"<style>.*?</style>", "", chart.svg, count=1)
    assert INK not in drawn
    assert "currentColor" in drawn
    assert "#ffffff" not in drawn


def test_two_charts_of_a_page_share_no_id(chart: Chart) -> None:
    """Every id begins with the chart's name, and every reference is to one of its own ids."""
    other = draw("other", "Accuracy & speed", _paint, alt="the same")
    ids = [set(re.findall(r'\bid="([^"]+)"', one.svg)) for one in (chart, other)]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', chart.svg))
    assert used
    assert used <= ids[0]


def test_the_png_is_on_white_and_not_empty(chart: Chart) -> None:
    """The image has white corners and dark pixels."""
    pixels = np.asarray(Image.open(io.BytesIO(chart.png)).convert("RGB"))
    assert pixels.shape[1] == 7 * 192
    assert (pixels[0, 0] == 255).all()
    assert (pixels.min(axis=2) < 60).sum() > 1000


def test_saving_writes_both_files(chart: Chart, tmp_path: Path) -> None:
    """Two files with the chart's name and no others; existing ones are replaced."""
    (tmp_path / "front.svg").write_text("old")
    paths = save(chart, tmp_path)
    assert [path.name for path in paths] == ["front.svg", "front.png"]
    assert ET.parse(paths[0]).getroot().get("role") == "img"
    assert paths[1].read_bytes() == chart.png
    assert sorted(path.name for path in tmp_path.iterdir()) == ["front.png", "front.svg"]


def test_a_folder_that_cannot_be_created(chart: Chart, tmp_path: Path) -> None:
    """If a file has the folder's name, the error holds the path."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(BuildError, match="taken"):
        save(chart, tmp_path / "taken")


def test_without_matplotlib_the_hint_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """MissingDependencyError with the command that installs it."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError) as caught:
        draw("front", "", _paint, alt="")
    assert "edge-resnet[report]" in caught.value.hint
