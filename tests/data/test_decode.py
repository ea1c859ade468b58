from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gipi.core.errors import DataError
from gipi.data.decode import Decoder, choose, decode, decode_array, decode_files, to_pixels
from gipi.data.source import ImageFiles

RGB, GREY = Decoder(3, 6, 5), Decoder(1, 6, 5)


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    """Return random pixels over the full range of the dtype."""
    return np.random.RandomState(0).randint(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def coded(image: Image.Image, fmt: str = "PNG", **options: object) -> bytes:
    """Return the bytes of an image file."""
    out = io.BytesIO()
    image.save(out, fmt, **options)  # type: ignore[arg-type]
    return out.getvalue()


def test_rgb_and_grey_are_the_pixels() -> None:
    rgb, grey = noise(6, 5, 3), noise(6, 5)
    assert np.array_equal(decode(coded(Image.fromarray(rgb)), RGB, "x"), rgb.transpose(2, 0, 1))
    assert np.array_equal(decode(coded(Image.fromarray(grey)), GREY, "x"), grey[None])
    assert np.array_equal(decode(coded(Image.fromarray(grey)), RGB, "x"), np.stack([grey] * 3))


def test_palette_is_looked_up() -> None:
    rgb = noise(6, 5, 3) // 64 * 64
    palette = Image.fromarray(rgb).quantize(64)
    wanted = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode(coded(palette), RGB, "x"), wanted)


