"""Preprocessing against torchvision, and decoding of good, odd and hostile files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from edge_resnet.core.errors import ConfigError, DataError
from edge_resnet.core.records import Interpolation, Preprocess
from edge_resnet.images.preprocess import ImageArray, decode_image, preprocess, preprocess_bgr, preprocess_file

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def noise(height: int, width: int, seed: int = 0) -> ImageArray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def torchvision_pil(image: ImageArray, spec: Preprocess) -> ImageArray:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    return np.asarray(_torchvisions(transforms, spec)(Image.fromarray(image)))


def torchvision_tensor(image: ImageArray, spec: Preprocess) -> ImageArray:
    transforms = pytest.importorskip("torchvision.transforms.v2")
    torch = pytest.importorskip("torch")
    return _torchvisions(transforms, spec)(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()


def _torchvisions(transforms: Any, spec: Preprocess) -> Any:
    mode = transforms.InterpolationMode(spec.interpolation)
    return transforms.Compose([transforms.Resize(spec.resize, mode, antialias=True), transforms.CenterCrop(spec.crop)])


def worst(one: ImageArray, other: ImageArray) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 48), st.integers(0, 48), st.integers(0, 99))
def test_every_size_agrees_with_torchvision_on_pil_images(
    method: Interpolation, height: int, width: int, crop: int, extra: int, seed: int
) -> None:
    """Any image, resize, crop and interpolation gives torchvision's PIL pixels within 1/255; bicubic with Pillow 13's order."""
    assume(max(height, width) / min(height, width) < 60)
    image, spec = noise(height, width, seed), Preprocess(crop + extra, crop, method)
    assert worst(preprocess(image, spec), torchvision_pil(image, spec)) <= 1


@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(16, 48), st.integers(0, 48), st.integers(0, 99))
def test_every_size_agrees_with_torchvision_on_tensors(height: int, width: int, crop: int, extra: int, seed: int) -> None:
    """Torch's uint8 kernel, whose weights have few bits, agrees within 1/255 wherever an image shrinks up to 20 times, but for a
    pixel in a thousand: its own difference from torchvision on Pillow's images adds to ours."""
    assume(max(height, width) / min(height, width) < 60 and min(height, width) < 20 * (crop + extra))
    image, spec = noise(height, width, seed), Preprocess(resize=crop + extra, crop=crop)
    ours, theirs = preprocess(image, spec).astype(int), torchvision_tensor(image, spec).astype(int)
    assert np.abs(ours - theirs).max() <= 2
    assert (np.abs(ours - theirs) > 1).mean() < 0.001


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (225, 224), (256, 256), (257, 256), (480, 640), (1080, 1920), (1920, 1080)])
def test_the_usual_spec_agrees_with_both_paths_on_odd_and_usual_sizes(size: tuple[int, int]) -> None:
    """Resize 256 and crop 224 agree with both of torchvision's paths within 1/255, portrait and landscape."""
    image, spec = noise(*size), Preprocess()
    result = preprocess(image, spec)
    assert worst(result, torchvision_pil(image, spec)) <= 1
    assert worst(result, torchvision_tensor(image, spec)) <= 1


@given(st.sampled_from([2, 3, 5, 6, 7, 9]), st.integers(1, 30), st.integers(1, 3), st.integers(0, 99))
def test_ties_in_the_rounding_stay_within_one(parts: int, side: int, aspect: int, seed: int) -> None:
    """Simple ratios, where sums often lie exactly between two values, differ by no more than 1 either."""
    image = noise(side * parts, side * parts * aspect + side, seed)
    for resize in (side * (parts - 1), side * (parts + 1), side * (2 * parts + 1)):
        spec = Preprocess(resize=resize, crop=max(1, resize * 2 // 3))
        assert worst(preprocess(image, spec), torchvision_pil(image, spec)) <= 1
        turned = np.ascontiguousarray(image.transpose(1, 0, 2))
        assert worst(preprocess(turned, spec), torchvision_pil(turned, spec)) <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (225, 224), (256, 256), (257, 256), (481, 639), (1079, 1917), (1917, 1079)])
