"""Error curves as the paper draws them: training dashed, test bold, a colour per network. Knows no experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_resnet.measurement.page.figure import INK, MARKERS, SERIES, Chart, draw
from edge_resnet.paper.training import Trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curves"]

#: Above so many epochs a mark at each would hide the line.
_MARKED = 40


def curves(name: str, title: str, networks: Sequence[Trained], *, top: float | None = None) -> Chart:
    """Errors by iteration; ``top``: the upper end of the axis in percent, so that two charts can be read together."""

    def paint(axes: Axes) -> None:
        for place, network in enumerate(networks):
            color, mark = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
            steps = [record.step for record in network.records]
            tested = [(record.step, record.test_error) for record in network.records if record.test_error is not None]
            few = mark if len(steps) <= _MARKED else ""
            axes.plot(steps, [r.train_error for r in network.records], color=color, linestyle="--", linewidth=1.2)
            axes.plot(*zip(*tested, strict=True), color=color, linewidth=2.4, marker=few, markersize=5, label=network.name)
        axes.plot([], [], color=INK, linestyle="--", linewidth=1.2, label="training")
        axes.plot([], [], color=INK, linewidth=2.4, label="test")
        axes.set_xlabel("iterations")
        axes.set_ylabel("error, %")
        axes.set_ylim(0, top)
        axes.legend()

    words = [f"{n.name} ends at {n.train_error:.2f} % in training, {_percent(n.test_error)} in the test" for n in networks]
    return draw(name, title, paint, alt=f"Training error (dashed) and test error (bold) by iteration. {'; '.join(words)}.")


def _percent(value: float | None) -> str:
    return "no figure" if value is None else f"{value:.2f} %"
