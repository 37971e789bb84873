"""Image files that Pillow alone would cut, misread or not know."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from deep_files import chunk, noise, png16, tiff
from PIL import Image

import vgx
from vgx.data.store import open_store
from vgx.errors import DataError
from vgx_builtin import backbones
from vgx_builtin.files import formats, image_decoding, image_files
from vgx_builtin.files.jxl import jxl_pixels


def read(data, channels=3, non_rgb="convert"):
    return image_decoding.decode(io.BytesIO(data), "a.tif", non_rgb, channels)


@pytest.fixture
def without_tifffile(monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)


# --- PNG files of 16 bits ----------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_in_a_png_file_are_kept(channels):
    array = noise(5, 7, channels)
    made = read(png16(array))
    assert made.dtype == np.uint16
    assert (made == array).all()


def test_a_transparent_colour_of_16_bits_is_transparent():
    array = noise(4, 4, 3)
    transparent = chunk(b"tRNS", struct.pack(">HHH", *array[1, 2]))
    made = read(png16(array, transparent))
    assert made.shape == (4, 4, 4)
    assert np.argwhere(made[..., 3] == 0).tolist() == [[1, 2]]


def test_a_png_file_of_16_bits_that_stays_cut_is_counted(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia_rs.io", None)
    (tmp_path / "a.png").write_bytes(png16(noise(8, 8, 3)))
    Image.new("RGB", (8, 8), "red").save(tmp_path / "b.png")
    part = vgx.discover().part("dataset", "image-folder")
    spec = vgx.ImageSpec(8)
    store = open_store(part(path=tmp_path).build(spec), spec)
    assert store.kind == "uint8"
    assert store.look.remarks == {"of 16 bits cut to 8": 1}
    assert "1 of 16 bits cut to 8" in store.look.counts()


def test_a_torn_png_file_of_16_bits_is_unreadable():
    whole = png16(noise(40, 40, 3))
    with pytest.raises(DataError, match=r"^a\.tif: OSError: image file is truncated"):
        read(whole[: len(whole) // 2])


def test_images_that_are_arrays_are_turned_as_their_camera_says():
    """Against Pillow, which turns the same image of 8 bits."""
    array = (np.arange(6).reshape(2, 3)[..., None] * 257).astype(np.uint16).repeat(3, 2)
    small = Image.fromarray((array >> 8).astype(np.uint8))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = chunk(b"eXIf", exif.tobytes()[6:])
        made = read(png16(array, data))
        file = io.BytesIO()
        small.save(file, "PNG", exif=exif)
        assert (made >> 8 == np.asarray(read(file.getvalue()))).all(), orientation


# --- TIFF files --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("pages", [3, 4, 5, 13])
def test_as_many_grey_pages_as_channels_are_channels(pages, kind):
    planes = noise(pages, 4, 6, 1, kind=kind)
    made = read(tiff(*planes), channels=pages)
    assert (np.asarray(made) == np.moveaxis(planes[..., 0], 0, -1)).all()
    assert np.asarray(made).dtype == kind
    if kind == np.uint8 and pages < 5:  # it might be a document
        assert made.info["remark"] == "whose pages are channels"


def test_three_pages_in_black_and_white_are_a_document():
    file, pages = io.BytesIO(), [Image.new("1", (9, 8), page % 2) for page in range(3)]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    assert read(file.getvalue(), 3).info["remark"].startswith("of several pages")
    grey = [page.convert("L") for page in pages]
    exif = Image.Exif()
    exif[0x0112] = 6
    grey[0].save(file := io.BytesIO(), "TIFF", save_all=True, append_images=grey[1:], exif=exif)
    turned = read(file.getvalue(), 3)
    assert (turned.size, turned.getpixel((0, 0))) == ((8, 9), (0, 255, 0))


@pytest.mark.parametrize(
    ("pages", "channels"),
    [(5, 3), (3, 1), (2, 4), (4, 3)],
)
def test_of_other_files_with_pages_the_first_is_used_and_they_are_counted(pages, channels):
    planes = noise(pages, 4, 6, 1)
    made = read(tiff(*planes), channels)
    assert (np.asarray(made) == planes[0, ..., 0]).all()
    assert made.info["remark"] == "of several pages, of which the first is used"
    assert "remark" not in read(tiff(planes[0]), channels).info


def test_pages_of_colours_are_no_channels():
    pages = noise(3, 4, 6, 3, kind=np.uint8)
    made = read(tiff(*pages), channels=3)
    assert (np.asarray(made) == pages[0]).all()


def test_a_file_with_another_number_of_pages_says_what_it_has(without_tifffile):
    pages = noise(5, 4, 6, 1)
    with pytest.raises(DataError, match=r"a\.tif: it has 5 pages.*--set image\.channels=5"):
        read(tiff(*pages), channels=7)
    odd = [pages[0], pages[1], noise(3, 3, 1)]
    with pytest.raises(DataError, match=r"a\.tif: page 2 differs from the first"):
        read(tiff(*odd), channels=3)


def test_without_tifffile_colours_of_16_bits_are_cut_and_counted(without_tifffile):
    array = noise(4, 6, 3)
    made = read(tiff(array))
    assert (np.asarray(made) == array >> 8).all()
    assert made.info["remark"] == "of 16 bits cut to 8"


def test_with_tifffile_colours_of_16_bits_are_kept():
    pytest.importorskip("tifffile")
    array = noise(4, 6, 3)
    for options in ({}, {"compression": 8}, {"planar": 2}):
        made = read(tiff(array, **options))
        assert made.dtype == np.uint16
        assert (made == array).all(), options
    many = noise(4, 6, 7)
    assert (read(tiff(many), channels=7) == many).all()
    with pytest.raises(DataError, match=r"it has 7 channels.*--set image\.channels=7"):
        read(tiff(many), channels=5)


OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels
 ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="6" SizeY="4" SizeC="3" SizeZ="1"
 SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="{count}">
<UUID FileName="{name}">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>"""