@pytest.mark.parametrize("resize", [224, 232, 235, 256])
def test_the_specs_of_published_weights_agree_on_odd_sizes(size: tuple[int, int], resize: int) -> None:
    """Bicubic with crop_pct 0.95 and 1.0, and V2's 232, give torchvision's PIL pixels within 1/255; black and white too."""
    image = noise(*size)
    for pixels in (image, np.where(image > 127, 255, 0).astype(np.uint8)):
        spec = Preprocess(resize, 224, "bicubic")
        assert worst(preprocess(pixels, spec), torchvision_pil(pixels, spec)) <= 1
        assert worst(preprocess_bgr(pixels[..., ::-1], spec), preprocess(pixels, spec)) == 0


@pytest.mark.parametrize("size", [(900, 300), (901, 433), (700, 340), (90, 37)])
def test_bicubics_passes_have_one_order_with_every_pillow(size: tuple[int, int]) -> None:
    """An image that is more than twice as tall as wide is resized down first, as Pillow 13 does; older ones are made to."""
    (height, width), spec = size, Preprocess(32, 24, "bicubic")
    image = np.where(noise(height, width) > 127, 255, 0).astype(np.uint8)
    columns = Image.fromarray(image).resize((width, int(32 * height / width)), Image.Resampling.BICUBIC)
    whole = np.asarray(columns.resize((32, columns.height), Image.Resampling.BICUBIC))
    top = round((columns.height - 24) / 2)
    assert worst(preprocess(image, spec), whole[top : top + 24, 4:28]) <= 1


@pytest.mark.parametrize("size", [(2160, 3840), (3840, 2160)])
def test_4k_frames_agree_with_both_paths(size: tuple[int, int]) -> None:
    """A 4K frame agrees with both of torchvision's paths within 1/255."""
    image, spec = noise(*size), Preprocess()
    result = preprocess(image, spec)
    assert worst(result, torchvision_pil(image, spec)) <= 1
    assert worst(result, torchvision_tensor(image, spec)) <= 1


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (2, 3999)])
def test_very_long_images_agree_and_need_no_memory_for_what_is_cut_off(size: tuple[int, int]) -> None:
    """A line of 4,000 pixels agrees at a small spec, and is cut out of a million resized pixels at the usual one."""
    small = Preprocess(resize=12, crop=8)
    image = noise(*size)
    assert worst(preprocess(image, small), torchvision_pil(image, small)) <= 1
    assert preprocess(image, Preprocess()).shape == (224, 224, 3)


def test_the_usual_spec_is_exact_in_the_middle_of_a_long_image() -> None:
    """At the usual spec a long line shows what resizing its few central pixels alone shows."""
    image = noise(1, 4000)
    middle = image[:, 1996:2004]  # 224 of 256 pixels are 0.875 of a source pixel about column 2000
    assert worst(preprocess(image, Preprocess()), preprocess(np.ascontiguousarray(middle), Preprocess())) <= 1


def test_an_image_of_the_right_size_is_not_resampled() -> None:
    """Where the short side already fits, the result is a plain cut with torchvision's rounding, and a copy."""
    image = noise(256, 301)
    result = preprocess(image, Preprocess())
    assert np.array_equal(result, image[16:240, 38:262])  # (301 - 224) / 2 = 38.5, rounded to the even
    result[:] = 0
    assert image.any()


def test_pixels_beyond_the_crop_do_not_matter() -> None:
    """Changing the sides of a wide image, which the crop leaves out, changes nothing."""
    image, spec = noise(240, 640), Preprocess(resize=64, crop=64)
    changed = image.copy()
    changed[:, :180] = 0
    changed[:, 460:] = 255
    assert np.array_equal(preprocess(image, spec), preprocess(changed, spec))


def test_arrays_and_pil_images_give_the_same() -> None:
    """The kind of the argument does not matter, with and without a resize."""
    for size in ((100, 333), (64, 70)):
        image, spec = noise(*size), Preprocess(resize=64, crop=50)
        assert np.array_equal(preprocess(image, spec), preprocess(Image.fromarray(image), spec))


