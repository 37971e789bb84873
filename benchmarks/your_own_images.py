"""Folders, archives and recipes as people have them, each tried with one command: a table.

    python benchmarks/your_own_images.py CASES [--vgx CHECKOUT] [--only 1,4] [--out FILE]

CASES is a folder with small inputs that public reports describe; inputs without files are made
here. Each row is a command line of vgx in a folder of its own, and what must come of it, as data:
an exit code, what the output says and does not say, and what files contain. `--vgx` tries another
checkout, so the same expectations give a table of before and after.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
SECONDS = 60  # for one command; what hangs is ended
RECIPE = """name: own
image: {{size: 32}}
latent: 8
dataset: {{type: {}}}
encoder: {{type: conv, widths: [8, 16]}}
decoder: {{type: conv-transpose, widths: [16, 8]}}
losses: [l1, kl]
sampler: prior
train: {{steps: 3, batch: 8, log_every: 1}}
"""
Words = tuple[str, ...]


@dataclass(frozen=True)
class Try:
    """One row: what was tried, and what must come of it."""

    number: str
    what: str
    command: str | Words  # of vgx; with "python" first, a program
    code: Sequence[int] = (0,)  # any of these exit codes
    says: Sequence[str] = ()  # regular expressions that are all in the output
    never: Sequence[str] = ()
    files: dict[str, str] = field(default_factory=dict)  # what the first file of a pattern contains
    make: Callable[[Path, Path], None] | None = None  # makes the input: gets CASES and the folder
    first: Sequence[Words] = ()  # commands before it
    folder: str = "."  # in which the command is started


def run(*settings: str, recipe: str = "f.yaml", more: Words = ()) -> Words:
    """`vgx run` of a small recipe with these settings."""
    chosen = [word for setting in settings for word in ("--set", setting)]
    return "run", recipe, "--device", "cpu", *chosen, *more


def data(path: str, *settings: str) -> Words:
    """A run on a folder or an archive of images; `{cases}` stands for CASES."""
    return run(f"dataset.path={path}", *settings)


def hub(path: str, *settings: str) -> Words:
    """A run on a data set in the hub's layout, without a network."""
    return run(f"dataset.path={path}", *settings, recipe="h.yaml", more=("--offline",))


def tiny(*settings: str, command: str = "run", more: Words = ()) -> Words:
    """A command with the recipe `tiny`."""
    chosen = [word for setting in settings for word in ("--set", setting)]
    return command, "tiny", *chosen, *more


def weights(file: str, backbone: str = "test_resnet") -> Words:
    """Settings for a discriminator with the weights in a file."""
    fields = f"{{type: timm-patchgan, backbone: {backbone}, weights: '{file}'}}"
    return "image.size=32", f"discriminator={fields}"


# --- inputs that have no files -------------------------------------------------------------------


def image(file: Path, number: int = 0, size: tuple[int, int] = (40, 40)) -> None:
    """Write an image that is like no other number."""
    file.parent.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(number)
    small = chance.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size).save(file)


def images(folder: Path, count: int, first: int = 0, size: tuple[int, int] = (40, 40)) -> None:
    for number in range(first, first + count):
        image(folder / f"{number:04}.png", number, size)


def plain(_: Path, here: Path) -> None:
    images(here / "faces", 24)


def hidden(_: Path, here: Path) -> None:
    images(here / "faces", 24)
    for number, name in enumerate((".ipynb_checkpoints", ".thumbnails", "@eaDir"), 100):
        image(here / "faces" / name / "0000.png", number)


def links(_: Path, here: Path) -> None:
    images(here / "other" / "a", 12)
    images(here / "other" / "b", 12, 12)
    images(here / "part", 12, 30)
    (here / "all").mkdir()
    (here / "all" / "one").symlink_to(here / "other" / "a")
    (here / "all" / "two").symlink_to(here / "other" / "b")
    (here / "part" / "more").symlink_to(here / "other" / "a")
    (here / "root").symlink_to(here / "other")
    shutil.copytree(here / "other" / "a", here / "dead")
    (here / "dead" / "gone.png").symlink_to(here / "nowhere.png")
    shutil.copytree(here / "other" / "a", here / "loop")
    (here / "loop" / "again").symlink_to(here / "loop")