def test_a_description_leads_to_no_other_file(tmp_path, monkeypatch):
    """OME-XML may say that the pixels are those of another file, which may be a pipe."""
    pytest.importorskip("tifffile")
    own, other = noise(4, 6, 3), noise(4, 6, 3) // 2
    (tmp_path / "other.tif").write_bytes(tiff(other))
    words = OME.format(count=1, name=tmp_path / "other.tif").encode()
    (tmp_path / "own.tif").write_bytes(tiff(own, words=words))
    opened, opens = list[str](), open
    monkeypatch.setattr("builtins.open", lambda f, *a, **k: opened.append(f) or opens(f, *a, **k))
    assert (image_decoding.read(tmp_path / "own.tif", "own.tif", "convert") == own).all()
    assert str(tmp_path / "other.tif") not in map(str, opened)


@pytest.mark.parametrize(
    ("words", "tags"),
    [(OME.format(count=20_000_000, name="a.tif").encode(), 1), (b"a" * 100_000, 1000)],
    ids=["pages that are not there", "tags that share their bytes"],
)
def test_a_small_file_takes_little_memory(words, tags):
    pytest.importorskip("tifffile")
    data, made = tiff(noise(4, 6, 3), words=words, tags=tags), None
    tracemalloc.start()
    with contextlib.suppress(DataError):
        made = read(data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50 * 10**6
    assert (made is None) == (tags > 1)


def test_a_tile_larger_than_its_page_is_not_unpacked():
    pytest.importorskip("tifffile")
    array = noise(16, 16, 3)
    file = tiff(array, compression=8, cut=zlib.compress(bytes(10**7)))
    # The height of a strip becomes the width of a tile, and the order of samples its height.
    for before, after in (
        ((278, 4, 1, 16), (322, 4, 1, 10**5)),
        ((284, 3, 1, 1), (323, 4, 1, 10**5)),
    ):
        assert file.count(struct.pack("<HHII", *before)) == 1
        file = file.replace(struct.pack("<HHII", *before), struct.pack("<HHII", *after))
    with pytest.raises(DataError, match="60,000,000,000 bytes of pixels; at most 134,217,728"):
        read(file)


def test_of_colours_of_16_bits_the_first_page_is_used():
    pytest.importorskip("tifffile")
    pages = noise(2, 4, 6, 3)
    assert (read(tiff(*pages)) == pages[0]).all()


def test_as_many_grey_pages_of_a_kind_that_pillow_lacks_are_channels():
    pytest.importorskip("tifffile")
    pages = noise(5, 4, 6, 1, kind=np.float64)
    assert (read(tiff(*pages), channels=5) == np.moveaxis(pages[..., 0], 0, -1)).all()
    with pytest.raises(DataError, match=r"it has 5 channels.*--set image\.channels=5"):
        read(tiff(*pages), channels=3)
    smaller = noise(2, 2, 1, kind=np.float64)  # a thumbnail
    assert (read(tiff(pages[0], smaller), channels=1) == pages[0]).all()
    mask = np.full((4, 6, 1), 255, np.uint8)
    assert (read(tiff(pages[0], mask), channels=1) == pages[0]).all()


def lzw(data):
    """Bytes as LZW codes of 9 bits, each byte by itself: enough for fewer than 250 bytes."""
    bits = "".join(f"{code:09b}" for code in (256, *data, 257))
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


def test_colours_of_16_bits_in_another_compression_are_cut_and_counted():
    """Also with tifffile, which has no LZW here; Pillow has."""
    array = noise(4, 6, 3)
    made = read(tiff(array, compression=5, cut=lzw(array.tobytes())))
    assert (np.asarray(made) == array >> 8).all()
    assert made.info["remark"] == "of 16 bits cut to 8"


def test_a_folder_of_16_bit_colours_is_stored_as_16_bits(tmp_path):
    """As files on the disk, which have a number for a name when they are opened by it."""
    pytest.importorskip("tifffile")
    array = noise(16, 16, 3)
    for number in range(2):
        (tmp_path / f"{number}.tif").write_bytes(tiff(array + number))
    source = vgx.discover().part("dataset", "image-folder")(path=tmp_path).build(vgx.ImageSpec(16))
    store = open_store(source, vgx.ImageSpec(16))
    assert store.bad == 0
    assert [store.images[0].dtype, store.images.shape] == [np.float32, (2, 16, 16, 3)]
    assert np.allclose(store.images[0], array / 65535, atol=1e-6)


def test_what_is_compressed_to_more_than_the_image_is_no_image():
    pytest.importorskip("tifffile")
    bomb = zlib.compress(bytes(10**7))
    with pytest.raises(DataError, match="compressed data larger than the image"):
        read(tiff(noise(4, 6, 3), compression=8, cut=bomb))


def test_a_tiff_file_of_a_kind_that_is_not_read_is_said_to_be_that(without_tifffile):
    with pytest.raises(DataError, match=r"a\.tif: a TIFF of a kind that Pillow cannot read"):
        read(tiff(noise(4, 6, 7)))
    with pytest.raises(DataError, match=r"a\.tif: a TIFF of a kind that Pillow cannot read"):
        read(b"II+\0" + bytes(40))
    with pytest.raises(
        DataError, match=r"a\.tif: .*\(a TIFF of a kind that Pillow cannot read, or"
    ):
        read(tiff(noise(4, 6, 1), compression=50001))  # WebP


# --- formats that are decoded byte by byte -------------------------------------------------------


def in_qoi(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "QOI")
    return file.getvalue()


def in_ppm(array):
    """With a white of 1023, which Pillow scales to 255: a few bytes for each pixel."""
    height, width, _ = array.shape
    return (
        b"P6 %d %d 1023\n" % (width, height) + (array.astype(np.uint16) * 4).astype(">u2").tobytes()
    )


def in_runs(array):
    """A BMP file of runs of one pixel each, and grey as its palette."""
    height, width, _ = array.shape
    rows = [b"".join(b"\1%c" % grey for grey in row) + b"\0\0" for row in array[::-1, :, 0]]
    data = b"".join(rows) + b"\0\1"
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(256))
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(data), 0, 0, 256, 0)
    start = 14 + len(info) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start) + info + palette + data


