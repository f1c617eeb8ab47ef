"""One chart as SVG and PNG, the same bytes for the same data. Knows no data: a function paints it.

The SVG has no ground and takes its ink from the page around it (``currentColor``), so that it is right in light and dark; alone
in a file it follows the reader's wish. Its text is text. The PNG is on white.
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


#: One colour per series, in the order in which they are taken: blue, vermilion, green, purple, ochre, sky.
SERIES = ("#2f7fc1", "#d55e00", "#0a8f69", "#b5659a", "#a5790a", "#3a93ad")


#: Shapes beside the colours, for print and for those who see no colours (matplotlib's names).
MARKERS = ("o", "s", "^", "D", "v", "P")


#: Text and axes on white. In an SVG it becomes ``currentColor``: nothing else may be drawn in exactly this colour.
INK = "#17211d"


#: What is there, but not what counts.
DIMMED = "#83908a"


#: Opacity of ink as grid.
GRID_ALPHA = 0.16


#: Text, and what it stands on, where the reader wants it dark.
DARK_INK, DARK_GROUND = "#e9efec", "#19201d"


#: Dots per inch of the PNG: twice a screen's, for slides and dense displays.
_DPI = 192
#: Alone in a file the SVG has no page to take its colours from.
_ALONE = f"svg:root{{color:{INK}}}@media(prefers-color-scheme:dark){{svg:root{{color:{DARK_INK};background:{DARK_GROUND}}}}}"
#: Fonts as wide as the one that matplotlib measured with, where a reader's machine lacks it.
_FONTS = "'DejaVu Sans', Verdana, Geneva, sans-serif"


@dataclass(frozen=True)
class Chart:
    """``name``: of the files, and in front of every id in ``svg``. ``svg``: one ``<svg>`` element. ``alt``: what is to be seen,
    in words."""

    name: str
    title: str
    svg: str
    png: bytes
    alt: str


def draw(name: str, title: str, paint: Callable[[Axes], None], *, alt: str, size: tuple[float, float] = (7.0, 4.2)) -> Chart:
    """Let ``paint`` draw into empty axes; ``size``: width and height in inches. Raises MissingDependencyError."""
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
    """Write ``NAME.svg`` and ``NAME.png``, each whole or not at all. Raises BuildError."""
    svg = '<?xml version="1.0" encoding="utf-8"?>\n' + chart.svg + "\n"
    return write_whole(folder / f"{chart.name}.svg", svg.encode()), write_whole(folder / f"{chart.name}.png", chart.png)


def _style(name: str) -> Any:
    """Settings for one figure: matplotlib's own, without what a matplotlibrc of the user says."""
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
    """One element without prologue, with ids that no other chart of a page has."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :].strip()
    text = text.replace(INK, "currentColor").replace("'DejaVu Sans'", _FONTS)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    head, _, rest = text.partition(">")
    return f'{head} role="img" aria-label="{escape(alt)}">\n <style>{_ALONE}</style>{rest}'