def ten_bits(_: Path, here: Path) -> None:
    (here / "deep").mkdir()
    for number in range(24):
        values = np.random.default_rng(number).integers(0, 1024, (40, 40)).astype(np.uint16)
        values[0, 0] = 1023
        Image.fromarray(values).save(here / "deep" / f"{number}.png")


def hashes(_: Path, here: Path) -> None:
    images(here / "faces", 9)
    images(here / "faces #2", 12, 50)


def names(_: Path, here: Path) -> None:
    for first, name in enumerate(("2024", "007", "a: b", "home/pics")):
        images(here / name, 9, 100 * first)


def twelve(_: Path, here: Path) -> None:
    for number in range(12):
        images(here / "classes" / str(number), 2, 10 * number)


def big(_: Path, here: Path) -> None:
    (here / "big").mkdir()
    images(here / "big", 9)
    Image.new("L", (12_000, 9_000), 90).save(here / "big" / "photo.png")


def pipe(_: Path, here: Path) -> None:
    images(here / "pipe", 12)
    os.mkfifo(here / "pipe" / "aa.png")


def odd_tiff(_: Path, here: Path) -> None:
    """A sound TIFF file whose compression (LERC, 34887) Pillow does not read."""
    images(here / "odd", 9)
    file = here / "odd" / "scan.tif"
    Image.new("RGB", (20, 20), (9, 99, 199)).save(file)
    content, entry = bytearray(file.read_bytes()), b"\x03\x01\x03\x00\x01\x00\x00\x00"
    place = content.index(entry) + len(entry)
    content[place : place + 2] = (34887).to_bytes(2, "little")
    file.write_bytes(content)


def own_output(cases: Path, here: Path) -> None:
    shutil.copytree(cases / "own-output", here / "own", ignore=shutil.ignore_patterns("runs"))
    for name in ("f.yaml", "h.yaml"):
        shutil.copy(here / name, here / "own")


def copied(name: str) -> Callable[[Path, Path], None]:
    """Copy an input of CASES, for commands that move it or write beside it."""

    def copy(cases: Path, here: Path) -> None:
        shutil.copytree(cases / name, here / Path(name).name)

    return copy


PYTHON = """
import numpy as np, vgx
from pathlib import Path
r = vgx.load_recipe("f.yaml", {"dataset.path": Path("faces"), "train.batch": np.int64(4)})
print("PATH", r.dataset.path, r.train.batch)
"""
COUNT = "import sys, vgx\ntry: vgx.sample('1', n=int(sys.argv[1]))\n"
COUNT += "except vgx.RecipeError as error: print('RecipeError', error)\n"
DIGITS = ("image.channels=1", "image.classes=10", "dataset.label=folder")
PATCHES = "discriminator={{type: timm-patchgan, backbone: {}}}"
ON_FACES = ("--data", "faces")
FIVE = "encoder.widths=[4, 4, 4, 4, 4]"
LABELLED = ("decoder={type: labelled, inner: {type: conv-transpose, widths: [16, 8]}}",)
SLIP = r"Data: [\d,]+ images(?! before)"  # printed once all images are decoded

