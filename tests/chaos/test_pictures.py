"""Pictures that nobody should have: torn ones, odd ones, bombs; and builders of stores that die.

A folder of real odd files is looked through where VGX_BAD_IMAGES names one. Beside it lies
`<folder>.manifest.json`, a list of {"file", "status"}: "ok" for what Pillow can read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from pace import within
from PIL import Image

import vgx
from vgx.data import decode as decoding
from vgx.data import pieces
from vgx.data.store import open_source, open_store
from vgx.errors import DataError
from vgx_builtin.files import image_decoding

pytestmark = pytest.mark.chaos

SPEC = vgx.ImageSpec(size=32)
KILLS = 40


def opened(folder, **fields):
    part = vgx.discover().part("dataset", "image-folder")
    return open_source(part(path=folder, **fields), SPEC)[0]


# --- real odd files ----------------------------------------------------------------------------


@pytest.fixture
def odd():
    folder = os.environ.get("VGX_BAD_IMAGES")
    if not folder:
        pytest.skip("VGX_BAD_IMAGES names no folder of real odd files")
    return Path(folder)


def manifest(odd):
    listed = json.loads(odd.with_name(f"{odd.name}.manifest.json").read_text())
    return {file["file"]: file for file in listed}


# Apple's own PNG files, which are none, and a file of frames of which one is not announced: Pillow
# has read and has refused them, from one version to another. The last one is a TIFF file of 32 bits
# that is refused by Pillow and read by tifffile.
EITHER = (
    "pngsuite__iphone__",
    "pillow__apng__chunk_no_fctl",
    "pillow__hopper_unknown_pixel_mode",
)


def look_through(odd):
    """Every file is used, or counted and named; a bad one is never used."""
    known = manifest(odd)
    source = opened(odd)
    assert set(source.names) == set(known)
    store = open_store(source, SPEC, max_bad=1)
    assert len(store.images) + store.bad == len(known)
    assert not store.dropped
    named = {line.partition(": ")[0] for line in store.named}
    assert len(named) == store.bad
    for name, file in known.items():
        if not name.startswith(EITHER):
            assert (name in named) == (file["status"] != "ok"), (name, file)
    with pytest.raises(DataError, match="dataset.on_bad=skip"):
        open_store(source, SPEC)
    skipping = opened(odd, non_rgb="skip")
    with pytest.warns(vgx.Notice, match="images are used"):  # most files are not RGB
        store = open_store(skipping, SPEC, max_bad=1)
    assert len(store.images) + store.bad + sum(store.dropped.values()) == len(known)
    return len(known), len(named)


@pytest.mark.bar("D1")
def test_real_odd_files_are_used_or_counted_and_named(odd, record_property):
    known = look_through(odd)
    assert known > (600, 50)
    record_property("cases", known[0])


@pytest.mark.bar("D1", control="black images in place of unreadable ones")
def test_a_decoder_that_hides_bad_files_would_be_seen(odd, monkeypatch):
    """Negative control: black pictures for what cannot be read."""
    original = decoding.decode

    def careless(source, index, image):
        made = original(source, index, image)
        black = decoding.Decoded(np.zeros((32, 32, 3), np.uint8), 1, 0, 255, "")
        return black if isinstance(made, DataError) else made

    monkeypatch.setattr(pieces, "decode", careless)
    with pytest.raises(AssertionError):
        look_through(odd)


def as_kept(file):
    """The pixels [H, W, 3] that a store of the picture's own size keeps."""

    class One:
        def __getitem__(self, index):
            return image_decoding.read(file, file.name, "convert")

    with Image.open(file) as picture:
        width, height = picture.size
    return decoding.decode(One(), 0, vgx.ImageSpec((height, width))).pixels


def compare_with_references(odd):
    """PngSuite has each of its pictures a second time, as RGBA of 8 bits."""
    pairs = 0
    for file in sorted(odd.glob("pngsuite__primary__*.png")):
        second = odd / file.name.replace("primary__", "primary_check__")
        if not second.exists():
            continue
        with Image.open(second) as picture:
            expected = np.asarray(picture.convert("RGBA")).astype(float)
        expected = expected[..., :3] * expected[..., 3:] / 255
        made = as_kept(file)
        made = made * (255 / decoding.WHITE[made.dtype.name])
        assert np.abs(made - expected).max() <= 1, file.name
        pairs += 1
    return pairs


@pytest.mark.bar("D2")
def test_real_png_files_become_what_their_makers_say(odd, record_property):
    pairs = compare_with_references(odd)
    assert pairs > 60
    record_property("cases", pairs)


