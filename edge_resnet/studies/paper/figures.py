"""The numbers printed in He et al. 2015 (arXiv:1512.03385), each with its table or section. Does not know about our results.

What the paper only draws (figures 1, 4, 6 and 7) is described in words; no number is read off a curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = [
    "CIFAR_ERROR",
    "CIFAR_MPARAMS",
    "CLAIMS",
    "IMAGENET_GFLOPS",
    "MULTISCALE_ERROR",
    "ONE_CROP_ERROR",
    "SCALES",
    "SOURCES",
    "TEN_CROP_ERROR",
    "TWIN_ERROR",
    "PaperError",
]


@dataclass(frozen=True)
class PaperError:
    """Error rates in percent. ``top5`` is None and ``spread``, over five runs, is empty if the paper does not give them."""

    top1: float
    top5: float | None = None
    spread: str = ""

    @property
    def text(self) -> str:
        """As the paper prints it: ``6.43 (6.61±0.16)`` or ``25.03 / 7.76``."""
        if self.top5 is not None:
            return f"{self.top1:.2f} / {self.top5:.2f}"
        return f"{self.top1:.2f}{f' ({self.spread})' if self.spread else ''}"


#: Depth → test error on CIFAR-10, option A, with augmentation: the best run, and mean ± standard deviation of five for 110.
CIFAR_ERROR: Mapping[int, PaperError] = MappingProxyType(
    {
        20: PaperError(8.75),
        32: PaperError(7.51),
        44: PaperError(7.17),
        56: PaperError(6.97),
        110: PaperError(6.43, spread="6.61±0.16"),
        1202: PaperError(7.93),
    }
)
#: Depth → parameters in 10⁶ of the same networks.
CIFAR_MPARAMS: Mapping[int, float] = MappingProxyType({20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7, 1202: 19.4})
#: Depth → multiply-adds in 10⁹ at 224 x 224 (the table calls them FLOPs).
IMAGENET_GFLOPS: Mapping[int, float] = MappingProxyType({18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3})
#: Network → ImageNet validation error, 10-crop: the plain and residual networks of figure 4, option A.
TWIN_ERROR: Mapping[str, PaperError] = MappingProxyType(
    {
        "plain-18": PaperError(27.94),
        "plain-34": PaperError(28.54),
        "ResNet-18": PaperError(27.88),
        "ResNet-34": PaperError(25.03),
    }
)
#: Network → ImageNet validation error, 10-crop; option B from 50 layers on.
TEN_CROP_ERROR: Mapping[str, PaperError] = MappingProxyType(
    {
        "plain-34": PaperError(28.54, 10.02),
        "ResNet-34 A": PaperError(25.03, 7.76),
        "ResNet-34 B": PaperError(24.52, 7.46),
        "ResNet-34 C": PaperError(24.19, 7.40),
        "ResNet-50": PaperError(22.85, 6.71),
        "ResNet-101": PaperError(21.75, 6.05),
        "ResNet-152": PaperError(21.43, 5.71),
    }
)
#: Network → ImageNet validation error of a single model, fully convolutional, scores averaged over ``SCALES``.
MULTISCALE_ERROR: Mapping[str, PaperError] = MappingProxyType(
    {
        "ResNet-34 B": PaperError(21.84, 5.71),
        "ResNet-34 C": PaperError(21.53, 5.60),
        "ResNet-50": PaperError(20.74, 5.25),
        "ResNet-101": PaperError(19.87, 4.60),
        "ResNet-152": PaperError(19.38, 4.49),
    }
)
#: Network → ImageNet validation error of one centre crop, of the models that the authors released; not in the paper.
ONE_CROP_ERROR: Mapping[str, PaperError] = MappingProxyType(
    {"ResNet-50": PaperError(24.7, 7.8), "ResNet-101": PaperError(23.6, 7.1), "ResNet-152": PaperError(23.0, 6.7)}
)
#: Short sides of multi-scale testing in pixels.
SCALES = (224, 256, 384, 480, 640)

#: Where each of the above is printed.
SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "CIFAR_ERROR": "table 6, section 4.2",
        "CIFAR_MPARAMS": "table 6, section 4.2",
        "IMAGENET_GFLOPS": "table 1, section 3.3",
        "TWIN_ERROR": "table 2, section 4.1",
        "TEN_CROP_ERROR": "table 3, section 4.1",
        "MULTISCALE_ERROR": "table 4, section 4.1",
        "ONE_CROP_ERROR": "README of the authors' repository deep-residual-networks",
        "SCALES": "section 3.4",
    }
)

#: What each experiment shows according to the paper, and where.
CLAIMS: Mapping[str, str] = MappingProxyType(
    {
        "degradation": "Deeper plain networks have higher training error; with shortcuts depth lowers it again "
        "(section 4.1 with figure 4, section 4.2 with figure 6).",
        "shortcuts": "Projections (B, C) are slightly better than zero-padded identity (A), but not essential "
        "(section 4.1, table 3).",
        "depth": "Test error falls from 20 to 110 layers; 1202 layers train as well and overfit (section 4.2, table 6).",
        "responses": "Residual branches respond less than plain layers, and less in deeper networks (section 4.2, figure 7).",
        "complexity": "152 layers have fewer multiply-adds than VGG-16 (15.3 · 10⁹); a CIFAR network of 110 layers "
        "has 1.7 · 10⁶ parameters (tables 1 and 6).",
        "tencrop": "Scores averaged over ten crops have a lower error than one crop (section 3.4, table 3).",
        "multiscale": "Fully convolutional testing at five scales has a lower error still (section 3.4, table 4).",
        "ensemble": "Six networks of different depths together have a lower error than the best of them: 3.57 % top-5 on the "
        "test set against 4.49 % on validation (section 4.1, tables 4 and 5).",
    }
)
