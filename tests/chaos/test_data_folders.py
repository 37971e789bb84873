"""Data folders and parquet files made by strangers: nothing outside is read, asked or awaited."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pace import within
from PIL import Image

HERE = Path(__file__).parent
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
SECONDS, MEBIBYTES = 5, 200


class Guard:
    """Opens data sets in a process of its own that is watched."""

    def __init__(self, folder, *arguments):
        self.cache = folder / "cache"
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "data_guard.py"), *arguments],
            cwd=folder,
            env={**os.environ, "VGX_CACHE": str(self.cache), "HF_HOME": str(folder / "hf")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(self, kind, path, **fields):
        """Open a data set; an answer that does not come within half a minute is a hang."""
        request = {"type": kind, "path": str(path), **fields}
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], 30)[0]:
            return {"hang": True}
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"died": self.process.wait()}

    def close(self):
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def guarding(folder, *arguments):
    guard = Guard(folder, *arguments)
    try:
        yield guard
    finally:
        guard.close()


# --- what is in the folders ----------------------------------------------------------------------


def png(colour, size=(8, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "png")
    return file.getvalue()


def rows(*cells):
    """A column of images: a colour, a pair of bytes and path, or None."""
    made = [(png(cell), None) if cell and len(cell) == 3 else cell for cell in cells]
    made = [
        dict(zip(("bytes", "path"), c, strict=True)) if isinstance(c, tuple) else c for c in made
    ]
    return pa.table({"image": pa.array(made, CELL)})


def write(path, table, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:  # noqa: PTH123 - any name, and none of them a pattern
        pq.write_table(table, file, **options)


class Places:
    """A stranger's folder, and files of this machine that are nobody's business."""

    def __init__(self, root):
        self.folder, self.outside = root / "theirs", root / "outside"
        self.folder.mkdir(parents=True)
        self.outside.mkdir()
        (self.outside / "secret.png").write_bytes(png(RED))
        write(self.outside / "secret.parquet", rows(RED, RED))
        os.mkfifo(self.outside / "pipe")

    def good(self, name="data/train-00000-of-00001.parquet", colour=GREEN, count=3):
        write(self.folder / name, rows(*[colour] * count))


def readme(text):
    """A folder with three good rows, and a README.md."""

    def make(places):
        places.good()
        filled = text.replace("OUT", str(places.outside))
        (places.folder / "README.md").write_text(f"---\nlicense: mit\n{filled}\n---\n# Faces\n")

    return make


def configs(data_files, **more):
    entry = {"config_name": "default", "data_files": data_files, **more}
    return readme("configs:\n- " + json.dumps(entry))


URLS = (
    "hf://datasets/x/y/a.parquet", "https://127.0.0.1:9/a.parquet", "http://localhost:9/a.parquet",
    "s3://bucket/a.parquet", "gs://bucket/a.parquet", "ftp://127.0.0.1:9/a.parquet",
    "file://OUT/secret.parquet", "zip://a.parquet::http://127.0.0.1:9/a.zip", "memory://a.parquet",
    "simplecache::http://127.0.0.1:9/a.parquet", "github://x:y@main/a.parquet", "data:,a",
    "OUT/secret.parquet", "../outside/secret.parquet", "../outside/*.parquet", "../**",
    "data/../../outside/secret.parquet", "~/a.parquet", "$HOME/a.parquet", "/etc/passwd",
    "/dev/zero",
    "OUT/pipe", "", ".", "..", "\0", "a" * 9000, "data/none-*.parquet", "file:data/*.parquet",
)  # fmt: skip
WITHIN = (
    "data/train-00000-of-00001.parquet", "data/train-*", "./data/*.parquet", "**/*.parquet", "**",
    "[d]ata/*", "data/**", "*/*.parquet", "data/train-0000?-of-*", "**/**/**/*",
)  # fmt: skip
REFUSED, KEPT = {"error": True}, {"kept": 3, "bad": 0, "colours": [list(GREEN)]}


def readmes():
    """Yield a name, what makes the folder, and what must come of it: README.md of all kinds."""
    # First, so that some of the library's readers of README.md are always seen to take it.
    alias = "- {config_name: default, data_files: &a 'data/*'}\n- {config_name: b, data_files: *a}"
    yield "an alias", readme(f"configs:\n{alias}"), REFUSED
    for url in URLS:
        yield f"string {url[:40]}", configs(url), REFUSED
        yield f"list {url[:40]}", configs(["data/*.parquet", url]), REFUSED
        yield f"split {url[:40]}", configs([{"split": "train", "path": [url]}]), REFUSED
    for pattern in WITHIN:
        yield f"within {pattern}", configs([{"split": "train", "path": pattern}]), KEPT
    for odd in (1, None, {}, {"train": "data/*"}, [[["data/*"]]], [None], [], True, [{"split": 1}]):
        yield f"odd {odd}", configs(odd), REFUSED
    for folder in (
        "../outside",
        "OUT",
        "data/../../outside",
        "https://127.0.0.1:9",
        "~",
        "",
        "..",
        1,
    ):
        more = {"data_dir": folder}
        expected = KEPT if folder == "" else REFUSED
        yield f"data_dir {folder}", configs("**", **more), expected
    yield "data_dir data", configs("**", data_dir="data"), KEPT
    for name, text in {
        "several": "configs:\n- {config_name: a, data_files: a}\n- {config_name: b, data_files: b}",
        "tag": "configs: !!python/object/apply:os.system [touch marker]",
        "number": 'configs: "\\UFFFFFFFF"',
        "deep": "configs: " + "[" * 9000,
        "deep flow": "configs: " + "{a: " * 9000,
        "aliases": "configs:\n- &a [x, x, x, x]\n" + "- [*a, *a, *a, *a]\n" * 900,
        "laughs": "configs:\n" + "".join(
            f"- &a{n} [{', '.join([f'*a{n - 1}'] * 9) if n else 'x'}]\n" for n in range(30)
        ),
        "no list": "configs: default",
        "no names": "configs: [{data_files: '**'}]",
        "nul": "configs: \0",
        "long": "configs:\n" + "- {config_name: default, data_files: a}\n" * 3000,
        "stars": "configs: [{config_name: x, data_files: '" + "*a" * 500 + "b'}]",
        "folders": "configs: [{config_name: x, data_files: '" + "**/" * 500 + "b'}]",
        "many": "configs: [{config_name: x, data_files: [" + "'*', " * 9000 + "]}]",
        "too large a day": "configs: 9999-99-99",
        "anchors": "configs: &a [*a]",
    }.items():  # fmt: skip
        yield name, readme(text), REFUSED
    yield "many words", readme("other:\n" + "- x: 1\n" * 100_000), KEPT
    yield "dataset_info", readme("dataset_info: {download_size: http://x, features: 1}"), KEPT

    def other(make):
        def both(places):
            places.good()
            make(places, places.folder / "README.md")

        return both

    yield "README a pipe", other(lambda _, file: os.mkfifo(file)), KEPT
    yield (
        "README a link to a pipe",
        other(lambda p, file: file.symlink_to(p.outside / "pipe")),
        KEPT,
    )
    yield "README a device", other(lambda _, file: file.symlink_to("/dev/zero")), KEPT
    yield "README a folder", other(lambda _, file: file.mkdir()), KEPT
    yield "README of 3 GB", other(lambda _, file: sparse(file, 3 * 10**9)), REFUSED
    yield "README of bytes", other(lambda _, file: file.write_bytes(bytes(range(256)) * 99)), KEPT


def sparse(path, size, start=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def companions():
    """Yield folders in which other files than parquet files ask for something."""

    def beside(name, text):
        def make(places):
            places.good()
            path = places.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("OUT", str(places.outside)))

        return make

    code = "open('OUT/marker', 'w').close()\nimport socket\nsocket.create_connection(('x', 1))\n"
    yield "script", beside("theirs.py", code), KEPT
    yield "module", beside("__init__.py", code), KEPT
    yield "loading script", beside("dataset.py", code), KEPT
    yield "conftest", beside("sitecustomize.py", code), KEPT
    infos = json.dumps({"default": {"download_checksums": {"http://127.0.0.1:9/a.parquet": {}}}})
    yield "dataset_infos.json", beside("dataset_infos.json", infos), KEPT
    yield (
        "dataset_dict.json",
        beside("dataset_dict.json", '{"splits": ["http://127.0.0.1:9"]}'),
        KEPT,
    )
    yield "state.json", beside("state.json", '{"_data_files": [{"filename": "OUT/x"}]}'), KEPT
    for name, text in {
        "metadata.csv": "file_name,text\nhttp://127.0.0.1:9/a.png,x\nOUT/secret.png,y\n",
        "metadata.jsonl": '{"file_name": "http://127.0.0.1:9/a.png"}\n{"file_name": "OUT/x.png"}',
        "train.csv": "image\nhttp://127.0.0.1:9/a.png\n",
        "train.json": '{"image": "http://127.0.0.1:9/a.png"}',
        "task.toml": "x = 1",
        "log.eval": "x",
    }.items():
        yield name, beside(name, text), KEPT

    def only(name, data):
        def make(places):
            (places.folder / name).write_bytes(data(places))

        return make

    def tar(_):
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w") as archive:
            for name, data in (("0.png", png(GREEN)), ("0.pth", b"cos\nsystem\n(S'true'\ntR.")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return target.getvalue()

    yield "a tar with a pickle", only("train-00000.tar", tar), REFUSED
    yield (
        "a table of addresses",
        only("a.csv", lambda _: b"image\nhttp://127.0.0.1:9/a.png"),
        REFUSED,
    )
    yield "rows of text", only("a.jsonl", lambda p: f'{{"image": "{p.outside}"}}'.encode()), REFUSED
    yield "nothing", only("notes.txt", lambda _: b"x"), REFUSED


def cells():
    """Yield folders whose rows name files."""

    def naming(path, make=lambda _: None):
        def both(places):
            make(places)
            written = path.replace("OUT", str(places.outside))
            write(places.folder / "train.parquet", rows((None, written), GREEN))

        return both

    bad = {"kept": 1, "bad": 1, "colours": [list(GREEN)]}
    for path in (
        "OUT/secret.png", "../outside/secret.png", "OUT/pipe", "../outside/pipe", "/dev/zero",
        "/etc/passwd", "http://127.0.0.1:9/a.png", "zip://a.png::OUT/a.zip", ".", "..", "/", "\0",
        "a\0b.png", "a" * 5000, "a/" * 2500, "~/a.png", "\n", "none.png", "file://OUT/secret.png",
        "hf://datasets/x/y/a.png", "data/../../outside/secret.png", "/proc/self/environ",
        "train.parquet", "../theirs-too/a.png", "/dev/stdin",
    ):  # fmt: skip
        yield f"cell {path[:40]!r}", naming(path), bad
    yield "cell empty", naming(""), {"kept": 1, "bad": 0, "dropped": {"empty": 1}}

    def inside(make):
        return lambda places: make(places, places.folder / "a.png")

    yield "cell a pipe", naming("a.png", inside(lambda _, file: os.mkfifo(file))), bad
    yield "cell a folder", naming("a.png", inside(lambda _, file: file.mkdir())), bad
    yield "cell a socket", naming("a.png", inside(lambda _, file: bind(file))), bad
    out = inside(lambda places, file: file.symlink_to(places.outside / "secret.png"))
    yield "cell a link that leads out", naming("a.png", out), bad
    device = inside(lambda _, file: file.symlink_to("/dev/zero"))
    yield "cell a link to a device", naming("a.png", device), bad
    yield "cell of 3 GB", naming("a.png", inside(lambda _, f: sparse(f, 3 * 10**9))), bad
    image = inside(lambda _, file: file.write_bytes(png(BLUE)))
    both = {"kept": 2, "bad": 0, "colours": [list(BLUE), list(GREEN)]}
    yield "cell an image of the folder", naming("a.png", image), both
    yield "cell an image of the folder, in full", naming("OUT/../theirs/a.png", image), both


def bind(path):
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(path.parent):
        server.bind(path.name)


NAMES = (
    "a[1]", "mine*", "a::b", "**", "*", "?", "~x", "~", "%20", "a%2fb", "new\nline", "\udcff",
    "hf:", "http:", "zip:::a", "-rf", " ", "a b", "{a,b}", "[!a]", "[a-z]", "$HOME", "`id`", "é",
    "#", "a#b", "a?b=c", "a&b", "a;b", "a|b", "\\", "a\\b", "'", '"', "a,b", "memory:", "file:",
    "a" * 240, "train[:1]", "!!x", "&a", "\x1b[31m", "\u202e",
)  # fmt: skip


def names():
    """Yield files and folders with names that some library takes for a pattern or an address."""

    def beside(places, folder):
        for neighbour in ("a1", "mine-private", "b", "a", "x", "new", "aXb"):
            write(folder / f"{neighbour}.parquet", rows(RED, RED))

    for name in NAMES:

        def alone(places, name=name):
            places.good(f"{name}.parquet")
            beside(places, places.folder)
            return places.folder / f"{name}.parquet"

        def below(places, name=name):
            places.good(f"{name}/{name}.parquet")
            beside(places, places.folder)
            return places.folder / name

        yield f"file {name[:20]!r}", alone, KEPT
        yield f"folder {name[:20]!r}", below, KEPT


def waits():
    """Yield files that are waited for by whoever opens them as usual."""

    def called(make):
        def both(places):
            places.good("train-a.parquet")
            make(places, places.folder / "train-b.parquet")

        return both

    yield "parquet a pipe", called(lambda _, file: os.mkfifo(file)), REFUSED
    yield "parquet a socket", called(lambda _, file: bind(file)), REFUSED
    yield "parquet a device", called(lambda _, file: file.symlink_to("/dev/zero")), REFUSED
    yield "parquet a link to a pipe", called(lambda p, f: f.symlink_to(p.outside / "pipe")), REFUSED
    yield "parquet a folder", called(lambda _, file: file.mkdir()), KEPT
    yield "parquet a link to a folder", called(lambda p, f: f.symlink_to(p.outside)), KEPT
    yield "parquet of 3 GB", called(lambda _, file: sparse(file, 3 * 10**9)), REFUSED
    yield "parquet empty", called(lambda _, file: file.write_bytes(b"")), REFUSED
    for path in ("/dev/zero", "/dev/stdin", "/etc/passwd"):
        yield f"the data set {path}", lambda _, path=path: path, REFUSED
    yield "the data set a pipe", lambda places: places.outside / "pipe", REFUSED
    yield "parquet a loop", called(lambda _, file: file.symlink_to(file)), REFUSED


def bombs():
    """Yield parquet files that become much more than they are."""
    every = {"kept or refused": True}

    def table(make, **options):
        return lambda places: write(places.folder / "train.parquet", make(), **options)

    zeros = bytes(4 * 10**8)
    for codec in ("zstd", "gzip", "brotli", "lz4"):
        plain = {"compression": codec, "use_dictionary": False}
        yield f"a cell, {codec}", table(lambda: rows((zeros, None)), **plain), every
    plain = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
    many = bytes(8 * 10**6)
    yield "large cells", table(lambda: rows(*[(many, None)] * 60), **plain), every
    small = {**plain, "data_page_size": 1, "write_batch_size": 1}
    yield "a page for each", table(lambda: rows(*[(many, None)] * 60), **small), every
    for version in ("1.0", "2.0"):
        pages = {**plain, "data_page_version": version}
        yield f"pages {version}", table(lambda: rows(*[(many, None)] * 60), **pages), every
    repeated = {"compression": "zstd", "dictionary_pagesize_limit": 2**30, "write_batch_size": 1}
    yield "a dictionary", table(lambda: rows(*[(many, None)] * 200), **repeated), every
    delta = {**plain, "column_encoding": {"image.bytes": "DELTA_BYTE_ARRAY"}}
    yield "shared beginnings", table(lambda: rows(*[(many, None)] * 60), **delta), every
    yield "a long path", table(lambda: rows((png(GREEN), "x" * 10**8)), **plain), every
    nulls = lambda: pa.table({"image": pa.nulls(10**7, CELL)})  # noqa: E731
    yield "rows of nothing", table(nulls), REFUSED
    labels = pa.table({"image": rows(GREEN)["image"], **{f"x{n}": [1] for n in range(2000)}})
    yield "many columns", table(lambda: labels), every
    yield "many groups", table(lambda: rows(*[GREEN] * 3000), row_group_size=1), every

    def deep():
        kind = pa.int8()
        for _ in range(200):
            kind = pa.struct([("x", kind)])
        return pa.table({"image": rows(GREEN)["image"], "deep": pa.nulls(1, kind)})

    yield "nested", table(deep), every

    def list_of():
        return pa.table(
            {"image": pa.array([[{"bytes": png(GREEN), "path": None}]], pa.list_(CELL))}
        )

    yield "a list of images", table(list_of), REFUSED

    def features(value):
        written = value if isinstance(value, bytes) else json.dumps(value).encode()
        both = pa.table({"image": rows(GREEN)["image"], "y": pa.array([0], pa.int64())})
        return table(lambda: both.replace_schema_metadata({b"huggingface": written}))

    one = {"kept": 1, "bad": 0}

    def of_y(**feature):
        return features({"info": {"features": {"y": feature}}})

    yield "names in a file", of_y(_type="ClassLabel", names_file="/etc/passwd"), one
    yield "10^12 classes", of_y(_type="ClassLabel", num_classes=10**12), one
    yield "many names", of_y(_type="ClassLabel", names=["x"] * 300_000), every
    yield "an odd type", of_y(_type="__import__"), one
    yield "no type", of_y(x=1), one
    yield "names of one letter", of_y(_type="ClassLabel", names=["a", "a"]), one
    yield "image of another type", of_y(_type="Image"), one
    for odd in (b"[" * 10**5, b"\xff", b"", b"null", b"1", b"[]", b'{"info": 1}', b"NaN"):
        yield f"features {odd[:9]}", features(odd), one
    yield "features a list", features({"info": {"features": [1]}}), one


def lies():  # noqa: C901 - it is a list
    """Yield parquet files whose headers and footers were changed."""
    every = {"kept or refused": True}

    def changed(place, value, start=b""):
        def make(places):
            target = places.folder / "train.parquet"
            write(target, rows(*[GREEN] * 20), compression="none", use_dictionary=False)
            data = bytearray(target.read_bytes())
            at = place if place >= 0 else len(data) + place
            data[at : at + len(value)] = value
            target.write_bytes(start or data)

        return make

    def plain(uncompressed, compressed):
        """A page header in Thrift's compact encoding that claims these sizes."""

        def number(value):
            value, out = (value << 1) ^ (value >> 63), b""
            while value > 127:
                out, value = out + bytes([value & 127 | 128]), value >> 7
            return out + bytes([value])

        return b"\x15" + number(0) + b"\x15" + number(uncompressed) + b"\x15" + number(compressed)

    for uncompressed, compressed in ((2**31 - 1, 9), (-5, 9), (9, -5), (9, 2**31 - 1), (0, 0)):
        yield (
            f"page of {uncompressed} in {compressed}",
            changed(4, plain(uncompressed, compressed)),
            every,
        )
    for byte in (0x00, 0x19, 0x1B, 0x1C, 0xFC, 0xFF, 0x18, 0x15):
        yield f"header of {byte:x}", changed(4, bytes([byte]) * 30), every
    for size in (0, 1, 2**31 - 1, 2**31, 2**32 - 1):
        yield f"footer of {size}", changed(-8, struct.pack("<I", size)), every
    generator = random.Random(9)
    for number in range(150):
        place, value = -generator.randrange(9, 700), generator.randbytes(generator.randrange(1, 5))
        yield f"change {number}", changed(place, value), every
    for number in range(50):
        yield f"page {number}", changed(generator.randrange(4, 60), generator.randbytes(3)), every


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def huge(side):
    """A PNG file of side x side pixels, all black: 516 kB for 13,300."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * side)
    data = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def pictures():
    """Yield image folders in which one thing called like an image is none."""

    def called(name, make):
        def both(places):
            (places.folder / "good.png").write_bytes(png(GREEN))
            make(places, places.folder / name)

        return both

    bad = {"kept": 1, "bad": 1, "colours": [list(GREEN)]}
    one = {"kept": 1, "bad": 0, "colours": [list(GREEN)]}
    yield "image a pipe", called("a.png", lambda _, file: os.mkfifo(file)), one
    yield "image a socket", called("a.png", lambda _, file: bind(file)), one
    yield "image a folder", called("a.png", lambda _, file: file.mkdir()), one
    yield "image a loop", called("a.png", lambda _, file: file.symlink_to(file)), bad
    for device in (
        "/dev/zero", "/dev/stdin", "/dev/tty", "/proc/kmsg", "/nowhere", "/etc", "/", "/proc",
    ):  # fmt: skip
        link = called("a.png", lambda _, file, device=device: file.symlink_to(device))
        yield (
            f"image a link to {device}",
            link,
            bad if device in ("/proc/kmsg", "/nowhere") else one,
        )
    yield (
        "image a link to a pipe",
        called("a.png", lambda p, f: f.symlink_to(p.outside / "pipe")),
        one,
    )
    for ending, start in {
        "png": b"\x89PNG\r\n\x1a\n", "webp": b"RIFF\x00\x00\x00\x10WEBPVP8 ", "bmp": b"BM",
        "avif": b"\0\0\0\x20ftypavif", "jp2": b"\0\0\0\x0cjP  \r\n\x87\n", "gif": b"GIF89a",
        "jpg": b"\xff\xd8\xff\xe0", "qoi": b"qoif", "ppm": b"P6\n9 9\n255\n", "ico": b"\0\0\1\0",
        "tif": b"II*\0\x08\0\0\0",
    }.items():  # fmt: skip
        for size in (3 * 10**9, 10**8):
            made = called(f"a.{ending}", lambda _, f, s=size, b=start: sparse(f, s, b))
            expected = {"kept or refused": True} if ending == "ppm" else bad
            yield f"{ending} of {size}", made, expected
    yield "13,300 pixels", called("a.png", lambda _, file: file.write_bytes(huge(13_300))), bad

    def row_of(data):
        return lambda places: write(places.folder / "train.parquet", rows((data, None), GREEN))

    yield "13,300 pixels in a row", row_of(huge(13_300)), bad


def zip_of(*members, **options):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", **options) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return target.getvalue()


def tar_of(*members):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                member.size = len(data)
            else:
                member.type, member.linkname = data
            archive.addfile(member, io.BytesIO(data) if isinstance(data, bytes) else None)
    return target.getvalue()


def arrow_of(table, **options):
    target = pa.BufferOutputStream()
    kept = pa.ipc.IpcWriteOptions(**options)
    with pa.ipc.new_stream(target, table.schema, options=kept) as writer:
        writer.write_table(table)
    return target.getvalue().to_pybytes()


def layouts():  # noqa: C901, PLR0912, PLR0915 - it is a list
    """Yield folders in layouts that other programs than vgx open."""

    def having(files, images=0):
        def make(places):
            for name, data in files.items():
                path = places.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(data, str):
                    path.write_text(data.replace("OUT", str(places.outside)))
                else:
                    path.write_bytes(data)
            for number in range(images):
                (places.folder / f"{number}.png").write_bytes(png(GREEN))

        return make

    every = {"kept or refused": True}
    image = png(GREEN)
    one = {"kept": 1, "bad": 0, "colours": [list(GREEN)]}
    two = {"kept": 2, "bad": 0, "colours": [list(GREEN)]}
    yield "zip", having({"train.zip": zip_of(("a.png", image), ("b/c.png", image))}), two
    yield "tar", having({"train.tar": tar_of(("a.png", image), ("b.png", image))}), two
    yield "class folders", having({"train/a/1.png": image, "train/b/2.png": image}), two
    secret = ("OUT/secret.png", "../outside/secret.png", "file://OUT/secret.png", "~/a.png",
              "http://127.0.0.1:9/a.png", "hf://datasets/x/y/a.png", "zip://a.png::OUT/a.zip",
              "/dev/zero", "/dev/stdin", "OUT/pipe", "data:,a", "s3://a/b.png")  # fmt: skip
    for name in secret:
        text = f"file_name,x\n{name},1\n"
        yield (
            f"metadata.csv {name}",
            having({"train/metadata.csv": text, "train/a.png": image}),
            every,
        )
        line = json.dumps({"file_name": name})
        files = {"train/metadata.jsonl": line, "train/a.png": image}
        yield f"metadata.jsonl {name}", having(files), every
        bad = {"kept or refused": True}
        yield f"jsonl {name}", having({"train.jsonl": json.dumps({"image": name})}), bad
        yield f"csv {name}", having({"train.csv": f"image,x\n{name},1\n"}), bad
        archive = zip_of(("a.png", image), ("metadata.csv", text))
        yield f"metadata in a zip {name}", having({"train.zip": archive}), every

    # --- archives
    deflated = {"compression": zipfile.ZIP_DEFLATED}
    zeros = bytes(10**8)
    for name, method in (("deflated", zipfile.ZIP_DEFLATED), ("bzip2", zipfile.ZIP_BZIP2),
                         ("lzma", zipfile.ZIP_LZMA)):  # fmt: skip
        packed = zip_of(("a.png", image), ("b.png", zeros), compression=method)
        yield f"zip bomb, {name}", having({"train.zip": packed}), every
        table = zip_of(
            ("a.png", image), ("metadata.csv", b"file_name\n" + zeros), compression=method
        )
        yield f"table bomb, {name}", having({"train.zip": table}), REFUSED
        rows_bomb = zip_of(("a.csv", b"file_name\n" + zeros), compression=method)
        yield f"zip of a table, {name}", having({"train.zip": rows_bomb}), REFUSED
    for name in ("../../a.png", "/etc/a.png", "a\\..\\b.png", "a/../../b.png"):
        yield f"zip {name}", having({"train.zip": zip_of((name, image), ("b.png", image))}), every
        yield f"tar {name}", having({"train.tar": tar_of((name, image), ("b.png", image))}), every
    yield (
        "zip in a zip",
        having({"train.zip": zip_of(("b.zip", zip_of(("a.png", image))))}),
        REFUSED,
    )
    members = [(f"{number}.png", image) for number in range(2000)]
    many = {"kept": 2000, "bad": 0, "colours": [list(GREEN)]}
    yield "many members", having({"a.zip": zip_of(*members)}), many
    lie = bytearray(zip_of(("a.png", zeros), **deflated))
    place = lie.rindex(b"PK\x01\x02")
    lie[place + 24 : place + 28] = struct.pack("<I", 100)
    yield "a member that is longer than it says", having({"train.zip": bytes(lie)}), every
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        files = tar_of(("a.png", (kind, "../outside/secret.png")), ("b.png", image))
        yield f"tar with a link {kind}", having({"train.tar": files}), every
    yield "tar with a pipe", having({"train.tar": tar_of(("a.png", (tarfile.FIFOTYPE, "")))}), every
    for ending in ("pth", "npz", "npy", "gz", "zst", "mp", "cbor", "pkl", "pickle"):
        packed = tar_of(("0.png", image), (f"0.{ending}", b"cos\nsystem\n(S'touch x'\ntR."))
        yield f"tar with {ending}", having({"train.tar": packed}), every
    packed = tar_of(("0.png", image), ("0.png.gz", gzip.compress(zeros)))
    yield "packed member", having({"train.tar": packed}), REFUSED
    for ending in ("csv.gz", "jsonl.gz", "tar.gz", "json.gz"):
        yield f"bomb {ending}", having({f"train.{ending}": gzip.compress(zeros)}), REFUSED
    for ending in ("zip", "tar", "csv", "json", "jsonl", "arrow"):
        for size in (3 * 10**9, 10**8):
            hole = lambda p, e=ending, s=size: sparse(p.folder / f"train.{e}", s)  # noqa: E731
            yield f"{ending} of {size}", hole, REFUSED
        yield f"{ending} a pipe", lambda p, e=ending: os.mkfifo(p.folder / f"train.{e}"), REFUSED

    def beside_a_pipe(name):
        def make(places):
            having({}, images=1)(places)
            os.mkfifo(places.folder / name)

        return make

    yield "an image and a pipe", beside_a_pipe("a.png"), one
    yield "metadata a pipe", beside_a_pipe("metadata.csv"), one

    # --- tables
    for deep in ("[" * 10**5, '{"a":' * 10**5, '{"a": ' + "[" * 900 + "]" * 900 + "}"):
        yield f"json {deep[:9]}", having({"train.json": deep, "a.txt": "x"}), REFUSED
        yield f"jsonl {deep[:9]}", having({"train.jsonl": deep}), REFUSED
    yield "many objects", having({"train.json": "[" + "{}," * 10**5 + "{}]"}), REFUSED
    keys = "\n".join(json.dumps({f"c{number}": 1}) for number in range(5000))
    yield "many names", having({"train.jsonl": keys}), REFUSED
    yield "many columns", having({"train.csv": "abc," * 10**5 + "x\n1\n"}), REFUSED

    # --- Arrow files
    plain = rows(GREEN, GREEN)
    good = arrow_of(plain)
    yield "arrow", having({"train.arrow": good}), two
    state = '{"_data_files": [{"filename": "OUT/secret.parquet"}, {"filename": "../../x"}]}'
    saved = {"data-00000-of-00001.arrow": good, "state.json": state, "dataset_info.json": "{}"}
    yield "saved", having(saved), two
    both = {f"train/{key}": data for key, data in saved.items()}
    both["dataset_dict.json"] = '{"splits": ["../outside", "http://x"]}'
    yield "saved dict", having(both), two
    for codec in ("zstd", "lz4"):
        big = arrow_of(rows((zeros, None)), compression=codec)
        yield f"arrow, {codec}", having({"train.arrow": big}), REFUSED
    names = {"info": {"features": {"y": {"_type": "ClassLabel", "names_file": "/etc/passwd"}}}}
    both = pa.table({"image": plain["image"], "y": pa.array([0, 0], pa.int64())})
    both = both.replace_schema_metadata({b"huggingface": json.dumps(names).encode()})
    yield "classes in a file", having({"train.arrow": arrow_of(both)}), two
    generator = random.Random(3)
    for number in range(80):
        changed = bytearray(good)
        for _ in range(generator.randrange(1, 4)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        yield f"arrow {number}", having({"train.arrow": bytes(changed)}), every
    for size in range(0, len(good), 97):
        yield f"arrow of {size}", having({"train.arrow": good[:size]}), every


def entry(name, size, kind=tarfile.REGTYPE):
    """The header of a tar file's member."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def filed(name, *pieces):
    def make(places):
        with (places.folder / name).open("wb") as opened:
            for piece in pieces:
                opened.write(piece)
        return places.folder / name

    return make


