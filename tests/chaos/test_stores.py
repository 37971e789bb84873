"""Stores and fitted samplers on a disk that changes them, and data sets beyond every bound."""

from __future__ import annotations

import hashlib
import os
import random
import time
import warnings

import pytest
from pace import within
from PIL import Image

import vgx
from vgx.data import cache, sums
from vgx.data import store as data
from vgx.data.store import open_store
from vgx.errors import StorageError
from vgx.files import read_file
from vgx.runs import checkpoint
from vgx.sampling import draw
from vgx_builtin.files import image_files, image_places

pytestmark = pytest.mark.chaos

FILES = ("images.u8", "hashes.u64", "labels.i64", "store.json")
WAYS = ("bit", "byte", "bytes", "zeros", "cut", "longer", "turned", "gone")
DAMAGES = 320  # of the files of a store
TRAININGS = 16  # with `vgx run`, on a damaged store
CHANGES = 60  # of content under the same names, sizes and times
ROUNDS = 6  # of four processes that find the same damage
FITS = 220  # damages of what a sampler learned
BOUNDS = 300  # data sets that are too large, or just not
SPEC = vgx.ImageSpec(size=8, classes=5)
LEFT_OUT = "the sums are not compared"


class Noise:
    """Images of noise with labels."""

    fingerprint = "noise"

    def __len__(self):
        return 40

    def __getitem__(self, index):
        return Image.frombytes("RGB", (8, 8), random.Random(index).randbytes(192))

    def label(self, index):
        return index % 5


def damaged(content, way, generator):
    """Return other bytes than those of a file; None when it is gone."""
    place = generator.randrange(max(1, len(content) - 64))
    changed = bytearray(content)
    if way == "bit":
        changed[place] ^= 1 << generator.randrange(8)
    elif way == "byte":
        changed[place] ^= generator.randrange(1, 256)
    elif way == "bytes":
        changed[place : place + 64] = generator.randbytes(min(64, len(changed) - place))
    elif way == "zeros":
        changed[place : place + 64] = bytes(min(64, len(changed) - place))
    elif way == "cut":
        del changed[place:]
    elif way == "longer":
        changed += generator.randbytes(generator.randrange(1, 99))
    elif way == "turned":
        changed.reverse()
    else:
        return None
    return bytes(changed) if changed != content else damaged(content, "bit", generator)


def replace_content(file, content):
    """Change a file in place, and put its time of change back."""
    before = file.stat()
    if content is None:
        file.unlink()
        return
    while True:  # until the clock of the file system has ticked
        file.write_bytes(content)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        if file.stat().st_ctime_ns != before.st_ctime_ns:
            return


def with_notices(work, *arguments):
    """Return what a function gives, and the notices."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given = work(*arguments)
    return given, [str(each.message) for each in caught]


# --- stores --------------------------------------------------------------------------------------


def opened():
    """A hash of all that a store gives."""
    store = open_store(Noise(), SPEC)
    parts = (store.images, store.hashes, store.labels)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest(), store.content


def damage_a_store(count):
    """Damage files of a store at random; return how often that was noticed and cured."""
    generator, right = random.Random(1), opened()
    (folder,) = cache.folder().iterdir()
    held = 0
    for number in range(count):
        file = folder / FILES[number % len(FILES)]
        way = WAYS[number // len(FILES) % len(WAYS)]
        replace_content(file, damaged(file.read_bytes(), way, generator))
        try:
            given, notices = with_notices(opened)
        except (vgx.VgxError, ValueError, TypeError, LookupError):
            continue
        held += given == right and any(f"damaged: {file.name}" in text for text in notices)
    return held


@pytest.mark.bar("D3")
@pytest.mark.parametrize("settled", [-1.0, 1.0])
def test_damage_of_any_file_of_a_store_is_noticed_and_cured(monkeypatch, record_property, settled):
    """Whether the images have a stamp or not."""
    monkeypatch.setattr(sums, "SETTLED", settled)
    record_property("cases", DAMAGES // 2)
    assert damage_a_store(DAMAGES // 2) == DAMAGES // 2


@pytest.mark.bar("D3", control=LEFT_OUT)
def test_sums_that_are_not_compared_would_be_seen(monkeypatch, record_property):
    """Negative control."""
    monkeypatch.setattr(sums, "check_images", lambda *_, **__: None)
    monkeypatch.setattr(sums, "read_column", lambda store, name, _: (store / name).read_bytes())
    held = damage_a_store(64)
    record_property("seen", f"{held} of 64 noticed")
    assert held < 48


@pytest.mark.bar("D3", control="a stamp without the ctime")
def test_a_stamp_without_the_ctime_would_be_seen(monkeypatch, record_property):
    """Negative control: damage that leaves size and time of change."""
    monkeypatch.setattr(sums, "SETTLED", -1.0)
    state = sums._state
    monkeypatch.setattr(sums, "_state", lambda *a: state(*a).partition(" ctime")[0])
    right = opened()
    (folder,) = cache.folder().iterdir()
    flipped = damaged((folder / "images.u8").read_bytes(), "bit", random.Random(0))
    replace_content(folder / "images.u8", flipped)
    given, notices = with_notices(opened)
    record_property("seen", f"{len(notices)} of 1 noticed")
    assert given != right


@pytest.mark.bar("D3")
def test_a_run_on_a_damaged_store_has_the_weights_of_an_undamaged_one(
    forkserver, tmp_path, tiny, end_of, record_property
):
    record_property("cases", TRAININGS)
    generator = random.Random(2)
    settings = ("--set", "train.steps=4", "--set", "eval.holdout=0.1")
    forkserver.run(tmp_path, "run", tiny, *settings)
    runs = tmp_path / "runs"
    right = end_of(runs / "0001-tiny")
    (folder,) = (tmp_path / "cache" / "images").iterdir()
    names = sorted(file.name for file in folder.iterdir())
    for number in range(TRAININGS):
        file = folder / names[number % len(names)]
        replace_content(file, damaged(file.read_bytes(), WAYS[number % len(WAYS)], generator))
        child = forkserver.run(tmp_path, "run", tiny, *settings)
        assert f"damaged: {file.name}" in child.err.read_text(), (file, child.err.read_text())
        assert end_of(runs / f"{number + 2:04}-tiny") == right, file


@pytest.mark.bar("D3")
def test_processes_that_find_the_same_damage_make_one_store(forkserver, tmp_path, record_property):
    """While another process has the damaged store open and reads it."""
    record_property("cases", 4 * ROUNDS)
    hook = """