@pytest.mark.bar("D2", control="transparency cut off at 8 bits")
def test_transparency_that_is_cut_off_would_be_seen(odd, monkeypatch):
    monkeypatch.setattr(image_decoding, "scale_transparency", lambda image: None)
    with pytest.raises(AssertionError, match="tbbn0g04"):
        compare_with_references(odd)


@pytest.mark.bar("D2")
def test_real_pictures_of_sixteen_bits_keep_their_values(odd):
    deep = [name for name, file in manifest(odd).items() if file.get("mode", "")[:4] == "I;16"]
    checked = 0
    for name in deep:
        with Image.open(odd / name) as picture:
            values = np.asarray(picture).astype(float)
            clear = picture.info.get("transparency")
            turned = picture.getexif().get(274, 1) != 1
        if not turned:
            made = as_kept(odd / name)
            assert made.dtype == np.uint16, name
            assert (made == np.where(values == clear, 0, values)[..., None]).all(), name
            checked += 1
    assert checked > 20


# --- every kind of damage, in every share ------------------------------------------------------


def picture_bytes(kind, number):
    file = io.BytesIO()
    noise = np.random.default_rng(number).integers(0, 255, (24, 24, 3), np.uint8)
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def damaged(data, way, generator):
    """Return the bytes of a file after one of twelve kinds of damage."""
    size = len(data)
    ways = (
        lambda: b"",
        lambda: data[:1],
        lambda: data[: size // 2],
        lambda: data[: size // 4],
        lambda: bytes(size),
        lambda: generator.randbytes(size),
        lambda: b"<html>404</html>",
        lambda: data[8:],
        lambda: data[::-1],
        lambda: generator.randbytes(16) + data[16:],
        lambda: data[:30] + bytes(size - 30),
        lambda: b"PK\x03\x04" + data,
    )
    return ways[way % len(ways)]()


@pytest.mark.bar("D1")
@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
def test_every_kind_of_damage_is_counted_exactly(tmp_path, record_property, share):
    generator, total = random.Random(share), 2000
    record_property("cases", total)
    hurt = sorted(generator.sample(range(total), round(total * share)))
    for number in range(total):
        kind = ("png", "jpeg")[number % 2]
        content = picture_bytes(kind, number)
        if number in hurt:
            content = damaged(content, hurt.index(number), generator)
        (tmp_path / f"{number:04}.{kind}").write_bytes(content)
    source = opened(tmp_path)
    store = open_store(source, SPEC, max_bad=share)
    assert [int(line[:4]) for line in store.named] == hurt
    assert (len(store.images), store.bad) == (total - len(hurt), len(hurt))
    with pytest.raises(DataError, match=f"{len(hurt):,} of 2,000 images cannot be read"):
        open_store(source, SPEC, max_bad=share * 0.99)


# --- bombs -------------------------------------------------------------------------------------


def chunk(name, content):
    whole = name + content
    return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))


def png(width, height, bits, *more):
    """A whole PNG file of greys, all black."""
    claim = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    squeezed = zlib.compressobj(9)
    line = bytes(1 + (width * bits + 7) // 8)
    body = b"".join(squeezed.compress(line) for _ in range(height)) + squeezed.flush()
    parts = (chunk(b"IHDR", claim), *more, chunk(b"IDAT", body), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def texts(kind, count):
    squeezed = zlib.compress(bytes(900_000), 9)
    return [chunk(kind, b"k%d\0\0" % number + squeezed) for number in range(count)]


BOMBS = {
    "large": lambda: png(20000, 20000, 1),
    "wide": lambda: png(2**31 - 1, 1, 1)[:100],
    "text": lambda: png(8, 8, 8, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2 * 10**8), 9))),
    "texts": lambda: png(8, 8, 8, *texts(b"zTXt", 800)),
    "profile": lambda: png(8, 8, 8, chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(10**9), 1))),
    "gif": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"\x2c" + bytes(20),
}
MEASURE = """
import sys, time
from pathlib import Path
import vgx
from vgx.data.store import open_store
{careless}
part = vgx.discover().part("dataset", "image-folder")
def look(folder):
    source = part(path=Path(folder)).build(vgx.ImageSpec(size=32))
    return open_store(source, vgx.ImageSpec(size=32), max_bad=1)
look(sys.argv[1])
def peak():
    # Of this process alone: what Linux counts as ru_maxrss begins with what the parent took.
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) / 1024
before, start = peak(), time.monotonic()
bad = look(sys.argv[2]).bad
print(bad, peak() - before, time.monotonic() - start)
"""
CARELESS = """
from PIL import Image, PngImagePlugin
from vgx_builtin.files import image_decoding
image_decoding.MAX_PIXELS = 10**12
Image.MAX_IMAGE_PIXELS = None
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 10**12
"""