@pytest.mark.parametrize("written", [in_qoi, in_ppm, in_runs])
def test_an_image_may_need_more_reads_than_its_header_may(written, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_READS", 300)
    array = np.random.default_rng(0).integers(0, 255, (40, 30, 1), np.uint8).repeat(3, 2)
    made = np.asarray(read(written(array)).convert("RGB"))
    assert (np.abs(made.astype(int) - array) <= 1).all()  # of 1023, a little is lost


def test_a_file_that_is_looked_through_without_end_is_refused(monkeypatch):
    """The beginning of a JPEG file and no marker after it: Pillow looks at each byte."""
    monkeypatch.setattr(image_files, "MAX_READS", 300)
    with pytest.raises(DataError, match="a.tif: OSError: no image, or one that takes too long to"):
        read(b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(10**5))


# --- what is no image --------------------------------------------------------------------------

POINTER = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 12345
"""


def test_a_pointer_of_git_lfs_is_named():
    with pytest.raises(DataError, match=r"a\.tif: a Git LFS pointer .*git lfs pull"):
        read(POINTER)


def test_a_pointer_in_the_place_of_weights_is_named(tmp_path):
    weights = tmp_path / "a.safetensors"
    weights.write_bytes(POINTER)
    with pytest.raises(vgx.RecipeError, match=r"weights: .*a\.safetensors: a Git LFS pointer"):
        backbones.create("test_resnet", vgx.ImageSpec(32), pretrained=False, weights=weights)


@pytest.mark.parametrize("sides", [(12000, 9000), (9000, 8000), (20000, 20000)])
def test_too_many_pixels_are_said_in_our_own_words(sides):
    """Beyond our own bound, and beyond both of Pillow's."""
    claim = chunk(b"IHDR", struct.pack(">IIBBBBB", *sides, 8, 0, 0, 0, 0))
    pixels = f"{sides[0] * sides[1]:,} pixels, and at most 67,108,864 are decoded: make the image "
    for warned in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            if not warned:
                patch.setattr(Image, "MAX_IMAGE_PIXELS", None)
            with pytest.raises(DataError, match=f"^a.tif: {pixels}smaller$"):
                read(b"\x89PNG\r\n\x1a\n" + claim + chunk(b"IDAT", b""))


@pytest.mark.parametrize(
    "size",
    [(1, 1), (8, 8), (256, 8), (40, 24), (3, 7), (32, 18), (200, 300), (9000, 2), (1, 600),
     (360, 300), (400, 300), (300, 200), (320, 180), (375, 300), (600, 300)],
)  # fmt: skip
@pytest.mark.parametrize("boxes", [False, True])
def test_the_size_of_a_jpeg_xl_image_is_known_before_it_is_decoded(size, boxes):
    pytest.importorskip("pillow_jxl")
    assert formats.load_reader("JXL")
    file = io.BytesIO()
    Image.new("L", size).save(file, "JXL", use_container=boxes)
    assert jxl_pixels(file) == size[0] * size[1]
    assert read(file.getvalue()).size == size


# A codestream that says 20,000 x 20,000 pixels and ends: no small sides; 2 and 19,999 in 18 bits
# for the height; 1, the width is the same.
LARGE = b"\xff\n" + (2 << 1 | 19_999 << 3 | 1 << 21).to_bytes(9, "little")


def box(kind, data):
    return struct.pack(">I4s", 8 + len(data), kind) + data


@pytest.mark.parametrize(
    "data",
    [
        LARGE,
        box(b"JXL ", b"\r\n\x87\n") + box(b"free", bytes(5)) + box(b"jxlc", LARGE),
        box(b"JXL ", b"\r\n\x87\n") + struct.pack(">I4s", 0, b"jxlc") + LARGE,
        box(b"JXL ", b"\r\n\x87\n") + struct.pack(">I4sQ", 1, b"jxlc", 27) + LARGE,
        box(b"JXL ", b"\r\n\x87\n")
        + b"".join(box(b"jxlp", bytes(4) + LARGE[n : n + 3]) for n in range(0, 11, 3)),
    ],
    ids=["bare", "in a box", "in the last box", "in a large box", "in pieces"],
)
def test_a_jpeg_xl_image_of_too_many_pixels_is_not_decoded(data):
    pytest.importorskip("pillow_jxl")
    with pytest.raises(DataError, match=r"^a\.tif: 400,000,000 pixels, and at most 67,108,864 are"):
        read(data)


@pytest.mark.parametrize(
    "rest",
    [b"", box(b"jxlc", LARGE[:6]), box(b"free", b"") * 2000 + box(b"jxlc", LARGE)],
    ids=["nothing", "a torn one", "too many boxes before it"],
)
def test_a_jpeg_xl_file_without_an_image_is_unreadable(rest):
    pytest.importorskip("pillow_jxl")
    with pytest.raises(DataError, match=r"^a\.tif: a JPEG XL file that is broken at its beginning"):
        read(box(b"JXL ", b"\r\n\x87\n") + rest)


@pytest.mark.parametrize(
    ("mode", "channels", "reason"),
    [
        ("L", 1, None), ("L", 3, "greyscale"), ("L", 4, "greyscale"), ("L", 5, "channels"),
        ("RGBA", 4, None), ("RGBA", 3, "with alpha"), ("RGBA", 1, "with alpha"), ("RGB", 1, None),
        ("I;16", 1, None), ("I;16", 3, "greyscale"), ("CMYK", 3, "in mode CMYK"),
    ],
)  # fmt: skip
def test_what_the_recipe_asks_for_is_never_left_out(mode, channels, reason):
    file = io.BytesIO()
    Image.new(mode, (4, 4)).save(file, "TIFF")
    if reason is None:
        assert read(file.getvalue(), channels, "skip").mode == mode
    else:
        with pytest.raises((vgx.Dropped, DataError), match=reason):
            read(file.getvalue(), channels, "skip")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_named_with_their_file(value):
    file = io.BytesIO()
    Image.fromarray(np.full((2, 2), value, np.float32)).save(file, "TIFF")
    with pytest.raises(DataError, match=r"a\.tif: some of its values are not finite"):
        read(file.getvalue())