TRIES = [
    Try("1a", "its own output beside the images: trained in the folder of images",
        data(".", "train.steps=4"), says=["Data: 9 images"], make=own_output, folder="own",
        first=[data(".")]),
    Try("1b", "its own output: resumed there", ("run", "--resume", "1", "--set", "train.steps=5"),
        says=["Data: 9 images"], make=own_output, folder="own", first=[data(".")]),
    Try("2a", "hidden folders and thumbnails", data("faces"), says=["Data: 24 images"],
        make=hidden),
    Try("2b", "class folders beside .ipynb_checkpoints",
        data("{cases}/classhidden", "dataset.label=folder", "image.classes=2"),
        says=["Data: 12 images"]),
    Try("3", "a Mac's zip, unpacked: ._0000.jpg, __MACOSX", data("{cases}/appledouble/data"),
        says=["Data: 24 images"]),
    Try("4a", "two links to folders", data("all"), says=["Data: 24 images"], make=links),
    Try("4b", "12 images beside a linked folder of 12", data("part"), says=["Data: 24 images"],
        make=links),
    Try("4c", "the folder itself is a link", data("root"), says=["Data: 24 images"], make=links),
    Try("4d", "a dead link", data("dead"), code=(0, 4), says=["gone.png|link"], make=links),
    Try("4e", "a link that leads back", data("loop"), says=["Data: 12 images"], make=links),
    # Those of CASES have the beginning of a photo alone: with a reader of HEIC they are unreadable.
    Try("5a", "iPhone photos beside JPEG files", data("{cases}/endings/heic"), code=(0, 4),
        says=[r"Data: 16 images|\.heic"]),
    Try("5b", "iPhone photos alone", data("{cases}/heic-only"), code=(0, 4),
        says=[r"\.heic|Data: 8 "]),
    Try("5c", "endings such as .jpg_large and .jpg?itok=, and none",
        data("{cases}/endings/data"), says=["Data: 30 images"]),
    Try("5d", "files without an ending", data("{cases}/endings/none"), says=[r"Data: \d+ images"]),
    Try("6a", "a zip", data("{cases}/archive/pics.zip"), says=["Data: 24 images"]),
    Try("6b", "a tar.gz", data("{cases}/archive/pics.tar.gz"), says=["Data: 24 images"]),
    Try("6c", "a folder with a zip", data("{cases}/archive/inside"), code=(0, 4), says=["zip"]),
    Try("6d", "--data with a zip", tiny(more=("--data", "{cases}/archive/pics.zip")),
        says=["Data: 24 images"]),
    Try("7", "hub layout: images in train.zip", hub("{cases}/hub/zipped"),
        says=["Data: 24 images"]),
    Try("8a", "hub layout: two configurations, none chosen", hub("{cases}/hub/configs"),
        code=(2, 4), says=["dataset.config", "small", "full"]),
    Try("8b", "hub layout: a configuration", hub("{cases}/hub/configs", "dataset.config=full"),
        says=[r"Data: \d+ images"]),
    *(Try(f"9{letter}", f"hub layout: a column of {what}", hub(f"{{cases}}/hub/{name}.parquet"),
          says=[r"Data: \d+ images"])
      for letter, what, name in [
          ("a", "binaries", "binary"), ("b", "JPEG binaries", "binary-jpg"),
          ("c", "structs with bytes alone", "struct-bytesonly"), ("d", "arrays", "arr")]),
    Try("9e", "hub layout: a column of lists of images",
        hub("{cases}/hub/seq.parquet", "dataset.column=images.0"), says=[r"Data: \d+ images"]),
    Try("9f", "hub layout: a list of images, none chosen", hub("{cases}/hub/seq.parquet"),
        code=(2, 4), says=[r"images\.0"]),
    Try("9g", "hub layout: images as base64", hub("{cases}/hub/b64.parquet"), code=(0, 4),
        says=["base64"]),
    Try("10a", "a folder of save_to_disk", hub("{cases}/hub/saved"), says=[r"Data: \d+ images"]),
    Try("10b", "a saved DatasetDict", hub("{cases}/hub/saveddict"), says=[r"Data: \d+ images"]),
    *(Try(f"11{letter}", f"labels that are {what}",
          hub(f"{{cases}}/hub/{name}", f"dataset.label={column}", f"image.classes={count}"),
          says=[r"Data: \d+ images"])
      for letter, what, name, column, count in [
          ("a", "words", "strlabel.parquet", "label", 2),
          ("b", "booleans", "boollabel.parquet", "label", 2),
          ("c", "floats", "floatlabel.parquet", "label", 2),
          ("d", "words in metadata.csv", "metastr", "species", 2)]),
    Try("12a", "a name without an owner: mnist", hub("mnist"), code=(4, 8),
        says=["ylecun/mnist|owner/name"]),
    Try("12b", "a pasted address of the hub", hub("https://huggingface.co/datasets/ylecun/mnist"),
        code=(8,), says=["ylecun/mnist"]),
    Try("12c", "hf://", hub("hf://datasets/ylecun/mnist"), code=(8,), says=["ylecun/mnist"]),
    Try("13a", "MNIST as it is", hub("{cases}/hub/mnist"), code=(4,),
        says=["40 greyscale", "--set dataset.non_rgb=convert", "image.channels=1"]),
    Try("13b", "MNIST with one channel", hub("{cases}/hub/mnist", "image.channels=1"),
        says=["Data: 40 images"]),
    Try("13c", "MNIST, converted", hub("{cases}/hub/mnist", "dataset.non_rgb=convert"),
        says=["Data: 40 images"]),
    Try("14a", "3 of 24 images torn, empty, HTML", data("{cases}/torn/data"), code=(4,),
        says=["3 of 24 images", "--set dataset.on_bad=skip --set dataset.max_bad=0.13"]),
    Try("14b", "the same with the settings of the message",
        data("{cases}/torn/data", "dataset.on_bad=skip", "dataset.max_bad=0.13"),
        says=["21 images kept, 3 unreadable"]),
    Try("14c", "1 of 50 images torn, left out",
        data("{cases}/one-bad-of-50", "dataset.on_bad=skip"), code=(4,),
        says=["--set dataset.max_bad=0.02"]),
    Try("14d", "the same with the share of the message",
        data("{cases}/one-bad-of-50", "dataset.on_bad=skip", "dataset.max_bad=0.02"),
        says=["49 images kept, 1 unreadable"]),
    Try("15", "dark shapes on transparent", data("{cases}/logos/data"),
        files={"runs/*/recipe.yaml": r"background: .*(white|fff)"}),
    Try("16", "16-bit files that use ten bits", data("deep", "image.channels=1"),
        files={"runs/*/recipe.yaml": r"range:\s*\[?\s*-?\s*0(\.0)?,?\s*-?\s*1023"}, make=ten_bits),
    Try("17a", "images three times as wide as high", data("{cases}/rect/wide"),
        says=["crop", "pad"]),
    Try("17b", "the same, cropped", data("{cases}/rect/wide", "image.fit=crop"),
        says=["Data: 24 images"]),
    Try("17c", "the same at [16, 48]", data("{cases}/rect/wide", "image.size=[16, 48]"),
        says=["Data: 24 images"]),
    Try("18", "a folder called 'faces #2' beside 'faces'", data("faces #2"),
        says=["Data: 12 images"], make=hashes),
    Try("19a", "~ in the path of a folder", data("~/pics"), says=["Data: 9 images"], make=names),
    Try("19b", "~ in the path of weights", tiny(*weights("~/none.safetensors")), code=(2,),
        says=["{here}/home/none.safetensors"], never=["~"]),
    Try("20a", "a moved folder", ("run", "--resume", "1", "--set", "dataset.path=moved"),
        make=plain, first=[data("faces"), ("mv", "faces", "moved")]),
    Try("20b", "resumed from another folder", ("resume", "../runs/0001-own"), code=(4,),
        says=["{here}/elsewhere/faces", "--set dataset.path={here}/faces"], make=plain,
        first=[data("faces"), ("mkdir", "elsewhere")], folder="elsewhere"),
    Try("20c", "the place of a moved folder with --data", ("resume", "1", "--data", "moved"),
        make=plain, first=[data("faces"), ("mv", "faces", "moved")]),
    Try("21", "another learning rate on a resume",
        ("run", "--resume", "1", "--set", "train.optimizers.generator.lr=1e-4",
         "--set", "train.steps=5"),
        files={"runs/*/log.jsonl": "0\\.0001"}, make=plain, first=[data("faces")]),
    Try("22a", "images of one class, by its name", ("sample", "1", "-n", "4", "--class", "3"),
        first=[data("{cases}/digits8", *DIGITS, *LABELLED)]),
    Try("22b", "class folders 0 to 11, in natural order",
        data("classes", "dataset.label=folder", "image.classes=12"),
        files={"runs/*/environment.json": r'(?s)"0"\W.*"1"\W.*"2"\W.*"9"\W.*"10"\W.*"11"\W'},
        make=twelve),
    *(Try(f"23{letter}", f"a slip in the recipe: {what}", command, code=code, never=[SLIP],
          make=plain)
      for letter, what, command, code in [
          ("a", "a device", ("run", "f.yaml", "--device", "cuda:7", "--set", "dataset.path=faces"),
           (2,)),
          ("b", "a size that cannot be halved", data("faces", "image.size=98"), (2,)),
          ("c", "no such weights", tiny(*weights("none.safetensors"), more=ON_FACES), (2,)),
          ("d", "a tracker that is not installed", data("faces", "trackers=[mlflow, wandb]"), (2,)),
          ("e", "a backbone", tiny(PATCHES.format("resnet_50"), more=ON_FACES), (2,)),
          ("f", "a metric that needs larger images",
           data("faces", "eval.metrics=[ssim]", "eval.every=1", "image.size=8"), (2,)),
          ("g", "a minibatch of one image with BatchNorm",
           data("faces", "train.batch=1", FIVE), (2,)),
          ("h", "runs in a file", (*data("faces"), "--out", "f.yaml"), (5,))]),
    Try("24", "an evaluation with five images", ("eval", "1", "--seeds", "1", "-n", "32"),
        says=["Left out: .*prdc"], first=[data("{cases}/five", "train.batch=5")]),
    Try("25a", "check: a minibatch of one image with BatchNorm",
        tiny("sampler=prior", "train.batch=1", "image.size=32", PATCHES.format("resnet18"),
             command="check"),
        code=(2,), says=["too small"], never=["ready to run"]),
    Try("25b", "check: pieces of one image",
        tiny("sampler=prior", "train.batch=4", "train.accumulate=4", "encoder.widths=[4, 4, 4, 4]",
             command="check"),
        code=(2,), says=["too small"], never=["ready to run"]),
    Try("26a", "an image called .jpg", ("sample", "1", "-n", "9", "--out", "x.jpg"),
        files={"x.jpg": "^\xff\xd8\xff"}, make=plain, first=[data("faces")]),
    Try("26b", "an animation called .gif",
        ("sample", "1", "-n", "9", "--animate", "--out", "a.gif"),
        files={"a.gif": "^GIF8"}, make=plain, first=[data("faces")]),
    Try("26c", "an ending that is none", ("sample", "1", "-n", "9", "--out", "x.xyz"), code=(2,),
        says=["png"], make=plain, first=[data("faces")]),
    Try("27a", "resume of a run that is done", ("resume", "1"), says=["done", "--set train.steps"],
        never=["goes on from"], make=plain, first=[data("faces")]),
    Try("27b", "fewer steps than are done", ("run", "--resume", "1", "--set", "train.steps=1"),
        code=(2,), files={"runs/*/recipe.yaml": "steps: 3"}, make=plain, first=[data("faces")]),
    Try("28a", "weights with a prefix before all names",
        tiny(*weights("w.safetensors", "test_resnet"), command="check"),
        first=[("import-weights", "{cases}/weights/backbone.pth", "w.safetensors")]),
    Try("28b", "a file with a generator and a discriminator",
        ("import-weights", "{cases}/weights/gan.pth", "w.safetensors"), code=(0, 2),
        says=["generator", "discriminator"]),
    Try("29a", "a Git LFS pointer as weights",
        tiny(*weights("{cases}/weights/lfs.safetensors")), code=(2,), says=["Git LFS"]),
    Try("29b", "a folder of Git LFS pointers", data("{cases}/lfs"), code=(4,), says=["Git LFS"]),
    Try("30a", "Python: a Path and a number of NumPy", ("python", "-c", PYTHON),
        says=["PATH faces 4"], make=plain),
    Try("30b", "Python: no images", ("python", "-c", COUNT, "0"), says=["RecipeError"], make=plain,
        first=[data("faces")]),
    Try("31a", "train and test in one folder", data("{cases}/classes/splits"),
        says=["train", "test"]),
    Try("31b", "splits taken for classes", data("{cases}/classes/splits", "dataset.label=folder"),
        code=(2,), says=["test.*train|bird, cat, dog", "image.classes"]),
    Try("32", "a mistyped folder",
        ("run", "anime_vaegan", "--set", "dataset.path=my/facess", "--offline"),
        code=(4, 8), says=["{here}/my/facess"], never=["Data: 20,000"]),
    Try("33", "a photo of 108 megapixels", data("big"), code=(4,),
        says=["12,000 x 9,000|108,000,000 pixels"], never=["[bB]omb"], make=big),
    Try("34", "a pipe among the images", data("pipe"), code=(0, 4), says=["1 named pipe|regular"],
        make=pipe),
    Try("35a", "a folder called 2024", data("2024"), says=["Data: 9 images"], make=names),
    Try("35b", "a folder called 007", data("007"), says=["Data: 9 images"], make=names),
    Try("35c", "a folder called 'a: b'", data("a: b"), says=["Data: 9 images"], make=names),
    Try("35d", "an experiment called 2024", data("2024", "name=2024"), make=names),
    Try("36a", "a renamed run", ("sample", "best one", "-n", "4"), make=plain,
        first=[data("faces"), ("mv", "runs/0001-own", "runs/best one")]),
    Try("36b", "a renamed run in the list", ("list",), says=["best one"], make=plain,
        first=[data("faces"), ("mv", "runs/0001-own", "runs/best one")]),
    *(Try(f"37{letter}", f"a name that is nearly right: {what}", data("faces", setting), code=(2,),
          says=[meant], make=plain)
      for letter, what, setting, meant in [
          ("a", "train.lr", "train.lr=1e-4", r"train\.optimizers\.generator\.lr"),
          ("b", "losses.l1.weight", "losses.l1.weight=3", r"losses\.0\.weight"),
          ("c", "FID", "eval.metrics=[FID]", "'fid'"),
          ("d", "ResNet50", PATCHES.format("ResNet50"), "resnet50"),
          ("e", "resnet_18", PATCHES.format("resnet_18"), "resnet18")]),
    Try("37f", "evaluated against a folder",
        ("eval", "1", "--against", "faces", "--metrics", "frechet-distance", "-n", "16"),
        make=plain, first=[data("faces")]),
    *(Try(f"38{letter}", f"--device {name}",
          ("run", "f.yaml", "--device", name, "--set", "dataset.path=faces"), code=(2,),
          says=["this machine has cpu"], never=["Traceback"], make=plain)
      for letter, name in zip("abcde", ("meta", "0", "gpu", "cpu:1", "mps"), strict=True)),
    Try("39", "40 of 200 images, in ten classes",
        data("{cases}/digits8", *DIGITS, "dataset.limit=40"),
        says=["Data: 40 images", r"0 \(4\), 1 \(4\), .*9 \(4\)"]),
    Try("40", "single images beside those of another run",
        ("sample", "1", "-n", "3", "--separate", "out"),
        code=(0, 5), says=["other files are there, 3|3 other"], make=plain,
        first=[data("faces"), ("sample", "1", "-n", "6", "--separate", "out")]),
    Try("41a", "a parquet file without rows", hub("{cases}/hub/empty.parquet"), code=(4,),
        says=["no rows|no images|0 rows|is empty"], never=["DatasetGenerationError"]),
    Try("41b", "an image given as a data set of the hub", hub("{cases}/five/0000.png"), code=(4,),
        says=["one image|no parquet"], never=["magic bytes"]),
    Try("42", "a TIFF of a kind that is not read", data("odd"), code=(4,), says=["scan.tif.*TIFF"],
        make=odd_tiff),
]  # fmt: skip