from PIL import Image
import vgx
from vgx.data.store import open_store
class Plain:
    fingerprint = "plain"
    def __len__(self):
        return 3000
    def __getitem__(self, index):
        return Image.new("RGB", (8, 8), (index % 256, index // 256, 9))
store = open_store(Plain(), vgx.ImageSpec(size=32))
print(store.content, flush=True)
import hashlib
assert hashlib.sha256(store.images.tobytes()).hexdigest() == store.content
"""
    forkserver.run(tmp_path, "--version", hook=hook)
    images, generator = tmp_path / "cache" / "images", random.Random(3)
    expected = None
    for _ in range(ROUNDS):
        (folder,) = images.iterdir()
        whole = {file.name: sums_of(file) for file in folder.iterdir()}
        assert whole == (expected := expected or whole)
        with (folder / "images.u8").open("rb") as held:
            file = folder / generator.choice(sorted(whole))
            replace_content(file, damaged(file.read_bytes(), "bit", generator))
            started = [forkserver.start(tmp_path, "--version", hook=hook) for _ in range(4)]
            for child in started:
                code = child.wait()
                assert code == 0, child.err.read_text()
            assert any("damaged" in child.err.read_text() for child in started)
            assert len(held.read()) == 3000 * 32 * 32 * 3


def sums_of(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.bar("D3")
def test_a_cache_that_cannot_be_written_is_verified_all_the_same(mount, tmp_path):
    """On a file system of its own, since permissions do not hold for root."""
    disk = tmp_path / "cache"
    disk.mkdir()
    mount(disk, "rw")
    right = opened()
    (folder,) = cache.folder().iterdir()
    mount.change(disk, "ro")
    assert with_notices(opened) == (right, [])
    mount.change(disk, "rw")
    file = folder / "images.u8"
    replace_content(file, damaged(file.read_bytes(), "bit", random.Random(0)))
    mount.change(disk, "ro")
    with (
        pytest.warns(vgx.Notice, match="damaged: images.u8"),
        pytest.raises(StorageError, match="Read-only file system"),
    ):
        opened()


# --- content that changed ------------------------------------------------------------------------


def change_content(tmp_path, count):
    """Change images under the same names, sizes and times; return how often it was noticed."""
    part = vgx.discover().part("dataset", "image-folder")
    generator, noticed = random.Random(4), 0
    spec = vgx.ImageSpec(size=8)
    for number in range(5):
        for kind in ("bmp", "ppm"):
            Noise()[number].save(tmp_path / f"{number}.{kind}")
    files = sorted(tmp_path.iterdir())
    open_store(part(path=tmp_path).build(spec), spec)
    for _ in range(count):
        place = generator.randrange(len(files))
        changed = bytearray(files[place].read_bytes())
        changed[-1 - generator.randrange(192)] ^= 1 << generator.randrange(8)  # a pixel
        replace_content(files[place], bytes(changed))
        with Image.open(files[place]) as image:
            expected = image.convert("RGB").tobytes()
        store = open_store(part(path=tmp_path).build(spec), spec)
        noticed += store.images[place].tobytes() == expected
    return noticed


@pytest.mark.bar("D3")
def test_content_under_the_same_names_sizes_and_times_is_noticed(tmp_path, record_property):
    record_property("cases", CHANGES)
    (tmp_path / "images").mkdir()
    assert change_content(tmp_path / "images", CHANGES) == CHANGES


@pytest.mark.bar("D3", control="fingerprints of names, sizes and times of change alone")
def test_fingerprints_without_the_ctime_would_be_seen(tmp_path, monkeypatch, record_property):
    """Negative control."""

    def digest(files, root):
        listed = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(f"{root}{listed}".encode()).hexdigest()

    assert image_files.digest is image_places.digest
    monkeypatch.setattr(image_places, "digest", digest)
    (tmp_path / "images").mkdir()
    noticed = change_content(tmp_path / "images", 10)
    record_property("seen", f"{noticed} of 10 noticed")
    assert noticed == 0


# --- what samplers learned -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory, forkserver, tiny):
    folder = tmp_path_factory.mktemp("trained")
    forkserver.run(folder, "run", tiny, "--set", "train.steps=4")
    return folder / "runs" / "0001-tiny"


def damage_a_fit(run, count):
    """Damage what a sampler learned; return how often it was noticed and learned again."""
    generator, held = random.Random(5), 0
    right, _ = with_notices(drawn, run)
    (file,) = (run / "samplers").glob("aggregate-gaussian-*")
    whole = file.read_bytes()
    ways = [*(way for way in WAYS if way not in ("bit", "gone")), *["bit"] * 14]
    for number in range(count):
        file.write_bytes(damaged(whole, ways[number % len(ways)], generator))
        try:
            given, notices = with_notices(drawn, run)
        except StorageError:
            continue
        again = given == right and file.read_bytes() == whole
        held += again and any("learned again" in text for text in notices)
        file.write_bytes(whole)
    return held


def drawn(run):
    return vgx.sample(run, "aggregate-gaussian", n=2).numpy().tobytes()


@pytest.mark.bar("D4")
def test_damage_of_what_a_sampler_learned_is_noticed(trained, record_property):
    record_property("cases", FITS)
    assert damage_a_fit(trained, FITS) == FITS


@pytest.mark.bar("D4", control="read without its sum")
def test_a_fit_without_a_sum_would_be_seen(trained, monkeypatch, record_property):
    """Negative control."""

    def careless(file, of, most):
        return checkpoint.tensors(read_file(file, most), file)

    monkeypatch.setattr(draw.summed, "read", careless)
    held = damage_a_fit(trained, 40)
    record_property("seen", f"{held} of 40 noticed")
    assert held < 40


# --- beyond the bounds ---------------------------------------------------------------------------


class Huge:
    """As many images as one likes to claim."""

    def __init__(self, count, number):
        self.count, self.fingerprint, self.reads = count, f"huge {number}", 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.reads += 1
        if self.reads > 20:
            raise MemoryError
        return Image.new("RGB", (4, 4))


def claim_too_much(monkeypatch, count):
    """Open data sets around the bound; return how many were treated as they should be."""
    generator, held = random.Random(6), 0
    for number in range(count):
        size = generator.choice([1, 3, 8, 64, 256])
        each = size * size * 3 + 8
        if number % 3:
            images = int(2 ** generator.uniform(0, 62.9))
            allowed = generator.randrange(images * each)
        else:
            images = generator.randrange(1, 5)
            size, each = 8, 8 * 8 * 3 + 8
            allowed = images * each + generator.randrange(-2, 3)
        monkeypatch.setenv("VGX_CACHE_MAX", str(allowed))
        source, began = Huge(images, number), time.monotonic()
        try:
            open_store(source, vgx.ImageSpec(size=size))
            right = images * each <= allowed
        except StorageError as error:
            refused = f"{images:,} images takes up to" in str(error)
            named = "VGX_CACHE_MAX allows" in str(error)
            right = images * each > allowed and refused and named and not source.reads
        except (MemoryError, vgx.VgxError):
            right = False
        held += right and within(time.monotonic() - began, 5)
    return held


@pytest.mark.bar("S8")
def test_data_sets_beyond_the_bound_are_refused_before_decoding(monkeypatch, record_property):
    record_property("cases", BOUNDS)
    assert claim_too_much(monkeypatch, BOUNDS) == BOUNDS


@pytest.mark.bar("S8", control="no look at the room")
def test_bounds_that_nobody_looks_at_would_be_seen(monkeypatch, record_property):
    """Negative control."""
    monkeypatch.setattr(data, "require_room", lambda *_: None)
    held = claim_too_much(monkeypatch, 9)
    record_property("seen", f"{held} of 9 as they should be")
    assert held < 6


@pytest.mark.bar("S8")
@pytest.mark.parametrize("count", [10**9, 2**62, 2**63 - 1])
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_recipe_that_asks_for_more_than_a_disk_is_refused(
    forkserver, tmp_path, tiny, command, count, record_property
):
    child = forkserver.run(tmp_path, command, tiny, "--set", f"dataset.count={count}", code=5)
    said = child.err.read_text()
    assert f"a store of {count:,} images takes up to" in said
    assert "VGX_CACHE_MAX" in said
    assert not (tmp_path / "runs").exists()
    assert not list((tmp_path / "cache").glob("images/*"))
