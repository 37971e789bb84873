"""Zip and tar files of images: read where they are, like the folder that was packed."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import random
import struct
import tarfile
import threading
import tracemalloc
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import vgx
from vgx.data.store import open_source, open_store
from vgx.errors import DataError
from vgx_builtin.files import archives, tars
from vgx_builtin.files.image_places import open_place

SPEC = vgx.ImageSpec(size=8)
KINDS = ("zip", "tar", "tgz", "tar.bz2", "tar.zst")
PACK = {
    "tar": bytes, "tgz": gzip.compress, "tar.bz2": bz2.compress,
    "tar.zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}  # fmt: skip


def part(path, **settings):
    return vgx.discover().part("dataset", "image-folder")(path=path, **settings)


def png(number=0, size=(10, 12)):
    file = io.BytesIO()
    Image.new("RGB", size, (number % 256, number // 256, 50)).save(file, "png")
    return file.getvalue()


def pack(path, files, kind=None):
    """Write an archive of names and bytes, in their order."""
    kind, written = kind or path.name.partition(".")[2], io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files:
                archive.writestr(name, data)
        path.write_bytes(written.getvalue())
        return path
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, data in files:
            member = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.size = 0 if data is member else len(data)
            archive.addfile(member, None if data is member else io.BytesIO(data))
    path.write_bytes(PACK[kind](written.getvalue()))
    return path


def opened(path, **settings):
    source, notices = open_source(part(path, **settings), SPEC)
    return source, dict(source.left_out), notices


NAMES = [f"train/{kind}/{number}.png" for kind in ("cat", "dog", "10", "2") for number in range(6)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_has_the_images_of_the_folder_that_was_packed(tmp_path, kind):
    files = [(name, png(number)) for number, name in enumerate(NAMES)]
    files += [("train/notes.txt", b"x"), ("train/no ending", png(99)), (".DS_Store", b"x")]
    for name, data in files:
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    random.Random(3).shuffle(files)
    source, left_out, _ = opened(pack(tmp_path / f"a.{kind}", files))
    folder, beside, _ = opened(tmp_path / "folder")
    assert left_out == beside == {".txt": 1, "hidden file": 1}
    here, there = open_store(source, SPEC), open_store(folder, SPEC)
    if kind in ("zip", "tar"):
        assert source.names == folder.names
        assert here.content == there.content
    else:  # which can only be read forward
        assert source.names == [name for name, _ in files if name in folder.names]
        assert sorted(here.hashes) == sorted(there.hashes)
    assert len(here.images) == 25
    assert not list(tmp_path.glob("train*"))  # nothing was unpacked


@pytest.mark.parametrize("kind", KINDS)
def test_class_folders_in_an_archive_are_classes(tmp_path, kind):
    files = [(name, png(number)) for number, name in enumerate(NAMES)]
    path = pack(tmp_path / f"a.{kind}", files)
    spec = vgx.ImageSpec(size=8, classes=4)
    for place in (path, path / "train"):
        labelled = part(place, label="folder").build(spec)
        assert tuple(labelled.classes) == ("2", "10", "cat", "dog")
        names = labelled.source.names
        assert [labelled.classes[labelled.label(i)] for i in range(24)] == [
            name.split("/")[-2] for name in names
        ]
    (first,) = part(path / "train" / "dog", limit=1).build(SPEC)
    assert np.asarray(first)[0, 0].tolist() == [6, 0, 50]


def test_a_folder_that_is_not_in_an_archive_is_said(tmp_path):
    path = pack(tmp_path / "a.zip", [("train/1.png", png())])
    with pytest.raises(DataError, match=r"a\.zip/tr: no images in it$"):
        opened(path / "tr")


@pytest.mark.parametrize("kind", KINDS)
def test_what_stylegan3_packs_is_read_and_so_are_its_labels(tmp_path, kind):
    """As dataset_tool.py of stylegan3 names them: images in folders of 1,000, and dataset.json."""
    labels = {"labels": [[f"00000/img{n:08}.png", n % 3] for n in range(5)]}
    files = [(f"00000/img{n:08}.png", png(n)) for n in range(5)]
    files.append(("dataset.json", json.dumps(labels).encode()))
    path = pack(tmp_path / f"a.{kind}", files)
    source, left_out, _ = opened(path)
    assert source.names == [name for name, _ in labels["labels"]]
    assert left_out == {".json": 1}
    with open_place(path).reader(["dataset.json"])("dataset.json") as file:
        assert json.load(file) == labels


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_is_not_there_is_said(tmp_path, kind):
    path = pack(tmp_path / f"a.{kind}", [("1.png", png())])
    with pytest.raises(DataError, match=r"none\.json: not in "):
        open_place(path).reader(["none.json"])("none.json")


def test_data_opens_archives_and_no_other_file(tmp_path):
    from vgx.recipe.places import dataset_at

    for kind in KINDS:
        path = pack(tmp_path / f"a.{kind}", [("1.png", png())])
        fields = {"type": "image-folder", "path": str(path)}
        assert dataset_at(str(path), vgx.discover()) == fields
    digits = tmp_path / "train-images-idx3-ubyte.gz"
    digits.write_bytes(gzip.compress(b"\0\0\x08\x03" + bytes(9000)))
    with pytest.raises(DataError, match="find no images there"):
        dataset_at(str(digits), vgx.discover())
    with pytest.raises(DataError, match="compressed with gzip, but no tar file, or not complete"):
        opened(digits)
    (tmp_path / "a.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(100))
    with pytest.raises(DataError, match="an archive of a kind that is not read; unpack it and"):
        opened(tmp_path / "a.7z")


def test_an_archive_in_a_folder_or_an_archive_is_counted(tmp_path):
    inner = pack(tmp_path / "pics.zip", [("1.png", png())])
    with pytest.raises(DataError, match=rf"no images in it; 1 \.zip .dataset\.path={inner} reads"):
        opened(tmp_path)
    outer = pack(tmp_path / "outer.tar", [("pics.zip", inner.read_bytes())])
    with pytest.raises(DataError, match=r"no images in it; 1 \.zip$"):
        opened(outer)


def test_a_changed_archive_has_another_fingerprint(tmp_path):
    path = pack(tmp_path / "a.zip", [("1.png", png(1)), ("2.png", png(2))])
    before = opened(path)[0].fingerprint
    assert opened(path)[0].fingerprint == before
    assert opened(path, limit=1)[0].fingerprint != before
    pack(path, [("1.png", png(1)), ("2.png", png(3))])
    assert opened(path)[0].fingerprint != before


# --- names -----------------------------------------------------------------------------------


LEADS_OUT = "name that leads out of the archive"
ODD = {
    "/etc/1.png": LEADS_OUT, "../1.png": LEADS_OUT, "a/../../1.png": LEADS_OUT,
    "C:/1.png": LEADS_OUT, "a/../b/1.png": LEADS_OUT, "__MACOSX/a/._1.png": "__MACOSX",
    "a/.hidden/1.png": "hidden file", "@eaDir/1.png": "@eaDir", "1.tar.gz": ".gz",
    "a" * 300 + "/1.png": "name that is too long", "9" * 6000 + "/1.png": "name that is too long",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_odd_names_are_counted(tmp_path, kind):
    files = [(name, png() if name.endswith(".png") else b"no image") for name in ODD]
    files = [("./a/good.png", png(1)), *files, ("a//b/2.png", png(2))]
    source, left_out, _ = opened(pack(tmp_path / f"a.{kind}", files))
    assert sorted(source.names) == ["a/b/2.png", "a/good.png"]
    assert left_out == {reason: [*ODD.values()].count(reason) for reason in ODD.values()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_of_equal_names_the_last_counts(tmp_path, kind):
    files = [("1.png", png(1)), ("2.png", png(2)), ("./1.png", png(3)), ("1.png", png(4))]
    source, left_out, _ = opened(pack(tmp_path / f"a.{kind}", files))
    assert left_out == {"file that is there again": 2}
    assert sorted(source.names) == ["1.png", "2.png"]
    reds = {n: np.asarray(source[i])[0, 0, 0] for i, n in enumerate(source.names)}
    assert reds == {"1.png": 4, "2.png": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_runs_in_an_archive_are_left_out(tmp_path, kind):
    files = [(f"runs/1/{name}", b"x") for name in ("recipe.yaml", "log.jsonl")]
    files += [("runs/1/samples/1.png", png()), ("runs/2.png", png()), ("a.png", png())]
    source, left_out, _ = opened(pack(tmp_path / f"a.{kind}", files))
    assert sorted(source.names) == ["a.png", "runs/2.png"]
    assert left_out == {".yaml": 1, ".jsonl": 1, "file in a run of vgx": 1}


def test_names_as_windows_writes_them_are_paths(tmp_path):
    path = pack(tmp_path / "a.zip", [("cat\\1.png", png(1)), ("dog\\2.png", png(2))])
    source = part(path, label="folder").build(vgx.ImageSpec(size=8, classes=2))
    assert tuple(source.classes) == ("cat", "dog")


@pytest.mark.parametrize("name", ["\u732b/\u3042.png", "a\nb.png", "x" * 200 + ".png", "a b/#.png"])
@pytest.mark.parametrize("kind", KINDS)
def test_names_of_all_kinds_are_names(tmp_path, kind, name):
    source, _, _ = opened(pack(tmp_path / f"a.{kind}", [(name, png(7))]))
    assert source.names == [name]
    assert np.asarray(source[0])[0, 0, 0] == 7


def test_long_names_of_all_tar_formats_are_read(tmp_path):
    name = "/".join(["a" * 60] * 20) + "/1.png"
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w", format=form) as archive:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(png(5)), 1.5
            archive.addfile(member, io.BytesIO(png(5)))
        (tmp_path / f"{number}.tar").write_bytes(written.getvalue())
        source, _, _ = opened(tmp_path / f"{number}.tar")
        assert source.names == [name]


def member(kind, name="x.png", target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("kind", KINDS[1:])
def test_members_that_are_no_files_are_counted(tmp_path, kind):
    others = [
        member(kind, f"{number}.png") for number, kind in enumerate((
            tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE,
        ))
    ]  # fmt: skip
    folder = member(tarfile.DIRTYPE, "folder.png")
    files = [("a.png", png(1)), *((o.name, o) for o in others), ("f", folder), ("b.png", png(2))]
    source, left_out, _ = opened(pack(tmp_path / f"a.{kind}", files))
    assert source.names == ["a.png", "b.png"]
    assert left_out == {"link": 2, "device": 2, "named pipe": 1}
    assert np.asarray(source[1])[0, 0, 0] == 2


def test_links_in_a_zip_are_counted(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.png", png())
        link = zipfile.ZipInfo("2.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert opened(tmp_path / "a.zip")[1] == {"link": 1}


def test_encrypted_members_are_said(tmp_path):
    path = pack(tmp_path / "a.zip", [("1.png", png()), ("2.png", png())])
    data = bytearray(path.read_bytes())
    for magic, place in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        data[data.rindex(magic) + place] |= 1
    path.write_bytes(data)
    source, left_out, notices = opened(path)
    assert (source.names, left_out) == (["1.png"], {"encrypted file": 1})
    assert "1 encrypted file left out: unpack it with its password" in notices[0]


# --- damaged and hostile ones --------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_is_cut_off_is_said(tmp_path, kind):
    noise = random.Random(1).randbytes(100_000)
    path = pack(tmp_path / f"a.{kind}", [("1.png", png()), ("noise.bin", noise), ("2.png", png())])
    data = path.read_bytes()
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(DataError, match=r"a\.\w+.*: .*not complete"):
            opened(path)


def test_a_damaged_member_is_named(tmp_path):
    path = pack(tmp_path / "a.zip", [(f"{n}.png", png(n)) for n in range(9)])
    data = bytearray(path.read_bytes())
    data[data.index(b"4.png") + 20] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"(?s)4\.png: damaged in the archive .*on_bad=skip"):
        open_store(opened(path)[0], SPEC)
    store = open_store(opened(path)[0], SPEC, max_bad=0.2)
    assert (len(store.images), store.bad) == (8, 1)


def zip_of(names, data=b"", **headers):
    """A zip file whose members all lie at the same place."""
    local = b"PK\3\4" + bytes(22) + struct.pack("<HH", 5, 0) + b"0.png" + data
    central = b"".join(
        b"PK\1\2" + bytes(16) + struct.pack("<IIHHHHHII", len(data), len(data), len(name), 0, 0, 0,
                                            0, 0, 0) + name
        for name in names
    )  # fmt: skip
    count = min(len(names), 65535)
    end = struct.pack("<HHHHIIH", 0, 0, count, count, len(central), len(local), 0)
    return local + central + b"PK\5\6" + end


def test_members_that_overlap_are_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_of([b"0.png", b"1.png"], png()))
    with pytest.raises(DataError, match=r"a\.zip: some of its members overlap, such as 1\.png"):
        opened(tmp_path / "a.zip")


def test_too_many_members_for_the_size_are_refused_before_they_are_read(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(zip_of([b"0.png"] * 400_000))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"members are too many for an archive of its size"):
        opened(tmp_path / "a.zip")
    assert tracemalloc.get_traced_memory()[1] < 60 * 2**20
    tracemalloc.stop()
    monkeypatch.setattr(archives, "FEW", 1500)
    path = pack(tmp_path / "b.tgz", [(f"{n}.png", b"") for n in range(2000)])
    with pytest.raises(DataError, match=r"members are too many for an archive of its size"):
        opened(path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_that_becomes_too_large_is_unreadable(tmp_path, kind):
    bomb = png() + bytes(18 * 2**20)
    path = pack(tmp_path / f"a.{kind}", [("bomb.png", bomb), ("good.png", png(3))])
    source = opened(path)[0]
    if kind == "tar":  # which is as large as its members
        assert source[0].size == (10, 12)
        return
    with pytest.raises(DataError, match=r"bomb\.png: [\d,]+ bytes become [\d,]+; that is no image"):
        source[0]
    assert np.asarray(source[1])[0, 0, 0] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_member_of_more_bytes_than_any_image_is_unreadable(tmp_path, monkeypatch, kind):
    most = 2**20
    files = [("1.png", png(3).ljust(most, b"x")), ("2.png", png(3).ljust(most + 1, b"x"))]
    source = opened(pack(tmp_path / f"a.{kind}", files))[0]
    monkeypatch.setattr(archives, "MAX_BYTES", most)
    assert source[0].size == (10, 12)
    with pytest.raises(DataError, match=r"2\.png: 1,048,577 bytes; at most 1,048,576 are read"):
        source[1]


def test_an_archive_of_zeros_without_end_is_refused(tmp_path):
    """A member of 100 MiB of zeros, which are 100 KiB compressed."""
    info = tarfile.TarInfo("1.png")
    info.size = 100 * 2**20
    packer = zlib.compressobj(wbits=31)
    with (tmp_path / "a.tgz").open("wb") as file:
        file.write(packer.compress(info.tobuf()))
        for _ in range(100):
            file.write(packer.compress(bytes(2**20)))
        file.write(packer.flush())
    with pytest.raises(DataError, match="becomes more than 100 times as large as it is"):
        opened(tmp_path / "a.tgz")
    (tmp_path / "b.tgz").write_bytes(gzip.compress(bytes(10**6)))  # only the end of an archive
    with pytest.raises(DataError, match="compressed with gzip, but no tar file"):
        opened(tmp_path / "b.tgz")


def header(kind, size, name="x", **numbers):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    data = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for place, value in numbers.items():
        data[int(place[1:]) : int(place[1:]) + len(value)] = value
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


HOSTILE = {
    "a name of 5 GB": header(tarfile.GNUTYPE_LONGNAME, 5 * 10**9),
    "pax of 1 GB": header(tarfile.XHDTYPE, 10**9),
    "a negative size": header(tarfile.REGTYPE, 0, p124=b"\xff" * 11 + b"\0"),
    "a negative pax": header(tarfile.XHDTYPE, 0, p124=b"\xff" * 12),
    "a sparse one": header(tarfile.GNUTYPE_SPARSE, 0),
    "pax without length": header(tarfile.XHDTYPE, 9) + b"path=x.png".ljust(512, b"\0"),
    "pax of length 0": header(tarfile.XHDTYPE, 9) + b"0 path=x\n".ljust(512, b"\0"),
    "pax too long": header(tarfile.XHDTYPE, 9) + b"99 path=x".ljust(512, b"\0"),
    "pax of digits": header(tarfile.XHDTYPE, 60000) + b"9" * 60416,
    "a wrong sum": header(tarfile.REGTYPE, 0)[:-1] + b"x",
    "a size beyond the end": header(tarfile.REGTYPE, 10**12, p124=b"\x80" + bytes(6) + b"\xff" * 5),
    "only long names": header(tarfile.GNUTYPE_LONGNAME, 0) * 5000,
}


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_tar_file_with_bad_headers_costs_nothing(tmp_path, name, kind):
    good = header(tarfile.REGTYPE, 512, "1.png") + png().ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(PACK[kind](good + HOSTILE[name]))
    tracemalloc.start()
    try:
        if name == "only long names":
            assert opened(tmp_path / "a.tar")[0].names == ["1.png"]
        else:
            with pytest.raises(DataError, match=rf"{tmp_path / 'a.tar'}: "):
                opened(tmp_path / "a.tar")
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["pipe", "socket-like", "zero"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, name):
    path = tmp_path / f"{name}.zip"
    os.mkfifo(path) if name == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="not a regular file"):
        opened(path)


# --- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["forward", "backward", "mixed"])
@pytest.mark.parametrize("kept", [10**9, 1000])
def test_threads_get_their_own_images_in_any_order(tmp_path, monkeypatch, kind, order, kept):
    monkeypatch.setattr(tars, "KEPT", kept)
    monkeypatch.setattr(tars, "PATIENCE", 0.01)
    path = pack(tmp_path / f"a.{kind}", [(f"{n:03}.png", png(n)) for n in range(30)])
    source, rows = opened(path)[0], list(range(30))
    if order == "backward":
        rows.reverse()
    elif order == "mixed":
        random.Random(2).shuffle(rows)
    with ThreadPoolExecutor(8) as pool:
        reds = list(pool.map(lambda row: int(np.asarray(source[row])[0, 0, 0]), rows))
    assert reds == rows


def test_a_compressed_archive_is_passed_once_by_threads_that_go_forward(tmp_path, monkeypatch):
    """Pieces of 32, as the store decodes them; and no more is kept than allowed."""
    path = pack(tmp_path / "a.tgz", [(f"{n:04}.png", png(n, (99, 99))) for n in range(500)])
    source, begun = opened(path)[0], []
    most, lock, original = [0], threading.Lock(), tars.Tar.stream
    monkeypatch.setattr(tars.Tar, "stream", lambda tar: begun.append(1) or original(tar))
    passed = source.reader.__self__
    monkeypatch.setattr(tars, "KEPT", 20_000)

    def decode(start):
        for row in range(start, min(start + 32, 500)):
            assert source[row].size == (99, 99)
            with lock:
                most[0] = max(most[0], passed.bytes)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(decode, range(0, 500, 32)))
    assert len(begun) == 1
    assert most[0] < 20_000 + len(png(0, (99, 99))) + 100


def test_of_a_compressed_archive_only_what_is_wanted_is_kept(tmp_path):
    path = pack(tmp_path / "a.tgz", [(f"{n}.png", png(n)) for n in range(100)])
    place = open_place(path)
    read = place.reader(["99.png"])
    assert read("99.png").read() == png(99)
    assert read.__self__.kept == {}
