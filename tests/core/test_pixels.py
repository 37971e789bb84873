"""What an image becomes: fit, background, channels, and values of more than 8 bits."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import vgx
from vgx.data import cache, look
from vgx.data.batches import Batches, as_batch
from vgx.data.look import with_background
from vgx.data.peek import peek
from vgx.data.store import cached, open_store
from vgx.errors import DataError, RecipeError

CPU = torch.device("cpu")


class Images:
    """A source of given images; functions make theirs when they are asked for."""

    def __init__(self, *images, name="given"):
        self.images, self.fingerprint, self.reads = images, name, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads += 1
        return self.images[index].copy()


def noise(*shape, kind=np.uint8, high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(kind)


def stored(*images, **fields):
    """The store of images, as numbers from 0 to 1 [N, H, W, C]."""
    spec = vgx.ImageSpec(**{"size": 4, **fields})
    digest = hashlib.sha256(b"".join(np.asarray(image).tobytes() for image in images))
    return open_store(Images(*images, name=digest.hexdigest()), spec)


def numbers(store):
    images = store.images[:]
    return images / 255 if images.dtype == np.uint8 else images


# --- bytes are as they always were -------------------------------------------------------------


def test_photographs_are_the_bytes_that_they_were_before_there_were_other_fits():
    """Worked out with Pillow alone; a run that was trained on them can still be resumed."""
    photos = [Image.fromarray(noise(30, 41, 3, seed=seed)) for seed in range(5)]
    expected = [photo.resize((16, 16), Image.Resampling.BILINEAR).tobytes() for photo in photos]
    store = stored(*photos, size=16)
    assert store.images.dtype == np.uint8
    assert [image.tobytes() for image in store.images] == expected
    assert store.content == hashlib.sha256(b"".join(expected)).hexdigest()
    hashes = [int.from_bytes(hashlib.blake2b(row).digest()[:8], "little") for row in expected]
    assert store.hashes.tolist() == hashes
    assert store.image == vgx.ImageSpec(16)


# --- fit ---------------------------------------------------------------------------------------

SHAPES = [(30, 41), (41, 30), (8, 8), (3, 64), (64, 3), (1, 1), (96, 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [16, (24, 16), (16, 24)], ids=str)
def test_crop_and_pad_are_those_of_pillow(shape, size):
    photo = Image.fromarray(noise(*shape, 3))
    spec = vgx.ImageSpec(size)
    target, bilinear = (spec.width, spec.height), Image.Resampling.BILINEAR
    cropped = stored(photo, size=size, fit="crop").images[0]
    assert np.abs(cropped.astype(int) - ImageOps.fit(photo, target, bilinear)).max() <= 1
    padded = stored(photo, size=size, fit="pad", background="#0a141e").images[0]
    whole = ImageOps.pad(photo, target, bilinear, (10, 20, 30))
    assert np.abs(padded.astype(int) - np.asarray(whole)).max() <= 1


def test_each_fit_has_a_store_of_its_own():
    wide = Image.fromarray(noise(4, 8, 3))
    made = [stored(wide, fit=fit).content for fit in ("squash", "crop", "pad")]
    assert len({*made}) == len(cache.stores()) == 3


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_crop_takes_the_middle_and_pad_leaves_nothing_out(kind):
    """Nine columns by three rows: the middle three are bright, and so are the ends of the row."""
    bright = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[kind]
    wide = np.zeros((3, 9), kind)
    wide[:, 3:6] = bright
    wide[:, [0, 8]] = bright
    cropped = numbers(stored(wide, size=6, channels=1, fit="crop"))
    assert cropped[0, :, 1:5].min() == 1
    padded = numbers(stored(wide, size=9, channels=1, fit="pad", background="white"))[0, ..., 0]
    assert padded[3:6].tolist() == [[1, 0, 0, 1, 1, 1, 0, 0, 1]] * 3
    assert padded[[0, 1, 2, 6, 7, 8]].min() == 1
    dark = numbers(stored(wide, size=9, channels=1, fit="pad"))[0, ..., 0]
    assert dark[[0, 8]].max() == 0


# --- background --------------------------------------------------------------------------------


def disc(colour, opaque=True):
    """A square of a colour in the middle of what is transparent."""
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((*colour, 255), (2, 2, 6, 6))
    return image


@pytest.mark.parametrize(
    ("background", "corner"),
    [("auto", 0), ("black", 0), ("white", 255), ("#FF0000", 76), ("rgb(0, 255, 0)", 150)],
)
def test_what_is_transparent_shows_the_background(background, corner):
    image = stored(disc((9, 9, 9)), size=8, channels=1, background=background).images[0]
    assert image[0, 0] == corner  # 0.299 * 255 and 0.587 * 255
    assert image[4, 4] == 9


def test_the_background_is_laid_behind_before_the_image_is_resized():
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half.paste((0, 0, 0, 255), (0, 0, 1, 8))  # one column of eight is black, the others are white
    image = stored(half, size=4, background="white").images[0]
    plain = Image.new("RGB", (8, 8), "white")
    plain.paste((0, 0, 0), (0, 0, 1, 8))
    assert image.tobytes() == plain.resize((4, 4), Image.Resampling.BILINEAR).tobytes()


@pytest.mark.parametrize(
    ("image", "background"),
    [
        (disc((0, 0, 0)), "white"),
        (disc((20, 60, 20)), "white"),
        (disc((255, 255, 255)), "black"),
        (disc((255, 240, 0)), "black"),
        (np.asarray(disc((0, 0, 0))), "white"),
        (np.asarray(disc((0, 0, 0))).astype(np.uint16) * 257, "white"),
        (disc((0, 0, 0)).convert("LA"), "white"),
        (Image.new("RGBA", (4, 4), (0, 0, 0, 255)), "auto"),  # opaque
        (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "auto"),  # nothing is visible
        (Image.new("RGB", (4, 4)), "auto"),
        (noise(4, 4, kind=np.float32), "auto"),
    ],
)
def test_the_background_is_what_the_visible_part_differs_from(image, background):
    source = Images(Image.new("L", (4, 4)), image)
    assert with_background(source, vgx.ImageSpec(8)).background == background
    assert with_background(source, vgx.ImageSpec(8, background="red")).background == "red"
    assert with_background(source, vgx.ImageSpec(8, 4)).background == "auto"


def test_sixteen_usable_images_decide_about_the_background():
    class Torn(Images):
        def __getitem__(self, index):
            if index < 4:
                raise OSError("torn")
            return super().__getitem__(index)

    plain, clear = Image.new("RGB", (4, 4)), disc((0, 0, 0))
    assert with_background(Torn(*[plain] * 19, clear), vgx.ImageSpec(8)).background == "white"
    source = Images(*[plain] * 16, clear)
    assert with_background(source, vgx.ImageSpec(8)).background == "auto"
    assert source.reads == 16
    with pytest.raises(DataError, match="torn"):
        open_store(Torn(*[plain] * 5), vgx.ImageSpec(8))


# --- channels ----------------------------------------------------------------------------------


def test_rgba_stays_and_its_transparent_pixels_colour_nothing():
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 4, 8))
    store = stored(image, size=4, channels=4)
    assert store.images.shape == (1, 4, 4, 4)
    assert store.images[0, 0, 0].tolist() == [0, 0, 255, 255]
    assert store.images[0, 0, 3, 3] == 0
    assert store.images[0, :, :3, 0].max() == 0  # no red shines through
    opaque = stored(Image.new("L", (8, 8), 7), size=4, channels=4)
    assert opaque.images[0, 0, 0].tolist() == [7, 7, 7, 255]
    padded = stored(image.resize((4, 8)), size=8, channels=4, fit="pad").images[0]
    assert padded[0, 0].tolist() == [0, 0, 0, 0]
    plain = stored(image.resize((4, 8)), size=8, channels=4, fit="pad", background="white")
    assert plain.images[0, 0, 0].tolist() == [255] * 4


def test_rgba_of_16_bits_is_treated_like_that_of_8():
    image = np.zeros((8, 8, 4), np.uint16)
    image[..., 0] = 65535
    image[:, :4] = 0, 0, 65535, 65535
    values = numbers(stored(image, size=4, channels=4))[0]
    assert values[0, 0].tolist() == [0, 0, 1, 1]
    assert values[:, :3, 0].max() == 0
    half = np.full((8, 8, 4), 32768, np.uint16)  # half transparent on white: 3/4
    assert numbers(stored(half, background="white")) == pytest.approx(0.75, abs=1e-4)


@pytest.mark.parametrize("channels", [2, 5, 13, 256])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float64])
def test_arrays_of_any_number_of_channels_keep_them(channels, kind):
    array = noise(4, 4, channels, kind=kind)
    values = numbers(stored(array, channels=channels, range=(0, 255)))
    assert values.shape == (1, 4, 4, channels)
    assert values[0] == pytest.approx(array / 255, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "wanted", "value"),
    [
        (1, 3, [10, 10, 10]), (1, 4, [10, 10, 10, 255]), (3, 1, [16]),  # .299*10+.587*20+.114*16
        (3, 4, [10, 20, 16, 255]), (4, 3, [5, 10, 8]), (2, 1, [5]), (4, 4, [10, 20, 16, 128]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_rgb_and_rgba_become_each_other(given, wanted, value, kind):
    pixel = {1: [10], 2: [10, 128], 3: [10, 20, 16], 4: [10, 20, 16, 128]}[given]
    array = np.full((4, 4, given), pixel, np.uint8)
    if kind == np.uint16:
        array = array.astype(np.uint16) * np.uint16(257)
    spec = {"channels": wanted, "range": (0, 255) if kind == np.uint8 else (0, 65535)}
    assert numbers(stored(array, **spec))[0, 0, 0] * 255 == pytest.approx(value, abs=1)


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_other_numbers_of_channels_are_an_error_that_says_what_to_write(channels):
    with pytest.raises(DataError, match=r"5 in the image.*--set image\.channels=5"):
        stored(noise(4, 4, 5), channels=channels)
    if channels == 7:
        with pytest.raises(DataError, match=r"3 in the image, 7 in the recipe"):
            stored(Image.new("RGB", (4, 4)), channels=channels)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros(4, np.uint8), r"\[H, W\] or \[H, W, C\]"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"\[H, W\] or \[H, W, C\]"),
        (np.zeros((0, 4), np.uint8), "no image"),
        (np.zeros((4, 4), complex), "complex128"),
        (np.full((4, 4), "a"), "<U1"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.full((4, 4), 1e39), "not finite"),  # more than a float of 32 bits holds
        (Image.fromarray(np.full((4, 4), np.inf, np.float32)), "not finite"),
    ],
)
def test_what_is_no_image_is_said(array, why):
    with pytest.raises(DataError, match=f"image 0 cannot be read: .*{why}"):
        open_store(Images(array), vgx.ImageSpec(4))


def test_truth_values_are_black_and_white():
    assert stored(np.eye(4, dtype=bool), channels=1).images[0, ..., 0].tolist() == (
        (np.eye(4) * 255).tolist()
    )


# --- more than 8 bits --------------------------------------------------------------------------


def deep(values, mode="I;16"):
    return Image.fromarray(np.array(values, {"I;16": np.uint16, "F": np.float32}[mode]))


@pytest.mark.parametrize(
    ("highest", "white"), [(1, 1), (3, 3), (600, 1023), (1023, 1023), (1024, 2047), (65535, 65535)]
)
def test_sixteen_bits_go_from_0_to_the_bits_that_are_used_in_all_images(highest, white):
    one, two = np.zeros((4, 4), np.uint16), np.full((4, 4), highest, np.uint16)
    store = stored(deep(one), deep(two), channels=1)
    assert (store.kind, store.image.range) == ("uint16", (0, white))
    assert store.images[1:].dtype == np.float32
    assert numbers(store)[1] == pytest.approx(highest / white)
    assert numbers(store)[0].max() == 0


def test_all_16_bits_are_kept():
    """Neighbouring levels stay apart, which 8 bits would make one."""
    values = np.arange(16).reshape(4, 4) + 30000
    store = stored(values.astype(np.uint16), channels=1, range=(30000, 30015))
    assert numbers(store)[0, ..., 0] * 15 == pytest.approx(np.arange(16).reshape(4, 4), abs=1e-5)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_wide_values_are_resized_at_their_own_precision(kind):
    """The mean of a block of two by two, worked out with numpy: a triangle."""
    array = noise(8, 8, kind=kind, high=60000)
    values = numbers(stored(array, size=4, channels=1, range=(0, 65535)))[0, ..., 0] * 65535
    weights = np.array([1, 3, 3, 1]) / 8
    block = array[1:5, 1:5].astype(float)  # around rows 2, 3 and columns 2, 3
    assert values[1, 1] == pytest.approx(weights @ block @ weights, abs=1)


@pytest.mark.parametrize(
    ("images", "limits"),
    [
        ([[0.25, 0.5], [0.0, 0.75]], (0, 1)),
        ([[-1, 0], [3, 3]], (-1, 3)),
        ([[0, 200], [100, 300]], (0, 300)),
        ([[-3e38, 0], [0, 3e38]], (-3e38, 3e38)),
        ([[7, 7], [7, 7]], (7, 7)),
    ],
)
def test_floats_are_scaled_alike_in_all_images(images, limits):
    arrays = [np.repeat(np.array([row], np.float32), 2, axis=0).repeat(2, 0) for row in images]
    wide = [array.repeat(2, 1) for array in arrays]  # [4, 4]
    store = stored(*wide, channels=1)
    assert store.kind == "float32"
    assert store.image.range == pytest.approx(limits)
    low, high = map(float, limits)
    expected = (np.stack(wide).astype(float) - low) / ((high - low) or 1)
    assert numbers(store)[..., 0] == pytest.approx(expected, abs=1e-6)


def test_integers_of_32_bits_are_floats():
    store = stored(Image.fromarray(np.full((4, 4), 100000, np.int32)), deep([[0.0] * 4] * 4, "F"))
    assert (store.kind, store.image.range) == ("float32", (0, 100000))


@pytest.mark.parametrize("late", [False, True])
def test_a_mixed_set_is_kept_as_its_widest_kind(late):
    """A wider image begins the store again, whether it comes first or last of many."""
    plain = [Image.new("L", (4, 4), level) for level in range(200)]
    wide = deep(np.full((4, 4), 514, np.uint16))
    store = stored(*([*plain, wide] if late else [wide, *plain]), channels=1)
    (about,) = cache.stores()
    assert store.kind == "uint16"
    assert store.image.range == (0, 65535)  # as 8 bits are whole
    levels = numbers(store)[:, 0, 0, 0] * 255
    expected = [*range(200), 2] if late else [2, *range(200)]
    assert levels == pytest.approx(expected, abs=1e-4)
    assert about.images == 201
    assert store.look.kinds == {"uint16": 1, "uint8": 200}
    size = (about.path / "images.u8").stat().st_size
    assert size == 201 * 4 * 4 * 2
    dark, bright = (deep(np.full((4, 4), value), "F") for value in (-70, 0.5))
    floats = stored(*plain[:3], wide, bright, dark, channels=1)
    assert (floats.kind, floats.image.range) == ("float32", (0, 1))
    values = numbers(floats)[:, 0, 0, 0]
    assert values == pytest.approx([0, 1 / 255, 2 / 255, 2 / 255, 0.5, 0], abs=1e-6)
    assert "floats are clipped to 0 .. 1" in " ".join(floats.look.notices(floats.image, 6))


def test_the_range_may_be_given_and_needs_no_other_store():
    images = [noise(4, 4, kind=np.uint16, high=1000, seed=seed) for seed in range(3)]
    first = stored(*images, channels=1)
    narrow = stored(*images, channels=1, range=(100, 500))
    expected = ((np.stack(images)[..., None] - 100.0) / 400).clip(0, 1)
    assert numbers(narrow) == pytest.approx(expected, abs=1e-6)
    assert len(cache.stores()) == 1
    assert first.content != narrow.content  # other images for a training
    for other in ((0, 500), (100, 600)):
        assert stored(*images, channels=1, range=other).content != narrow.content
    settled = stored(*images, channels=1, range=first.image.range)
    assert settled.content == first.content
    bytes_ = stored(Image.new("L", (4, 4), 50), channels=1, range=(0, 100))
    assert numbers(bytes_) == pytest.approx(0.5)


def test_a_store_of_wide_values_is_found_verified_and_read_row_by_row():
    images = [noise(4, 4, 3, kind=np.uint16, high=65536, seed=seed) for seed in range(12)]
    spec = vgx.ImageSpec(4)
    source = Images(*images)
    store = open_store(source, spec)
    again = open_store(Images(), replace(spec, range=store.image.range), verify=True)
    assert (again.images[:] == store.images[:]).all()
    assert cached("given", spec).content == store.content
    assert store.images.nbytes == 12 * 4 * 4 * 3 * 4
    assert len(store.images) == 12
    rows = np.array([7, 2])
    assert (store.images[rows] == (np.stack(images)[rows] / 65535).astype(np.float32)).all()
    batches = Batches(store.images, 4, 0, CPU)
    plain = batches[1].images
    batches.reside()
    assert torch.equal(batches[1].images, plain)
    assert as_batch(store, 2, CPU).images[1, :, 0, 0].tolist() == pytest.approx(
        (images[1][0, 0] / 65535).tolist()
    )
    flat = np.concatenate([image.reshape(-1) for image in images]).tobytes()
    damaged = bytearray(flat)
    damaged[5] ^= 1
    (folder,) = (vgx.cache_dir() / "images").glob("[0-9a-f]*")
    assert (folder / "images.u8").read_bytes() == flat
    (folder / "images.u8").write_bytes(damaged)
    with pytest.warns(vgx.Notice, match="damaged"):
        assert open_store(Images(*images), spec, verify=True).content == store.content


def test_a_first_look_scales_what_it_sees():
    store = peek(Images(Image.new("L", (4, 4), 255), deep([[1000] * 4] * 4)), vgx.ImageSpec(4), 2)
    assert numbers(store)[:, 0, 0, 0] == pytest.approx([1, 1000 / 65535])
    assert store.image.range == (0, 65535)


def test_floats_are_padded_with_the_background_whatever_their_range():
    wide = np.full((2, 4), -1000, np.float32)
    wide[:, 2:] = 3000
    store = stored(wide, channels=1, fit="pad", background="#808080")
    assert store.image.range == (-1000, 3000)
    assert numbers(store)[0, :, :, 0] == pytest.approx(
        np.array([[128 / 255] * 4, [0, 0, 1, 1], [0, 0, 1, 1], [128 / 255] * 4])
    )


def test_sixteen_bits_that_use_few_are_padded_with_black_or_white_only():
    wide = np.full((2, 4), 600, np.uint16)
    for background, value in (("black", 0), ("white", 1), ("auto", 0)):
        store = stored(wide, channels=1, fit="pad", background=background)
        assert store.image.range == (0, 1023)
        assert numbers(store)[0, 0, 0] == value
    with pytest.raises(RecipeError, match=r"image\.background.*black or white.*image\.fit=crop"):
        stored(wide, channels=1, fit="pad", background="red")
    whole = stored(wide, channels=1, fit="pad", background="red", range=(0, 65535))
    assert numbers(whole)[0, 0, 0] == pytest.approx(76.245 / 255, abs=1e-4)


def test_a_transparent_grey_of_16_bits_shows_the_background():
    grey = deep([[500, 65535] * 2] * 4)
    file = io.BytesIO()
    grey.save(file, "PNG", transparency=500)
    opened = Image.open(io.BytesIO(file.getvalue()))
    opened.load()
    if "transparency" not in opened.info:
        opened.info["transparency"] = 500
    source = Images(opened)
    source.images[0].info["transparency"] = 500
    values = numbers(open_store(source, vgx.ImageSpec(4, 1, background="white")))
    assert values.min() == 1


# --- one look at the store ---------------------------------------------------------------------


def seen(*images, **fields):
    return stored(*images, **{"size": 16, **fields}).look


def test_flat_images_are_counted():
    thin = Image.new("L", (16, 16), 255)
    thin.putpixel((1, 1), 0)  # between the points that are looked at first
    noisy = Image.fromarray(noise(16, 16, high=2) + np.uint8(100))
    images = [Image.new("RGB", (16, 16), (level, 9, 9)) for level in (0, 90, 255)]
    found = seen(*images, thin, noisy, Image.fromarray(noise(16, 16)), size=32)
    assert (found.looked, found.flat) == (6, 4)
    large = Image.new("L", (96, 96))
    large.putpixel((1, 1), 255)
    assert seen(large, size=96).flat == 0


def test_equal_and_nearly_equal_images_are_counted():
    one, two, three = (Image.fromarray(noise(16, 16, 3, seed=seed)) for seed in range(3))
    near = Image.fromarray((np.asarray(one) // 2 * 2).astype(np.uint8))
    assert seen(one, two, three).alike == 0
    assert seen(one, two, three, two).alike == 2
    assert seen(one, near, two).alike == 2
    other = Image.fromarray((np.asarray(one) // 40 * 40).astype(np.uint8))
    assert seen(one, other).alike == 0
    assert seen(*[one] * 5).alike == 5
    assert seen(*[Image.new("L", (16, 16), 9)] * 5).alike == 0  # they are counted as flat


def test_very_dark_images_are_counted():
    dark = Image.fromarray(noise(16, 16, high=20))
    star = Image.fromarray(noise(96, 96, high=20))
    star.putpixel((1, 1), 255)
    assert seen(dark, star, Image.new("L", (16, 16)), size=96).dark == 1
    assert seen(dark).used == pytest.approx(19 / 255)
    wide = Image.fromarray(noise(16, 16, kind=np.uint16, high=1024))
    assert seen(wide, channels=1).used > 0.9
    assert seen(wide, channels=1).dark == 0


def test_a_large_store_is_looked_at_here_and_there(monkeypatch):
    monkeypatch.setattr(look, "LOOKED", 8)
    monkeypatch.setattr(look, "COMPARED", 4)
    images = [Image.fromarray(noise(16, 16, seed=seed)) for seed in range(30)]
    images[::5] = [Image.new("L", (16, 16), 200)] * 6
    found = seen(*images)
    assert (found.looked, found.flat) == (8, 2)  # rows 0, 4, 8, ... 28: of these 0 and 20 are flat
    assert "2 of 8 images looked at are one flat colour" in " ".join(
        found.notices(vgx.ImageSpec(16), 30)
    )
    twice = [Image.fromarray(noise(16, 16, seed=seed)) for seed in range(29)]
    assert seen(*twice, twice[4]).alike == 1  # row 4 is looked at, and row 29 is not


def notices(found, total=None, **fields):
    spec = vgx.ImageSpec(**{"size": 16, **fields})
    return " | ".join(found.notices(spec, total or found.looked))


def test_notices_say_what_to_write():
    plain = look.Look(looked=20)
    assert notices(plain) == ""
    assert notices(replace(plain, flat=1)) == ""
    flat = replace(plain, flat=18)
    assert notices(flat).startswith(
        "18 of 20 images are one flat colour; transparent ones may need "
    )
    assert notices(flat).endswith("--set image.background=white")
    assert notices(flat, background="white").endswith("--set image.background=black")
    assert notices(replace(plain, alike=20)) == "20 of 20 images are nearly equal to another one"
    dark = "3 of 20 images have no value above a tenth of the range; for a smaller range: --set "
    assert notices(replace(plain, dark=3)) == dark + "image.range=[LOW, HIGH]"
    assert notices(replace(plain, dark=2)) == ""
    assert "use 5 % of the range of values; --set image.range=" in notices(
        replace(plain, used=0.05)
    )
    mixed = notices(replace(plain, kinds={"uint16": 3, "uint8": 17}))
    assert "several kinds of values (16 bits: 3, 8 bits: 17)" in mixed


@pytest.mark.parametrize(
    ("ratio", "size", "noticed"),
    [
        (1.5, 16, True), (0.66, 16, True), (1.1, 16, False), (0.9, 16, False),
        (1.5, (32, 48), False), (1.0, (32, 48), True), (3.0, (32, 64), True),
        (2.1, (32, 64), False),
    ],
)  # fmt: skip
def test_squashed_images_are_told_with_the_other_words(ratio, size, noticed):
    found = look.Look(looked=9, ratio=ratio)
    text = notices(found, size=size)
    assert ("image.fit=crop" in text and "image.fit=pad" in text) == noticed
    assert notices(found, size=size, fit="crop") == notices(found, size=size, fit="pad") == ""


def test_the_median_ratio_is_that_of_the_images_as_they_were():
    images = [Image.new("L", (size, 10), size) for size in (10, 20, 30, 500, 10)]
    assert seen(*images).ratio == 2
    assert stored(np.zeros((10, 30), np.uint16)).look.ratio == 3


def test_a_look_is_kept_in_the_store_and_one_that_is_not_understood_is_none():
    store = stored(Image.new("L", (8, 4)), Image.new("L", (8, 4), 9))
    (made,) = cache.stores()
    text = (made.path / "store.json").read_text()
    assert '"flat": 2' in text
    assert store.look == look.Look(looked=2, flat=2, used=9 / 255, ratio=2, kinds={"uint8": 2})
    assert look.Look.read({"flat": "many"}) == look.Look()
    assert look.Look.read({"more": 1}) == look.Look()
    assert look.Look.read({"flat": 3}) == look.Look(flat=3)