def test_the_result_is_contiguous_and_owned() -> None:
    """The result is a writable, contiguous uint8 array, also from a strided view and in BGR."""
    view = noise(200, 400)[::2, ::-2]
    for result in (preprocess(view, Preprocess(32, 32)), preprocess_bgr(view, Preprocess(32, 32))):
        assert result.dtype == np.uint8
        assert result.shape == (32, 32, 3)
        assert result.flags.c_contiguous
        assert result.flags.writeable
    assert np.array_equal(preprocess(view, Preprocess(32, 32)), preprocess(np.ascontiguousarray(view), Preprocess(32, 32)))


def test_bgr_frames_come_out_as_rgb() -> None:
    """Flipping before or after the resize is the same."""
    frame = noise(120, 160)
    spec = Preprocess(resize=40, crop=32)
    assert np.array_equal(preprocess_bgr(frame, spec), preprocess(np.ascontiguousarray(frame[..., ::-1]), spec))


@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.sampled_from([-2, -1, 1, 2]), st.sampled_from([-1, 1, 3])),
)
def test_a_bgr_view_of_any_strides_is_its_pixels(size: tuple[int, int], cut: tuple[int, int], steps: tuple[int, int]) -> None:
    """A strided part of a frame gives the same as its copy, and the frame does not change."""
    whole = noise(size[0] + cut[0], size[1] + cut[1])
    before = whole.copy()
    view = whole[cut[0] :: steps[0], cut[1] :: steps[1]]
    if view.size == 0:
        return
    spec = Preprocess(resize=9, crop=7)
    assert np.array_equal(preprocess_bgr(view, spec), preprocess(np.ascontiguousarray(view[..., ::-1]), spec))
    assert np.array_equal(whole, before)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[1, 2, 3]],
        Image.new("F", (4, 4)),
        Image.new("RGB", (0, 4)),
    ],
)
def test_another_shape_or_dtype_is_refused(image: ImageArray) -> None:
    """Nothing but (H, W, 3) uint8 with pixels in it is resized."""
    with pytest.raises(ConfigError):
        preprocess(image, Preprocess())


def test_a_pil_image_is_no_bgr_frame() -> None:
    """A Pillow image is always RGB, so that swapping its channels would be a mistake."""
    with pytest.raises(ConfigError, match="BGR"):
        preprocess_bgr(Image.new("RGB", (4, 4)), Preprocess())


def two_pixels(mode: str) -> Image.Image:
    """Red, then blue, in a mode that can hold them."""
    image = Image.new("RGB", (2, 1))
    image.putdata([RED, BLUE])
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("P", "gif"), ("RGB", "bmp"), ("CMYK", "tiff"), ("RGB", "ppm")],
)
def test_colours_survive_every_mode(tmp_path: Path, mode: str, suffix: str) -> None:
    """Red and blue stay red and blue from every colour mode."""
    path = tmp_path / f"image.{suffix}"
    two_pixels(mode).save(path)
    assert decode_image(path).tolist() == [[list(RED), list(BLUE)]]


@pytest.mark.parametrize(
    ("mode", "black", "white"), [("L", 0, 255), ("1", 0, 1), ("LA", (0, 255), (255, 255)), ("I;16", 0, 65535)]
)
def test_grey_images_become_three_equal_channels(tmp_path: Path, mode: str, black: object, white: object) -> None:
    """Black and white keep their values in 1, 8 and 16 bits."""
    image = Image.new(mode, (2, 1), black)
    image.putpixel((1, 0), white)
    image.save(tmp_path / "grey.png")
    assert decode_image(tmp_path / "grey.png").tolist() == [[[0] * 3, [255] * 3]]


def test_16_bit_grey_keeps_its_upper_byte(tmp_path: Path) -> None:
    """Middle grey of 16 bits is middle grey, where Pillow's own conversion gives white."""
    Image.fromarray(np.full((3, 3), 0x80FF, np.uint16)).save(tmp_path / "deep.png")
    assert (decode_image(tmp_path / "deep.png") == 0x80).all()