# --- running them --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of a row."""

    code: int | str
    line: str  # of the output: the one that tells
    fault: str  # how it differs from what must come of it; an empty text if it does not
    seconds: float


def tried(row: Try, cases: Path, checkout: Path, work: Path) -> Outcome:
    """Run a row in the folder `here` of `work`, which begins as `prepared` leaves it."""
    here = work / "here"
    if fault := prepared(row, cases, checkout, work):
        return Outcome("-", fault, "a command before it failed", 0)
    begun = time.perf_counter()
    try:
        done = started(row.command, here, cases, checkout, row.folder)
    except subprocess.TimeoutExpired:
        return Outcome("-", "", f"ended after {SECONDS} s", SECONDS)
    seconds = time.perf_counter() - begun
    return judged(row, done.returncode, done.stdout, here, seconds)


def prepared(row: Try, cases: Path, checkout: Path, work: Path) -> str:
    """Make the input of a row, and run what comes before; return the last line of what failed.

    Rows with the same beginning share it: it is kept, and copied back to the same place.
    """
    here, same = (
        work / "here",
        f"{row.make and row.make.__name__} {row.first} {row.folder == 'own'}",
    )
    kept = work / hashlib.sha256(same.encode()).hexdigest()[:16]
    shutil.rmtree(here, ignore_errors=True)
    if row.first and kept.is_dir():
        shutil.copytree(kept, here, symlinks=True)
        return ""
    (here / "home").mkdir(parents=True)
    for file, kind in (("f.yaml", "image-folder"), ("h.yaml", "huggingface")):
        (here / file).write_text(RECIPE.format(kind))
    if row.make:
        row.make(cases, here)
    for command in row.first:
        done = started(command, here, cases, checkout, "own" if row.folder == "own" else ".")
        if done.returncode != 0:
            return last_line(done.stdout) or "no output"
    if row.first:
        shutil.copytree(here, kept, symlinks=True)
    return ""


