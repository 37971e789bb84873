"""Pictures of every mode as plain bytes, with numbers worked out by hand."""

from __future__ import annotations

import errno
import io
import warnings

import numpy as np
import pytest
from PIL import Image

import vgx
from vgx.data import decode as decoding
from vgx.data.decode import convert_image, decode, guarded
from vgx.errors import DataError


def of(values, mode):
    """A picture of one row."""
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "i4", "F": "f4"}[mode]
    return Image.frombytes(mode, (len(values), 1), np.array([values], kind).tobytes())


def row(picture, channels=1):
    made = convert_image(picture, channels)
    assert made.mode == {1: "L", 3: "RGB"}[channels]
    return [made.getpixel((x, 0)) for x in range(made.width)]


@pytest.mark.bar("D2")
@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bits_are_scaled_and_rounded(mode):
    # 128 / 257 = 0.498, 129 / 257 = 0.502, 32768 / 257 = 127.502
    values = [0, 128, 129, 257, 32768, 65535]
    assert row(of(values, mode)) == [0, 0, 1, 1, 128, 255]
    assert row(of(values, mode), 3)[4] == (128, 128, 128)


def test_integers_of_32_bits_go_from_their_smallest_to_their_largest():
    assert row(of([-100, 0, 100], "I")) == [0, 128, 255]
    assert row(of([-(2**31), 0, 2**31 - 1], "I")) == [0, 128, 255]
    assert row(of([7, 7], "I")) == [0, 0]


def test_a_pgm_file_of_16_bits_keeps_its_own_white():
    with Image.open(io.BytesIO(b"P2 3 1 1000\n0 500 600\n")) as picture:
        assert picture.mode == "I"
        assert row(picture) == [0, 128, 153]


def test_floats_within_zero_and_one_stay_and_others_are_stretched():
    assert row(of([0.25, 0.5], "F")) == [64, 128]
    assert row(of([-1, 0, 3], "F")) == [0, 64, 255]
    assert row(of([100, 200, 300], "F")) == [0, 128, 255]
    assert row(of([0.5, 0.5], "F"), 3) == [(128,) * 3] * 2
    assert row(of([-3e38, 3e38], "F")) == [0, 255]


@pytest.mark.bar("D2")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_make_no_picture(value):
    with pytest.raises(ValueError, match="not finite"):
        convert_image(of([0, value], "F"), 1)


@pytest.mark.bar("D2")
def test_what_is_transparent_is_laid_on_black():
    pixel = Image.new("RGBA", (1, 1), (200, 100, 50, 128))  # * 128 / 255
    assert row(pixel, 3) == [(100, 50, 25)]
    grey = Image.new("LA", (1, 1), (200, 0))
    assert row(grey, 3) == [(0, 0, 0)]
    assert row(grey, 1) == [0]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.info["transparency"] = 1
    assert row(palette, 3) == [(10, 20, 30), (0, 0, 0)]


def test_a_transparent_colour_of_16_bits_is_found_again():
    picture = Image.new("RGB", (2, 1), (0x12, 0x56, 0x9A))
    picture.putpixel((1, 0), (1, 2, 3))
    picture.info["transparency"] = (0x1234, 0x5678, 0x9ABC)  # as in a PNG file of 16 bits
    assert row(picture, 3) == [(0, 0, 0), (1, 2, 3)]
    deep = of([500, 65535], "I;16")
    deep.info["transparency"] = 65535
    assert row(deep) == [2, 0]


def test_lab_becomes_srgb():
    # CIE L* 53.24, a* 80.09, b* 67.20 is sRGB red; a and b are stored with 128 added.
    red = Image.frombytes("LAB", (1, 1), bytes([round(53.24 * 2.55), 80, 67]))
    ((r, g, b),) = row(red, 3)
    assert r > 245
    assert max(g, b) < 25


@pytest.mark.bar("D2")
def test_other_modes_are_what_pillow_makes_of_them():
    assert row(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), 3) == [(255, 0, 0)]
    assert row(Image.new("1", (1, 1), 1), 3) == [(255, 255, 255)]
    assert row(Image.new("RGB", (1, 1), (255, 0, 0)), 1) == [76]  # 0.299 * 255
    same = Image.new("RGB", (1, 1))
    assert convert_image(same, 3) is same


class Raising:
    fingerprint = "raising"

    def __init__(self, error, cause=None):
        self.error, self.cause = error, cause

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.error from self.cause


SPEC = vgx.ImageSpec(size=4)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("torn"), "image 0 cannot be read: ValueError: torn"),
        (EOFError(), "image 0 cannot be read: EOFError"),
        (DataError("a.png: torn"), "a.png: torn"),
        (FileNotFoundError(2, "gone"), "image 0 cannot be read: FileNotFoundError: [Errno 2] go"),
        (DataError("a\n\x1b[31m\udc80 b"), "a ?[31m? b"),
        (DataError("x" * 1000), "x" * 197 + "..."),
    ],
)
def test_a_bad_picture_is_a_line_that_any_terminal_takes(error, text):
    fault = decode(Raising(error), 0, SPEC)
    assert isinstance(fault, DataError)
    assert str(fault).startswith(text)
    assert str(fault).isprintable()


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.EMFILE, "many"), PermissionError(errno.EACCES, "closed")],
)
def test_what_is_no_fault_of_the_picture_always_ends_the_program(error):
    with pytest.raises(DataError, match="no fault of the image"):
        decode(Raising(error), 0, SPEC)
    with pytest.raises(DataError, match=r"a\.png.*no fault of the image"):
        decode(Raising(DataError("a.png: not read"), error), 0, SPEC)


def test_a_stop_that_was_asked_for_is_no_bad_picture():
    with pytest.raises(KeyboardInterrupt):
        decode(Raising(KeyboardInterrupt()), 0, SPEC)


def test_pillows_word_on_bombs_is_an_error_and_its_grumbling_is_not_heard():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own filter makes errors of all
        with guarded(), pytest.raises(Image.DecompressionBombWarning):
            warnings.warn("large", Image.DecompressionBombWarning, stacklevel=1)
    with guarded():
        warnings.warn_explicit("odd tag", UserWarning, "f", 1, module="PIL.TiffImagePlugin")
    with pytest.raises(UserWarning, match="odd tag"):
        warnings.warn_explicit("odd tag", UserWarning, "f", 1, module="PIL.TiffImagePlugin")


def test_a_picture_that_its_source_opened_but_did_not_read_is_guarded_too(monkeypatch):
    """What a stranger's source gives: Image.open and no more."""
    file = io.BytesIO()
    Image.effect_noise((40, 40), 90).save(file, "png")

    class Lazy(Raising):
        def __getitem__(self, index):
            return Image.open(io.BytesIO(file.getvalue()[: self.error]))

    assert decode(Lazy(None), 0, SPEC).pixels.shape == (4, 4, 3)
    assert "OSError: image file is truncated" in str(decode(Lazy(700), 0, SPEC))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with decoding.guarded():
        assert "DecompressionBombWarning" in str(decode(Lazy(None), 0, SPEC))