def test_a_palette_with_a_transparency_table_is_read_without_a_warning(tmp_path: Path) -> None:
    """The kind of PNG that makes Pillow warn is read like any other (warnings are errors here)."""
    two_pixels("P").save(tmp_path / "palette.png", transparency=bytes([0, 128, 255]))
    assert decode_image(tmp_path / "palette.png").shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("orientation", "first", "shape"),
    [(1, RED, (20, 40, 3)), (3, BLUE, (20, 40, 3)), (6, RED, (40, 20, 3)), (8, BLUE, (40, 20, 3))],
)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, first: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """An image with a red left half is rotated as its camera was held."""
    image = Image.new("RGB", (40, 20), BLUE)
    image.paste(RED, (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    pixels = decode_image(tmp_path / "turned.png")
    assert pixels.shape == shape
    assert tuple(pixels[0, 0].tolist()) == first


def test_damaged_exif_does_not_cost_the_image(tmp_path: Path) -> None:
    """Pixels are read even if the metadata is invalid."""
    Image.new("RGB", (4, 4), GREEN).save(tmp_path / "exif.png", exif=b"Exif\x00\x00nonsense that is no TIFF header")
    assert (decode_image(tmp_path / "exif.png") == GREEN).all()


def test_a_file_is_preprocessed_as_its_decoded_pixels(tmp_path: Path) -> None:
    """Decoding and preprocessing in one call gives the same as in two."""
    Image.fromarray(noise(90, 130)).save(tmp_path / "photo.jpg")
    spec = Preprocess(resize=40, crop=32)
    assert np.array_equal(preprocess_file(tmp_path / "photo.jpg", spec), preprocess(decode_image(tmp_path / "photo.jpg"), spec))


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [100_000, 12_000, 9_460])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_unread(tmp_path: Path, side: int) -> None:
    """A claim of more than 89 million pixels is an error before memory is taken, also where Pillow would only warn."""
    (tmp_path / "bomb.png").write_bytes(png_that_claims(side, side))
    with pytest.raises(DataError, match=r"bomb\.png is too large"):
        decode_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tiff"])
def test_truncated_files_are_named(tmp_path: Path, suffix: str) -> None:
    """Half a file is an error that names it, never half an image."""
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(buffer, {"jpg": "JPEG"}.get(suffix, suffix.upper()))
    path = tmp_path / f"half.{suffix}"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(DataError, match="half") as caught:
        decode_image(path)
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    """Text, nothing, and PostScript (which Pillow would hand to another program) are refused."""
    (tmp_path / "text.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"text\.jpg is not an image"):
        decode_image(tmp_path / "text.jpg")


def test_a_missing_file_a_folder_and_float_pixels_are_named(tmp_path: Path) -> None:
    """Each of the three is a DataError that contains the path."""
    Image.new("F", (4, 4)).save(tmp_path / "float.tiff")
    for path in (tmp_path / "absent.png", tmp_path, tmp_path / "float.tiff"):
        with pytest.raises(DataError, match=str(path)):
            decode_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(
    st.sampled_from(["JPEG", "PNG", "TIFF", "GIF", "WEBP"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=12),
)
def test_damaged_bytes_give_an_image_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, hits: list[tuple[int, int]]
) -> None:
    """Whatever bytes are changed, decoding ends in an image or in a DataError."""
    buffer = io.BytesIO()
    Image.fromarray(noise(16, 16)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for place, value in hits:
        content[place % len(content)] = value
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    try:
        shape = decode_image(path).shape
    except DataError as error:
        shape = (str(path) in str(error), 1, 3)
    assert shape[0]
    assert shape[2] == 3


def test_photographs_agree_with_torchvision(real_data: Path) -> None:
    """Real photographs come out as torchvision's PIL path gives them, within 1/255."""
    for path in sorted((real_data / "photos").glob("*.jpg")):
        assert worst(preprocess_file(path, Preprocess()), torchvision_pil(decode_image(path), Preprocess())) <= 1