def started(
    command: str | Words, here: Path, cases: Path, checkout: Path, folder: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, with runs, cache and home of its own."""
    words = [word.replace("{cases}", str(cases)).replace("{here}", str(here)) for word in command]
    if words[0] == "python":
        words[0] = sys.executable
    elif words[0] not in ("mv", "mkdir"):
        words = [sys.executable, "-m", "vgx", *words]
    paths = [
        str(checkout / "framework"),
        str(checkout / "plugins"),
        os.environ.get("PYTHONPATH", ""),
    ]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(paths), "VGX_CACHE": str(here / "cache"),
        "VGX_CONFIG": str(here / "config"), "HOME": str(here / "home"), "COLUMNS": "200",
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(here / "hub"),
    }  # fmt: skip
    for name in ("VGX_RUNS", "VGX_CACHE_MAX"):
        environment.pop(name, None)
    return subprocess.run(  # noqa: S603
        words, cwd=here / folder, env=environment, text=True, check=False, timeout=SECONDS,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        errors="replace",
    )  # fmt: skip


def judged(row: Try, code: int, output: str, here: Path, seconds: float) -> Outcome:
    """Compare what came of a row with what must."""
    fault, line = "", last_line(output)
    if code not in row.code:
        fault = f"exit code {code}, not {' or '.join(map(str, row.code))}"
    one_line = " ".join(output.split())
    for pattern in row.says:
        wanted = pattern.replace("{here}", re.escape(str(here)))
        if not re.search(wanted, one_line, re.IGNORECASE):
            fault = fault or f"does not say `{pattern}`"
        elif lines := [
            each for each in output.splitlines() if re.search(wanted, each, re.IGNORECASE)
        ]:
            line = lines[0]
    for pattern in row.never:
        if re.search(pattern, one_line):
            fault = fault or f"says `{pattern}`"
    for name, pattern in row.files.items():
        found = sorted((here / row.folder).glob(name))
        content = found[0].read_bytes().decode("latin-1") if found else ""
        if not re.search(pattern, content):
            fault = fault or f"{name} has no `{pattern}`"
    return Outcome(code, line.replace(str(here), "."), fault, seconds)


def last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def cell(text: object, most: int = 160) -> str:
    """A text in a cell of a Markdown table."""
    line = " ".join(str(text).split())
    line = line if len(line) <= most else line[: most - 3] + "..."
    return line.replace("|", "\\|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=Path)
    parser.add_argument("--vgx", type=Path, default=ROOT, help="another checkout")
    parser.add_argument("--only", default="", help="numbers, such as 1,4b")
    parser.add_argument("--out", type=Path, help="a file for the table")
    options = parser.parse_args()
    numbers = set(filter(None, options.only.split(",")))
    rows = [
        row for row in TRIES if not numbers or {row.number, row.number.rstrip("abcdefgh")} & numbers
    ]
    lines = [
        "| | what was tried | exit code | what it says | as it must be |",
        "|---|---|---|---|---|",
    ]
    failed, places = 0, (options.cases.resolve(), options.vgx.resolve())
    work = Path(tempfile.mkdtemp(prefix="own-images-")).resolve()
    for row in rows:
        outcome = tried(row, *places, work)
        failed += bool(outcome.fault)
        verdict = f"no: {outcome.fault}" if outcome.fault else "yes"
        cells = (row.number, row.what, outcome.code, outcome.line, verdict)
        lines.append(f"| {' | '.join(map(cell, cells))} |")
        print(f"{row.number:4} {outcome.seconds:5.1f} s  {verdict}", file=sys.stderr, flush=True)
    shutil.rmtree(work)
    lines += ["", f"{len(rows) - failed} of {len(rows)} are as they must be."]
    text = "\n".join(lines) + "\n"
    if options.out:
        options.out.write_text(text)
    else:
        print(text, end="")
    return 0 if not failed else 1


if __name__ == "__main__":
    sys.exit(main())