def blast(tmp_path, name, careless=""):
    """Meet a bomb in a process of its own: (bad pictures, MiB, seconds)."""
    for folder in ("plain", "bomb"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / folder / f"{folder}.png")
    (tmp_path / "bomb" / "x.png").write_bytes(BOMBS[name]())
    places = [tmp_path / "plain", tmp_path / "bomb"]
    command = [sys.executable, "-c", MEASURE.format(careless=careless), *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    bad, mebibytes, seconds = map(float, done.stdout.split())
    return bad, mebibytes, seconds


def held(bad, mebibytes, seconds):
    return mebibytes < 200 and within(seconds, 5)


@pytest.mark.bar("S3")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_little_memory_and_little_time(tmp_path, name):
    met = blast(tmp_path, name)
    assert held(*met), met
    assert met[0] == 1


@pytest.mark.bar("S3", control="images without limits: more than 200 MiB or 5 seconds")
@pytest.mark.parametrize("name", ["large", "texts"])
def test_without_the_bounds_a_bomb_would_be_felt(tmp_path, record_property, name):
    """Negative control."""
    met = blast(tmp_path, name, CARELESS)
    assert not held(*met)
    record_property("seen", f"{name}, {met[1]:,.0f} MiB, {met[2]:.1f} s")


# --- builders that die -------------------------------------------------------------------------

BUILD = """
import time
from PIL import Image
import vgx
from vgx.data import store as data
{careless}
class Slow:
    fingerprint = "slow"
    def __len__(self):
        return 400
    def __getitem__(self, index):
        time.sleep(0.001)
        return Image.effect_noise((16, 16), index % 90).point(lambda _: index % 256)
data.open_store(Slow(), vgx.ImageSpec(size=32))
"""
IN_PLACE = """
def obtain(store, read, build, waiting):
    store.mkdir(parents=True, exist_ok=True)
    (store / "store.json").write_text("{}")
    with (store / "images.u8").open("wb") as file:
        build(store, file)
    return read(store), True
data.cache.obtain = obtain
"""


def kill_builders(forkserver, folder, kills, careless=""):
    """Kill builders at any time: a store is there as a whole or not at all."""
    hook = BUILD.replace("{careless}", careless)
    (folder / "whole").mkdir()
    forkserver.run(folder / "whole", "--version", hook=hook)
    (whole,) = (folder / "whole" / "cache" / "images").iterdir()
    expected = sums(whole)
    generator, killed, finished, halves = random.Random(0), 0, 0, 0
    images = folder / "cache" / "images"
    while killed < kills:
        builders = [forkserver.start(folder, "--version", hook=hook) for _ in range(killed % 2 + 1)]
        time.sleep(generator.uniform(0.01, 0.5))
        for builder in builders:
            builder.kill()
            killed += builder.wait() != 0
        made = [path for path in images.glob("*") if path.name[0] != "."]
        for path in made:
            assert sums(path) == expected
            finished += 1
        left = list(images.glob(".*"))
        assert len(left) <= len(builders)  # of those just killed, and of none before
        halves += len(left)
        if made:  # else nothing would be left to build
            made[0].rename(folder / f"made-{finished}")
    forkserver.run(folder, "--version", hook=hook)
    assert [sums(path) for path in images.iterdir()] == [expected]
    return halves


def sums(store):
    """SHA-256 of each file."""
    files = sorted(store.iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.bar("D1")
def test_a_store_is_whole_whenever_its_builder_is_killed(forkserver, tmp_path, record_property):
    record_property("cases", KILLS)
    # They were at work: of two that wait for each other, one.
    assert kill_builders(forkserver, tmp_path, KILLS) > KILLS / 5


@pytest.mark.bar("D1", control="a store that is built in place, and its process killed")
def test_a_builder_that_writes_in_place_would_be_seen(forkserver, tmp_path):
    """Negative control."""
    with pytest.raises(AssertionError):
        kill_builders(forkserver, tmp_path, KILLS, IN_PLACE)


@pytest.mark.bar("D1")
def test_eight_at_once_build_one_store(forkserver, tmp_path):
    hook = BUILD.replace("{careless}", "")
    builders = [forkserver.start(tmp_path, "--version", hook=hook) for _ in range(8)]
    for builder in builders:
        code = builder.wait()
        assert code == 0, builder.err.read_text()
    (store,) = (tmp_path / "cache" / "images").iterdir()
    assert set(sums(store)) == {"images.u8", "hashes.u64", "store.json"}
    assert json.loads((store / "store.json").read_text())["count"] == 400
