"""Preprocessing of an image to the network's input: antialiased resize of the short side, centre crop, 8-bit RGB.

Does not know about networks: mean and standard deviation are applied inside the graph.
"""

from __future__ import annotations

from contextlib import suppress
from math import ceil, floor
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import Preprocess
from edge_resnet.images.limits import MAX_PIXELS, refuse_costly

__all__ = [
    "Axis",
    "ImageArray",
    "check_image",
    "decode_image",
    "is_down_first",
    "plan_crop",
    "preprocess",
    "preprocess_bgr",
    "preprocess_file",
]

#: (H, W, 3) uint8.
ImageArray: TypeAlias = npt.NDArray[np.uint8]

# A closed list: Pillow would hand an EPS file to Ghostscript, and reads dozens of formats that no data set uses.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
#: The highest value that 14 bits do not reach.
_MIN_16_BIT = 1 << 14
#: Pillow's filter of an interpolation, and the source pixels that it reaches on each side of an image that is not shrunk.
_FILTERS = {"bilinear": (Image.Resampling.BILINEAR, 1.0), "bicubic": (Image.Resampling.BICUBIC, 2.0)}
_DEPTH_HINT = "scale the values to all 16 bits, or save the image with 8 bits per channel"


def preprocess(image: ImageArray | Image.Image, spec: Preprocess) -> ImageArray:
    """Resize the short side to ``spec.resize`` and cut out the central square of ``spec.crop`` pixels.

    ``image``: (H, W, 3) uint8 RGB of any size from 1x1, or a Pillow image of any mode but floats (its EXIF orientation is
    ignored; ``decode_image`` applies it). Returns a new contiguous array (crop, crop, 3) uint8 RGB, every value within 1/255 of
    torchvision's ``Resize(resize, interpolation, antialias=True)`` and ``CenterCrop(crop)``, whose rounding rules it follows.
    Only the pixels that the crop depends on are read. Raises ConfigError for another shape or dtype.
    """
    return _prepared(_checked(image), spec, "RGB")


def preprocess_bgr(frame: ImageArray, spec: Preprocess) -> ImageArray:
    """Preprocess a camera frame (H, W, 3) uint8 BGR like ``preprocess``; the result is RGB."""
    if isinstance(frame, Image.Image):
        raise ConfigError("a BGR frame must be an array, not a Pillow image", hint="use preprocess for RGB images")
    return _prepared(_checked(frame), spec, "BGR")


def preprocess_file(path: Path | str, spec: Preprocess) -> ImageArray:
    """Decode an image file and preprocess it without a full-size array in between. Raises DataError like ``decode_image``."""
    return preprocess(_decode(Path(path)), spec)


def decode_image(path: Path | str) -> ImageArray:
    """Read a JPEG, PNG, WebP, BMP, GIF, PPM or TIFF file and apply its EXIF orientation.

    Returns (H, W, 3) uint8 RGB. Grey is repeated, transparency dropped, CMYK and palettes are converted, 16-bit values keep
    their upper byte, integers up to 255 are kept whatever their type, and the first image of an animation is used. Raises
    DataError with the file's name if it is missing, not a regular file, not an image, truncated, claims more than 89 million
    pixels or 100 scans, or has pixels of unknown range: floats, and more than 8 bits of which only the lower ones are used.
    """
    return np.array(_decode(Path(path)))


class Axis(NamedTuple):
    """The part of one axis to resize: source pixels ``first``..``last``, and the box ``begin``..``end`` relative to them.

    It is resized to ``pixels`` pixels, of which ``trim`` lie before the crop.
    """

    first: int
    last: int
    begin: float
    end: float
    pixels: int
    trim: int

    @property
    def kept(self) -> bool:
        """Whether nothing is resized."""
        return self.begin == 0.0 and self.end == self.pixels == self.last - self.first

    def cut(self, crop: int) -> slice:
        """The source pixels of the crop, if nothing is resized."""
        return slice(self.first + self.trim, self.first + self.trim + crop)


def plan_crop(height: int, width: int, spec: Preprocess) -> tuple[Axis, Axis]:
    """The parts of an image of that size, in pixels, that ``preprocess`` resizes: the vertical and the horizontal axis."""
    new_width, new_height = _resized(width, height, spec.resize)
    both = spec.interpolation == "bicubic"
    across = _axis(width, new_width, spec, exact=both or width <= height)
    return _axis(height, new_height, spec, exact=both or width > height), across


