"""Colours of charts, each a string ``#rrggbb``. Knows nothing of what is drawn.

Okabe and Ito's set (*Color Universal Design*, 2008), which colour-blind people can tell apart, darkened or lightened until each
has a contrast of 3 : 1 with white and with the dark page's ground (WCAG 2.1, 1.4.11). Yellow cannot have both and is left out.
"""

from __future__ import annotations

__all__ = ["DARK_GROUND", "DARK_INK", "DIMMED", "GRID_ALPHA", "INK", "MARKERS", "SERIES"]

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