def test_alpha_is_composited_on_white() -> None:
    rgba = np.zeros((6, 5, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 200, 0
    rgba[0, :, 3] = 255
    pixels = decode(coded(Image.fromarray(rgba)), RGB, "x")
    assert (pixels[:, 1:] == 255).all()
    assert pixels[:, 0, 0].tolist() == [200, 0, 0]
    grey = np.dstack([np.full((6, 5), 10, np.uint8), np.full((6, 5), 0, np.uint8)])
    assert (decode(coded(Image.fromarray(grey, "LA")), GREY, "x") == 255).all()
    palette = Image.fromarray(np.zeros((6, 5), np.uint8), "P")
    palette.putpalette([9, 9, 9, 80, 80, 80])
    assert (decode(coded(palette, transparency=0), RGB, "x") == 255).all()


def test_sixteen_bits_keep_their_full_range() -> None:
    wide = noise(6, 5, dtype=np.uint16)
    wide[0, 0], wide[0, 1], wide[0, 2] = 0, 65535, 257 * 77
    pixels = decode(coded(Image.fromarray(wide)), GREY, "x")[0]
    assert pixels[0, :3].tolist() == [0, 255, 77]
    assert np.abs(pixels - wide / 257).max() <= 0.5


def test_float_tiff_in_zero_to_one() -> None:
    values = np.linspace(0, 1, 30, dtype=np.float32).reshape(6, 5)
    pixels = decode(coded(Image.fromarray(values), "TIFF"), GREY, "x")[0]
    assert np.abs(pixels - values * 255).max() <= 0.5


def test_values_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    values = np.full((4, 4), 0.5, dtype=np.float32)
    values[1, 2] = np.nan
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif cannot be decoded \(it has values that are no"):
        decode(tmp_path / "a.tif", Decoder(1, 4, 4), "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = noise(6, 5, 3)
    undo = {  # how the camera stored what orientation `o` turns upright again
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2), 6: np.rot90,
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2), 8: lambda a: np.rot90(a, 3),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    assert np.array_equal(decode(coded(stored, exif=exif), RGB, "x"), upright.transpose(2, 0, 1))


def test_cmyk_and_one_bit_and_first_frame() -> None:
    cmyk = Image.new("CMYK", (5, 6), (0, 0, 0, 0))
    assert (decode(coded(cmyk, "TIFF"), RGB, "x") == 255).all()
    bit = Image.fromarray(noise(6, 5) > 99)
    assert set(np.unique(decode(coded(bit), GREY, "x"))) == {0, 255}
    frames = [Image.new("RGB", (5, 6), c) for c in ("red", "blue")]
    moving = coded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(moving, RGB, "x")[:, 0, 0].tolist() == [255, 0, 0]


def test_another_size_is_covered_and_the_middle_kept() -> None:
    wide = np.zeros((6, 15, 3), np.uint8)
    wide[:, 5:10] = 255
    assert (decode(coded(Image.fromarray(wide)), RGB, "x")[:, :, 1:4] == 255).all()
    flat = Image.new("RGB", (300, 400), (9, 99, 199))
    for fmt in ("PNG", "JPEG"):
        pixels = decode(coded(flat, fmt), RGB, "x")
        assert pixels.shape == (3, 6, 5)
        assert np.abs(pixels.astype(int) - [[[9]], [[99]], [[199]]]).max() <= 2


@pytest.mark.parametrize("cut", [0, 10, 60])
def test_a_corrupt_file_is_named(tmp_path: Path, cut: int) -> None:
    whole = coded(Image.fromarray(noise(40, 40, 3)))
    path = tmp_path / "사진.png"
    path.write_bytes(whole[:cut])
    files = ImageFiles((path,), tmp_path)
    with pytest.raises(DataError, match=r"사진\.png cannot be decoded"):
        decode_files(files, np.array([0]), RGB)
    with pytest.raises(DataError, match="gone"):
        decode(tmp_path / "no.png", RGB, "no.png")


def write(folder: Path, images: list[Image.Image]) -> ImageFiles:
    """Write pictures as files."""
    paths = []
    for i, image in enumerate(images):
        paths.append(folder / f"{i}.png")
        image.save(paths[-1])
    return ImageFiles(tuple(paths), folder)


def test_channels_and_size_come_from_the_files(tmp_path: Path) -> None:
    grey = [Image.fromarray(noise(8, 6)) for _ in range(3)]
    chosen = choose(write(tmp_path, grey), range(3), size=None)
    assert chosen.decoder == Decoder(1, 8, 6)
    assert "all pictures are 8x6" in chosen.reason
    as_colour = [image.convert("RGB") for image in grey]
    assert choose(write(tmp_path, as_colour), range(3), size=None).decoder.channels == 1
    mixed = [*as_colour[:2], Image.fromarray(noise(10, 6, 3))]
    chosen = choose(write(tmp_path, mixed), range(3), size=None)
    assert chosen.decoder == Decoder(3, 8, 6)
    assert "most pictures are 8x6" in chosen.reason
    many = choose(write(tmp_path, as_colour * 20), range(60), size=None)
    assert many.decoder.channels == 1
    three = [Image.new("RGB", (w, h)) for w, h in ((10, 20), (12, 30), (50, 22))]
    chosen = choose(write(tmp_path, three), range(3), size=None)
    assert (chosen.decoder.height, chosen.decoder.width) == (22, 12)
    large = [Image.new("RGB", (640, 320))]
    chosen = choose(write(tmp_path, large), range(1), size=None)
    assert (chosen.decoder.height, chosen.decoder.width) == (64, 128)
    assert "image_size" in chosen.reason
    assert choose(write(tmp_path, large), range(1), size=(9, 7)).decoder == Decoder(1, 9, 7)


def test_a_picture_on_its_side_counts_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(8, 6, 3)).save(tmp_path / "0.png", exif=exif)
    files = ImageFiles((tmp_path / "0.png",), tmp_path)
    assert choose(files, [0], size=None).decoder == Decoder(3, 6, 8)


def test_arrays_are_scaled_like_files() -> None:
    pixels = noise(4, 12, 10, 3)
    assert np.array_equal(decode_array(pixels, Decoder(3, 12, 10)), pixels.transpose(0, 3, 1, 2))
    scaled = decode_array(pixels, RGB)
    for i in range(4):
        assert np.array_equal(scaled[i], decode(coded(Image.fromarray(pixels[i])), RGB, "x"))
    with pytest.raises(DataError, match="12x10x3"):
        decode_array(pixels.astype(np.float32), RGB)


def test_every_mode_of_pillow_becomes_the_mode_asked_for() -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA",
                 "I;16", "RGBX", "PA", "La", "RGBa"):  # fmt: skip
        for channels, wanted in ((1, "L"), (3, "RGB")):
            assert to_pixels(Image.new(mode, (3, 2)), channels).mode == wanted
