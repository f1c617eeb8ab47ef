"""Draws a chart as SVG and PNG, with the colours that all charts share; the same data gives the same bytes.

The SVG has no background and takes its text colour from the page around it (``currentColor``), so that it suits light and dark
mode; as a file of its own it follows the reader's colour scheme. Its text is text. The PNG has a white background. Does not know
what is drawn: a function paints it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_resnet.core.errors import MissingDependencyError
from edge_resnet.core.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DARK_GROUND", "DARK_INK", "DIMMED", "GRID_ALPHA", "INK", "MARKERS", "SERIES", "Chart", "draw", "save"]

#: One colour per series, in this order: blue, vermilion, green, purple, ochre, sky.
SERIES = ("#2f7fc1", "#d55e00", "#0a8f69", "#b5659a", "#a5790a", "#3a93ad")
#: A marker per series as well, for print and for readers who do not see the colours (matplotlib's names).
MARKERS = ("o", "s", "^", "D", "v", "P")
#: Text and axes on white. In an SVG it becomes ``currentColor``, so nothing else may have exactly this colour.
INK = "#17211d"
#: Data in the background.
DIMMED = "#83908a"
#: Opacity of the grid, which is drawn in ``INK``.
GRID_ALPHA = 0.16
#: Text and background in dark mode.
DARK_INK, DARK_GROUND = "#e9efec", "#19201d"
#: Dots per inch of the PNG, for slides and dense displays.
_DPI = 192
#: The colours of an SVG file, which has no page to take them from.
_ALONE = f"svg:root{{color:{INK}}}@media(prefers-color-scheme:dark){{svg:root{{color:{DARK_INK};background:{DARK_GROUND}}}}}"
#: Fonts as wide as the one that matplotlib measured with, for machines without it.
_FONTS = "'DejaVu Sans', Verdana, Geneva, sans-serif"


@dataclass(frozen=True)
class Chart:
    """``name``: of the files, and the prefix of every id in ``svg``, which is one ``<svg>`` element.

    ``alt``: a text description.
    """

    name: str
    title: str
    svg: str
    png: bytes
    alt: str


def draw(name: str, title: str, paint: Callable[[Axes], None], *, alt: str, size: tuple[float, float] = (7.0, 4.2)) -> Chart:
    """Let ``paint`` draw into empty axes of ``size`` (width, height) in inches.

    Raises MissingDependencyError without matplotlib.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        missing = error.name or "matplotlib"
        raise MissingDependencyError(f"charts need {missing}", hint="pip install 'edge-resnet[report]'") from error
    with mpl.rc_context(_style(name)):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_axisbelow(True)
        paint(axes)
        svg, png = _svg(figure, name, alt), _png(figure)
    return Chart(name, title, svg, png, alt)


def save(chart: Chart, folder: Path) -> tuple[Path, Path]:
    """Write ``NAME.svg`` and ``NAME.png`` atomically. Raises BuildError."""
    svg = '<?xml version="1.0" encoding="utf-8"?>\n' + chart.svg + "\n"
    return write_whole(folder / f"{chart.name}.svg", svg.encode()), write_whole(folder / f"{chart.name}.png", chart.png)


def _style(name: str) -> Any:
    """Settings for one figure: matplotlib's defaults, whatever the user's matplotlibrc says."""
    import matplotlib as mpl
    from cycler import cycler

    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    defaults: Any = mpl.rcParamsDefault
    return {
        **{key: value for key, value in defaults.items() if not key.startswith(("backend", "interactive", "toolbar"))},
        **ink,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.prop_cycle": cycler(color=SERIES),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "grid.color": INK,
        "grid.alpha": GRID_ALPHA,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "legend.labelcolor": INK,
    }


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    return file.getvalue()


def _svg(figure: Figure, name: str, alt: str) -> str:
    """One element without a prologue, with ids that are unique in a page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = text.replace(INK, "currentColor").replace("'DejaVu Sans'", _FONTS)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    head, _, rest = text.partition(">")
    return f'{head} role="img" aria-label="{escape(alt)}">\n <style>{_ALONE}</style>{rest}'