def is_down_first(height: int, width: int, spec: Preprocess) -> bool:
    """Whether an image of that size is resized down first and then across; bilinear never is.

    Pillow 13 does so for tall images. The passes also limit values to 0..255, which a cubic leaves, so that the order shows.
    """
    new_width, new_height = _resized(width, height, spec.resize)
    return spec.interpolation == "bicubic" and height - new_height > 2 * max(width - new_width, 0)


def check_image(image: ImageArray) -> None:
    """Raise ConfigError for anything but a non-empty array (H, W, 3) uint8."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = getattr(image, "dtype", type(image).__name__)
        raise ConfigError(f"an image must be an array of uint8, not {kind}", hint="values 0..255, not divided by 255")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ConfigError(f"an image must have the shape (H, W, 3), not {image.shape}", hint="one RGB image, channels last")


def _checked(image: ImageArray | Image.Image) -> ImageArray | Image.Image:
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise ConfigError(f"an image of {image.width}x{image.height} pixels has nothing to resize", hint="is the file whole?")
        return image if image.mode == "RGB" else _rgb(image)
    check_image(image)
    return image


def _prepared(image: ImageArray | Image.Image, spec: Preprocess, order: Literal["RGB", "BGR"]) -> ImageArray:
    width, height = image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])
    down, across = plan_crop(height, width, spec)
    # Cut first: Pillow stores the box as 32-bit floats, too coarse for positions in very long images.
    if isinstance(image, Image.Image):
        part = image.crop((across.first, down.first, across.last, down.last))
    elif down.kept and across.kept:
        kept = image[down.cut(spec.crop), across.cut(spec.crop)]
        return np.array(kept if order == "RGB" else kept[..., ::-1], order="C")
    else:
        part = _image(image[down.first : down.last, across.first : across.last], order)
    method = _FILTERS[spec.interpolation][0]
    if is_down_first(height, width, spec):
        small = np.asarray(_down_first(part, down, across, method))
    else:
        small = np.asarray(_across_first(part, down, across, method))
    return np.array(small[down.trim : down.trim + spec.crop, across.trim : across.trim + spec.crop])


def _image(pixels: ImageArray, order: Literal["RGB", "BGR"]) -> Image.Image:
    """A Pillow image of (H, W, 3): Pillow swaps BGR while it copies, at an eighth of the cost of swapping the result."""
    height, width, _ = pixels.shape
    stride = pixels.strides[0]
    if pixels.strides[1:] != (3, 1) or stride < 3 * width or height == 1:
        pixels, stride = np.ascontiguousarray(pixels), 3 * width
    flat = np.lib.stride_tricks.as_strided(pixels, ((height - 1) * stride + 3 * width,), (1,), writeable=False)
    return Image.frombuffer("RGB", (width, height), flat, "raw", order, stride, 1)


def _resized(width: int, height: int, short: int) -> tuple[int, int]:
    if width <= height:
        return short, int(short * height / width)
    return int(short * width / height), short


def _axis(source: int, target: int, spec: Preprocess, *, exact: bool) -> Axis:
    """Plan the crop of an axis of ``source`` pixels that is resized to ``target``.

    Rounding the box to 32 bits can change a value by 1 in each of Pillow's two passes, hence by 2. One ``exact`` axis, resized
    whole if its box would be rounded, keeps the difference within 1. Both must be exact for a cubic,
    whose weights sum to 1.25 without their signs.
    """
    crop = spec.crop
    offset = int(round((target - crop) / 2.0))  # noqa: RUF046 - exactly as torchvision computes it
    scale = source / target
    begin, end = offset * scale, (offset + crop) * scale
    if exact and (float(np.float32(begin)) != begin or float(np.float32(end)) != end):
        return Axis(0, source, 0.0, float(source), target, offset)
    # The filter's reach, and a pixel for rounding; exactly the crop if nothing is resized.
    margin = 0.0 if source == target else _FILTERS[spec.interpolation][1] * max(scale, 1.0) + 1.0
    first, last = max(0, floor(begin - margin)), min(source, ceil(end + margin))
    return Axis(first, last, begin - first, end - first, crop, 0)


def _down_first(part: Image.Image, down: Axis, across: Axis, method: Image.Resampling) -> Image.Image:
    """Resize vertically first and then horizontally, with any Pillow."""
    columns = part.resize((part.width, down.pixels), method, box=(0, down.begin, part.width, down.end))
    return columns.resize((across.pixels, down.pixels), method, box=(across.begin, 0, across.end, down.pixels))


def _across_first(part: Image.Image, down: Axis, across: Axis, method: Image.Resampling) -> Image.Image:
    """Resize horizontally first and then vertically, as Pillow did up to 12.1: each pass rounds, so the order can change a value.

    Newer versions swap the order if the height shrinks far more, by rules that differ between them. The two passes are then
    requested one at a time.
    """
    # Pillow copies and does not resample if the box is the whole image and the size stays.
    if part.height - down.pixels <= max(part.width - across.pixels, 0):
        box = (across.begin, down.begin, across.end, down.end)
        return part.resize((across.pixels, down.pixels), method, box=box)
    rows = part.resize((across.pixels, part.height), method, box=(across.begin, 0, across.end, part.height))
    return rows.resize((across.pixels, down.pixels), method, box=(0, down.begin, across.pixels, down.end))


def _decode(path: Path) -> Image.Image:
    try:
        if path.exists() and not path.is_file():
            raise DataError("is not a regular file", hint="name an image")  # to open a pipe may block for ever
        with path.open("rb") as file, Image.open(file, formats=_FORMATS) as image:
            refuse_costly(image, file)
            stored = str(image.tile)  # says how the pixels are stored, until they are loaded
            image.load()
            if ";16" in stored and not image.mode.startswith("I"):
                _refuse_unused_bits(_brightest(image) << 8 | 0xFF)  # Pillow has kept the upper bytes of the colours
            _turn_upright(image)
            return _rgb(Image.fromarray((np.asarray(image) >> 4).astype(np.uint8)) if "I;12" in stored else image)
    except UnidentifiedImageError as error:
        found = _other_format(path)
        is_what = f"is {found}, which is not supported" if found else "is not an image"
        raise DataError(f"{path} {is_what}", hint=f"known formats: {', '.join(_FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        hint = f"resize it to at most {MAX_PIXELS // 1_000_000} million pixels"
        raise DataError(f"{path} is too large: {error}", hint=hint) from error
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", hint="check the spelling") from error
    except DataError as error:
        raise DataError(f"{path} {error}", hint=error.hint) from error
    except ConfigError as error:
        raise DataError(f"{path}: {error}", hint=error.hint) from error
    except Exception as error:  # Pillow's decoders raise anything from struct.error to SyntaxError on a damaged file
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise DataError(f"{path} cannot be read as an image: {reason}", hint="replace or remove the file") from error


def _other_format(path: Path) -> str:
    """The name of a known format that is not read, or "": phones write HEIC, often under the name of a JPEG."""
    with path.open("rb") as file:
        brand = file.read(12)
    return {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF"}.get(
        brand[8:] if brand[4:8] == b"ftyp" else b"", ""
    )


def _turn_upright(image: Image.Image) -> None:
    # Damaged metadata is no reason to refuse the pixels, which are already loaded.
    with suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ConfigError("floating-point pixels have no known range", hint="convert the image to 8 bits per channel")
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit values at 255, so that nearly every pixel turns white.
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0:
            raise ConfigError("negative pixels have no known range", hint=_DEPTH_HINT)
        if values.max() > 255:
            _refuse_unused_bits(int(values.max()))
            values >>= 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode in ("P", "PA") and "transparency" in image.info:
        image = image.convert("RGBA")  # converting straight to RGB warns if the transparency is a table
    return image.convert("RGB")


def _brightest(image: Image.Image) -> int:
    """The highest value of any channel but transparency."""
    channels = [band for name, band in zip(image.getbands(), image.split(), strict=True) if name != "A"]
    return max(int(np.asarray(band).max()) for band in channels)


def _refuse_unused_bits(highest: int) -> None:
    """Raise ConfigError if pixels of 16 bits are those of a camera of 10, 12 or 14, which would turn nearly black, or of 32.

    Nothing in a file says which it is, and a quarter of the range is reached by all but the darkest photographs.
    """
    if highest > 0xFFFF:
        raise ConfigError(f"pixels up to {highest} have no known range", hint=_DEPTH_HINT)
    if highest < _MIN_16_BIT:
        raise ConfigError(
            f"16-bit pixels that reach only {highest} of 65535 look like fewer bits in a larger type", hint=_DEPTH_HINT
        )