def packed(*pieces):
    """Pieces, each repeated, as a gzip file."""
    packer = zlib.compressobj(wbits=31)
    for piece, times in pieces:
        for _ in range(times):
            yield packer.compress(piece)
    yield packer.flush()


def zipped(count, **kinds):
    def make(places):
        with zipfile.ZipFile(places.folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("1.png", png(GREEN))
            for number in range(count):
                archive.writestr(f"{number}.txt", b"")
            for name, data in kinds.items():
                archive.writestr(f"{name}.png", data)
        return places.folder / "a.zip"

    return make


def archives():
    """Yield archives that become much, lead out, or say what is not true."""
    plain, end = png(GREEN), bytes(1024)
    good = entry("1.png", len(plain)) + plain.ljust(512, b"\0")
    one = {"kept": 1, "bad": 0, "colours": [list(GREEN)]}
    yield "a good tar", filed("a.tar", good, end), one
    for name, head in {
        "1 GB of zeros": entry("2.png", 10**9),
        "1 GB of zeros that are no image": entry("2.bin", 10**9),
        "a name of 1 GB": entry("x", 10**9, tarfile.GNUTYPE_LONGNAME),
        "pax of 1 GB": entry("x", 10**9, tarfile.XHDTYPE),
    }.items():
        yield name, filed("a.tgz", *packed((good + head, 1), (bytes(2**20), 954))), REFUSED
    header = entry("x", 65000, tarfile.XHDTYPE) + (b"6 a=b\n" * 10834)[:65000].ljust(65024, b"\0")
    yield "headers", filed("a.tgz", *packed((good, 1), (header, 4000))), {"kept or refused": True}
    yield "members", filed("a.tgz", *packed((good, 1), (entry("2.txt", 0), 10**6))), REFUSED
    longs = entry("x", 0, tarfile.GNUTYPE_LONGNAME)
    yield "long names", filed("a.tgz", *packed((good, 1), (longs, 10**6))), REFUSED
    bomb = entry("2.png", 3 * 2**23) + plain.ljust(3 * 2**23, b"\0")
    bad = {"kept": 1, "bad": 1, "colours": [list(GREEN)]}
    yield "an image of 24 MiB", filed("a.tgz", *packed((good + bomb + end, 1))), bad
    yield "beyond the end", filed("a.tar", good, entry("2.png", 10**12), end), REFUSED
    for form in (b"\x1f\x8b", b"BZh", b"\x28\xb5\x2f\xfd", b"PK\3\4", b"PK\5\6"):
        yield f"noise {form}", filed("a", form, random.Random(1).randbytes(10**5)), REFUSED
    yield from zips(plain, one, bad)


def zips(plain, one, bad):
    """Yield the same for zip files."""
    yield "a good zip", zipped(0), one
    yield "60,000 others", zipped(60_000), one
    yield "a zip with an image of 200 MiB", zipped(0, bomb=plain + bytes(200 * 2**20)), bad
    directory = b"PK\1\2" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a"
    tail = struct.pack("<HHHHIIH", 0, 0, 65535, 65535, 10**6 * len(directory), 0, 0)
    yield "10^6 members", filed("a.zip", b"PK\3\4", directory * 10**6, b"PK\5\6", tail), REFUSED


FAMILIES = {
    "readmes": readmes, "companions": companions, "cells": cells, "names": names, "waits": waits,
    "bombs": bombs, "lies": lies, "pictures": pictures, "layouts": layouts, "archives": archives,
}  # fmt: skip


def bytes_in(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def fault(answer, expected, path, taken):
    """Return what was wrong with the way in which a folder was opened; an empty text if nothing."""
    for word in ("hang", "died", "escaped"):
        if word in answer:
            return f"{word}: {answer[word]}"
    if answer["events"]:
        return f"did what it must not: {answer['events']}"
    outside = [name for name in answer["opened"] if not Path(name).is_relative_to(path)]
    if outside:
        return f"opened {outside}"
    if taken > 2**20:
        return f"{taken:,} bytes in the cache"
    if not within(answer["seconds"], SECONDS) or answer["mebibytes"] > MEBIBYTES:
        return f"{answer['seconds']:.1f} s, {answer['mebibytes']:.0f} MiB"
    if expected == REFUSED:
        return "" if "error" in answer else f"not refused: {answer}"
    if expected == {"kept or refused": True}:
        return ""
    wrong = {key: answer.get(key) for key, value in expected.items() if answer.get(key) != value}
    return f"{wrong}, not {expected}: {answer.get('error', answer.get('why'))}" if wrong else ""


def siege(tmp_path, family, every=1, *arguments, stream=False):
    """Open every so manieth folder of a family: what was wrong with each, by name."""
    faults, guard = {}, None
    tmp_path.mkdir(exist_ok=True)
    for number, (name, make, expected) in enumerate(list(FAMILIES[family]())[::every]):
        places = Places(tmp_path / str(number))
        path = make(places) or places.folder
        guard = guard or Guard(tmp_path, *arguments)
        files = family == "archives" or (family == "pictures" and "row" not in name)
        kind = "image-folder" if files else "huggingface"
        before = bytes_in(guard.cache)
        # One row that cannot be read ends the reading of its row group.
        either = stream and expected != REFUSED
        answer = guard("stream" if stream else kind, path)
        wanted = {"kept or refused": True} if either else expected
        faults[name] = fault(answer, wanted, path, bytes_in(guard.cache) - before)
        if "hang" in answer or "died" in answer:
            guard.close()
            guard = None
    if guard:
        guard.close()
    return faults


def found(faults):
    return {name: wrong for name, wrong in faults.items() if wrong}


@pytest.mark.chaos
@pytest.mark.bar("S9")
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_outside_is_read_asked_or_awaited(tmp_path, record_property, family):
    faults = siege(tmp_path, family)
    assert found(faults) == {}
    record_property("cases", len(faults))


@pytest.mark.chaos
@pytest.mark.bar("S9")
@pytest.mark.parametrize("family", ["cells", "waits", "bombs", "lies"])
def test_nothing_is_read_asked_or_awaited_for_a_stream(tmp_path, record_property, family):
    faults = siege(tmp_path, family, stream=True)
    assert found(faults) == {}
    record_property("cases", len(faults))


@pytest.mark.slow
@pytest.mark.bar("S9")
@pytest.mark.parametrize(
    ("family", "every"), [("readmes", 12), ("cells", 5), ("names", 11), ("waits", 4)]
)
def test_some_folders_of_strangers(tmp_path, family, every):
    assert found(siege(tmp_path, family, every)) == {}


@pytest.mark.chaos
@pytest.mark.bar("S9", control="folders given to the library `datasets` as they are")
def test_a_folder_that_is_believed_would_be_noticed(tmp_path, record_property):
    """Negative control."""
    faults = {
        name: wrong
        for family, every in (("readmes", 9), ("cells", 3), ("names", 8), ("bombs", 7))
        for name, wrong in siege(tmp_path / family, family, every, "careless").items()
    }
    noticed = found(faults)
    for words in ("did what it must not", "opened", "not refused", "in the cache"):
        assert any(words in wrong for wrong in noticed.values()), words
    record_property("seen", f"{len(noticed)} of {len(faults)} noticed")
