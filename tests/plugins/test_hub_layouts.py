"""What people call a data set of images: layouts of folders, kinds of columns, pasted names."""

from __future__ import annotations

import base64
import io
import json
import re
import tarfile
import zipfile

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import vgx
from vgx.errors import DataError, HubError, RecipeError
from vgx_builtin import hub
from vgx_builtin.datasets.huggingface import HuggingFace
from vgx_builtin.rows.hub_names import from_address
from vgx_builtin.rows.readme import configs_in

pytestmark = pytest.mark.filterwarnings(
    # The library leaves tables open.
    "ignore:.*metadata:pytest.PytestUnraisableExceptionWarning"
)
SPEC = vgx.ImageSpec(size=8)
COUNT = 4


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VGX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "reachable", lambda: False)


def png(number):
    """An image file whose red is its number."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "png")
    return file.getvalue()


def numbers(path, spec=SPEC, **fields):
    source = HuggingFace(path=str(path), **fields).build(spec)
    return [source[index].getpixel((0, 0))[0] for index in range(len(source))]


def refused(path, **fields):
    with pytest.raises(vgx.VgxError) as caught:
        numbers(path, **fields)
    assert len(str(caught.value).splitlines()) <= 10
    return str(caught.value)


# --- layouts -------------------------------------------------------------------------------------


def write_images(folder, names=("0.png", "1.png", "2.png", "3.png")):
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number))


def zipped(folder):
    with zipfile.ZipFile(folder / "train.zip", "w") as archive:
        for number in range(COUNT):
            archive.writestr(f"sub/{number}.png", png(number))


def zipped_with_metadata(folder):
    with zipfile.ZipFile(folder / "train.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(COUNT):
            archive.writestr(f"{number}.png", png(number))
        archive.writestr("metadata.csv", "file_name,n\n0.png,0\n1.png,1\n2.png,2\n3.png,3\n")


def class_folders(folder):
    write_images(
        folder, ("train/cat/0.png", "train/cat/1.png", "train/dog/2.png", "train/dog/3.png")
    )


def metadata_csv(folder):
    write_images(folder / "train")
    (folder / "train" / "metadata.csv").write_text("file_name,n\n" + "".join(
        f"{number}.png,{number}\n" for number in range(COUNT)))  # fmt: skip


def metadata_jsonl(folder):
    write_images(folder / "train")
    lines = [json.dumps({"file_name": f"{number}.png", "n": number}) for number in range(COUNT)]
    (folder / "train" / "metadata.jsonl").write_text("\n".join(lines))


def metadata_parquet(folder):
    write_images(folder / "train")
    table = pa.table({"file_name": [f"{n}.png" for n in range(COUNT)], "n": range(COUNT)})
    pq.write_table(table, folder / "train" / "metadata.parquet")


def jsonl_of_paths(folder):
    write_images(folder / "images")
    lines = [json.dumps({"image": f"images/{number}.png"}) for number in range(COUNT)]
    (folder / "train.jsonl").write_text("\n".join(lines))


def csv_of_paths_beside_it(folder):
    write_images(folder / "data" / "pictures")
    lines = "".join(f"pictures/{number}.png,{number}\n" for number in range(COUNT))
    (folder / "data" / "train.csv").write_text("picture,n\n" + lines)


def webdataset(folder):
    with tarfile.open(folder / "train-000000.tar", "w") as archive:
        for number in range(COUNT):
            for ending, data in (("png", png(number)), ("cls", b"%d" % number)):
                member = tarfile.TarInfo(f"{number:05}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def rows():
    features = datasets.Features({"image": datasets.Image(), "n": datasets.Value("int64")})
    cells = [{"bytes": png(number), "path": None} for number in range(COUNT)]
    return datasets.Dataset.from_dict({"image": cells, "n": list(range(COUNT))}, features=features)


def saved(folder):
    rows().save_to_disk(folder, num_shards=2)


def saved_dict(folder):
    parts = {"train": rows(), "faces": rows().select([3, 1])}
    datasets.DatasetDict(parts).save_to_disk(folder)


def write_arrow(table, path, kind=pa.ipc.new_stream, **options):
    options = pa.ipc.IpcWriteOptions(**options)
    with pa.OSFile(str(path), "wb") as file, kind(file, table.schema, options=options) as writer:
        writer.write_table(table, 3)


def arrow_file(folder):
    table = pa.table({"image": [png(number) for number in range(COUNT)]})
    write_arrow(table, folder / "train.arrow", pa.ipc.new_file)


def parquet_with_paths(folder):
    write_images(folder / "images")
    cells = [{"path": f"images/{number}.png"} for number in range(COUNT)]
    pq.write_table(pa.table({"image": cells}), folder / "train.parquet")


LAYOUTS = (
    zipped, zipped_with_metadata, class_folders, write_images, metadata_csv, metadata_jsonl,
    metadata_parquet, jsonl_of_paths, csv_of_paths_beside_it, webdataset, saved, saved_dict,
    arrow_file, parquet_with_paths,
)  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_opened_and_sliced(tmp_path, layout):
    folder = tmp_path / "a [1] b"
    folder.mkdir()
    layout(folder)
    assert numbers(folder) == [0, 1, 2, 3]
    assert numbers(folder, split="train[1:3]+train[:1]") == [1, 2, 0]
    assert numbers(folder, limit=2) == [0, 1]
    assert "Unknown split" in refused(folder, split="nowhere")


def test_splits_of_a_saved_dict_are_its_folders(tmp_path):
    saved_dict(tmp_path / "x")
    assert numbers(tmp_path / "x", split="faces") == [3, 1]
    assert "Should be one of" in refused(tmp_path / "x", split="test")
    assert numbers(tmp_path / "x" / "faces") == [3, 1]


def test_labels_of_a_layout_are_found(tmp_path):
    spec = vgx.ImageSpec(size=8, classes=2)
    class_folders(tmp_path / "x")
    source = HuggingFace(path=str(tmp_path / "x"), label="label").build(spec)
    assert [source.label(index) for index in range(COUNT)] == [0, 0, 1, 1]
    webdataset(tmp_path)
    spec = vgx.ImageSpec(size=8, classes=COUNT)
    source = HuggingFace(path=str(tmp_path / "train-000000.tar"), label="cls").build(spec)
    assert [source.label(index) for index in range(COUNT)] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["train.zip", "train-000000.tar"])
def test_an_archive_is_opened_by_its_own_name(tmp_path, name):
    zipped(tmp_path)
    webdataset(tmp_path)
    assert numbers(tmp_path / name) == [0, 1, 2, 3]


def test_changed_files_under_the_same_names_are_read_anew(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    zipped(folder)
    before = HuggingFace(path=str(folder)).build(SPEC)
    with zipfile.ZipFile(folder / "train.zip", "w") as archive:
        archive.writestr("sub/0.png", png(77))
        archive.writestr("sub/1.png", png(78))
    assert numbers(folder) == [77, 78]
    assert HuggingFace(path=str(folder)).build(SPEC).fingerprint != before.fingerprint


def test_configs_with_folders_and_files_of_their_own(tmp_path):
    folder = tmp_path / "there"
    write_images(folder / "small")
    write_images(folder / "full" / "train", ("7.png", "8.png"))
    write_images(folder / "full" / "test", ("9.png",))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files: small/[12].png\n"
        "- config_name: full\n  data_dir: full\n---\n"
    )
    assert "several configs: small, full; set dataset.config=NAME" in refused(folder)
    assert numbers(folder, config="small") == [1, 2]
    prints = {HuggingFace(path=str(folder), config=each).build(SPEC).fingerprint
              for each in ("small", "full")}  # fmt: skip
    assert len(prints) == 2
    assert numbers(folder, config="full") == [0, 1]
    assert numbers(folder, config="full", split="test") == [0]
    assert "no config 'large'; there are: small, full" in refused(folder, config="large")
    (folder / "README.md").unlink()
    assert "no config 'small'; README.md names no configs" in refused(folder, config="small")


CONFIG = "configs:\n- config_name: small\n  data_files: '*'\n"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (f"---\n{CONFIG}---\n", ["small"]),
        (f"---\nlicense: mit\n{CONFIG}size: 1\n---\n---\n", ["small"]),
        (f"---  \r\n{CONFIG}--- \r\ntext", ["small"]),
        (f"---\n\n{CONFIG}---", ["small"]),
        (f"---\n---\n{CONFIG}---\n", []),  # in the text
        (f"---\n{CONFIG}", []),  # without an end
        (f"---\n{CONFIG}----\n", []),
        (f"# Faces\n---\n{CONFIG}---\n", []),
        ("", []),
        ("---" + "\n" * (2**20 - 3), []),  # in no time
    ],
)
def test_the_head_of_a_readme_is_between_two_lines(tmp_path, text, names):
    (tmp_path / "README.md").write_bytes(text.encode())
    assert list(configs_in(tmp_path / "README.md")) == names


# --- what is no data set -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_one_image_is_no_data_set_whatever_its_name(tmp_path, kind):
    file = tmp_path / "photo.csv"
    Image.new("RGB", (8, 8), "red").save(file, kind)
    text = f"one image is no data set; .* --set dataset.path={tmp_path}$"
    with pytest.raises(DataError, match=text):
        numbers(str(file))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.png", png(0), "dataset.type=image-folder --set dataset.path="),
        ("a.txt", b"x", "not a file of rows; those that are opened: .parquet, .arrow"),
        ("a.parquet", b"<html>", "a.parquet: not a parquet file"),
        ("a.parquet", b"", "a.parquet: not a parquet file"),
        ("a.arrow", b"", "a.arrow: empty"),
        ("a.arrow", b"ARROW1 and no more", "a.arrow: "),
        ("a.csv", b"name,n\na,1\n", r"the columns are name \(string\), n \(int64\)"),
        ("a.csv", b"name,n\n", "no rows in these files"),
        ("a.jsonl", b'{"x": [1, 2]}', r"the columns are x \(lists of int64\)"),
        ("a.tar", b"x", "a.tar: ReadError"),
        ("a.zip", b"x", "a.zip: a zip file that is damaged"),
        ("a.jsonl.gz", b"x", "not a file of rows"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_data_set_is_refused_in_plain_words(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    assert re.search(message, refused(tmp_path / name))


def test_a_parquet_file_may_have_any_name(tmp_path):
    pq.write_table(pa.table({"image": [png(3)]}), tmp_path / "rows")
    assert numbers(tmp_path / "rows") == [3]


def test_without_rows_the_splits_and_their_sizes_are_listed(tmp_path):
    cells = pa.array([], pa.binary())
    pq.write_table(pa.table({"image": cells}), tmp_path / "train.parquet")
    pq.write_table(pa.table({"image": [png(0)] * 3}), tmp_path / "test.parquet")
    assert "no rows in this split; rows: train 0, test 3" in refused(tmp_path)


def test_a_table_that_begins_like_an_image_is_a_table(tmp_path):
    """BM begins a bitmap, too: its whole header is looked at."""
    (tmp_path / "people.csv").write_text("BMI,age\n20,30\n")
    assert "no column holds images" in refused(tmp_path / "people.csv")


def test_a_folder_says_what_is_in_it(tmp_path):
    for name in ("a.doc", "b.doc", "c"):
        (tmp_path / name).write_bytes(b"x")
    assert "there are: 2 .doc, 1 without an ending" in refused(tmp_path)
    (tmp_path / "empty").mkdir()
    assert "the folder is empty" in refused(tmp_path / "empty")
    (tmp_path / "a.txt").write_text("x")
    assert "files of the kind 'text' hold no images" in refused(tmp_path)


# --- columns -------------------------------------------------------------------------------------


def table(**columns):
    return pa.table(columns)


def struct(number, **more):
    return {"bytes": png(number), **more}


def columns():
    every = range(COUNT)
    binary = [png(number) for number in every]
    yield "binary", table(image=binary), None
    yield "large binary", table(image=pa.array(binary, pa.large_binary())), None
    yield "binary beside a vector", table(image=binary, v=[[0.5, 0.5]] * COUNT), None
    yield "bytes alone", table(image=[struct(n) for n in every]), None
    yield "more fields", table(image=[struct(n, path="x", width=8, h=8) for n in every]), None
    yield "struct before bytes", table(raw=[b"x"] * COUNT, image=[struct(n) for n in every]), None
    lists = [[struct(9, path=None), struct(n, path=None)] for n in every]
    yield "a list", table(images=lists), "images.1"
    yield "a list of binary", table(images=[[png(n)] for n in every]), "images.0"
    yield "nested", table(pair=[{"a": struct(9), "b": struct(n)} for n in every]), "pair.b"
    deep = [{"of": [{"left": {"bytes": png(n), "path": None}}], "n": 1} for n in every]
    yield "list in a struct", table(pair=deep), "pair.of.0.left"


COLUMNS = {name: (made, column) for name, made, column in columns()}


@pytest.mark.parametrize(("made", "column"), COLUMNS.values(), ids=list(COLUMNS))
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_column_of_images_of_any_kind_is_read(tmp_path, made, column, kind):
    if kind == "parquet":
        pq.write_table(made, tmp_path / "x.parquet", row_group_size=3)
    else:
        write_arrow(made, tmp_path / "x.arrow")
    path = tmp_path / f"x.{kind}"
    if column is not None:
        message = refused(path)
        assert f"images lie in parts of columns: {column.split('.')[0]}" in message
        assert "; set dataset.column, such as" in message
    assert numbers(path, column=column) == [0, 1, 2, 3]
    assert numbers(path, column=column, split="train[2:]") == [2, 3]


def test_a_short_list_has_no_image(tmp_path):
    pq.write_table(table(images=[[png(0), png(1)], [png(2)], None, []]), tmp_path / "x.parquet")
    source = HuggingFace(path=str(tmp_path / "x.parquet"), column="images.1").build(SPEC)
    assert source[0].getpixel((0, 0)) == (1, 0, 0)
    for row in (1, 2, 3):
        with pytest.raises(vgx.Dropped, match="empty"):
            source[row]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("images", r"column 'images' holds lists of binary, not images; .* one of images\.0"),
        ("images.x", "no column 'images.x'; the columns are images .lists of binary., n .int64."),
        ("images.0.1", "no column"),
        ("n.0", "no column"),
        ("images.-1", "no column"),
        ("n", "column 'n' holds int64, not images$"),
    ],
)
def test_a_column_that_is_none_is_refused_with_the_choices(tmp_path, column, message):
    pq.write_table(table(images=[[png(0)]], n=[1]), tmp_path / "x.parquet")
    assert re.search(message, refused(tmp_path / "x.parquet", column=column))


def test_text_in_place_of_images_is_said_and_nothing_is_fetched(tmp_path):
    texts = [base64.b64encode(png(number) * 2).decode() for number in range(COUNT)]
    pq.write_table(table(image=texts), tmp_path / "a.parquet")
    for column in (None, "image"):
        message = refused(tmp_path / "a.parquet", column=column)
        assert "images as text (base64)" in message
    assert "b64decode(row['image'])" in message
    pq.write_table(table(url=["https://127.0.0.1:9/a.png"]), tmp_path / "b.parquet")
    for column in (None, "url"):
        message = refused(tmp_path / "b.parquet", column=column)
        assert "addresses of images (https://127.0.0.1:9/a.png)" in message


def test_the_advice_for_base64_works(tmp_path):
    texts = [base64.b64encode(png(number) * 2).decode() for number in range(COUNT)]
    found = datasets.Dataset.from_dict({"image": texts})
    found = found.map(lambda row: {"image": {"bytes": base64.b64decode(row["image"])}})
    found.to_parquet(tmp_path / "images.parquet")
    assert numbers(tmp_path / "images.parquet") == [0, 1, 2, 3]


def test_types_splits_and_classes_are_in_the_message(tmp_path):
    features = {
        "kind": datasets.ClassLabel(names=["cat", "dog"]), "x": datasets.Value("float32"),
        "box": datasets.List(datasets.Value("int32")), "a": {"b": datasets.Value("string")},
    }  # fmt: skip
    made = {"kind": [0, 1], "x": [0.0, 1.0], "box": [[1], [2]], "a": [{"b": "x"}, {"b": "y"}]}
    found = datasets.Dataset.from_dict(made, features=datasets.Features(features))
    found.to_parquet(tmp_path / "x.parquet")
    message = refused(tmp_path / "x.parquet")
    for words in ("kind (2 classes: cat, dog)", "x (float32)", "box (lists of int32)", "b: string"):
        assert words in message


# --- numbers -------------------------------------------------------------------------------------

GREY = np.arange(6).reshape(2, 3)  # [H, W]
COLOURS = np.arange(90).reshape(5, 6, 3)  # [H, W, C]


def arrays(made, tmp_path, channels=3, **fields):
    pq.write_table(made, tmp_path / "x.parquet", row_group_size=2)
    spec = vgx.ImageSpec(size=8, channels=channels)
    return HuggingFace(path=str(tmp_path / "x.parquet"), **fields).build(spec)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (pa.uint8(), 200, "uint8"), (pa.int64(), 200, "uint8"), (pa.int64(), 0, "uint8"),
        (pa.int32(), 300, "uint16"), (pa.uint16(), 3, "uint16"), (pa.int64(), -1, "float32"),
        (pa.int64(), 10**6, "float32"), (pa.float64(), 0.5, "float32"), (pa.bool_(), True, "uint8"),
    ],
)  # fmt: skip
def test_lists_of_numbers_are_images(tmp_path, kind, value, expected):
    image = pa.array([[[[value] * 3] * 4] * 2] * 3, pa.list_(pa.list_(pa.list_(kind))))
    source = arrays(pa.table({"image": image, "n": [1] * 3}), tmp_path)
    assert source[2].shape == (2, 4, 3)
    assert source[2].dtype == expected
    assert (source[2] == value).all()


def test_arrays_of_the_library_are_images_and_channels_come_last(tmp_path):
    features = datasets.Features(
        {"grey": datasets.Array2D((2, 3), "uint8"), "first": datasets.Array3D((3, 5, 6), "float32"),
         "last": datasets.Array3D((5, 6, 3), "uint8")}
    )  # fmt: skip
    first = np.moveaxis(COLOURS, 2, 0) / 100
    made = {"grey": [GREY] * 2, "first": [first] * 2, "last": [COLOURS] * 2}
    found = datasets.Dataset.from_dict(made, features=features)
    found.to_parquet(tmp_path / "x.parquet")
    found.save_to_disk(tmp_path / "saved")
    for place in ("x.parquet", "saved"):
        path = str(tmp_path / place)
        assert "several columns hold images: grey, first, last" in refused(path)
        grey = HuggingFace(path=path, column="grey", non_rgb="convert").build(SPEC)[1]
        assert grey.tolist() == GREY.tolist()
        last = HuggingFace(path=path, column="last").build(SPEC)[1]
        assert last.tolist() == COLOURS.tolist()
        turned = HuggingFace(path=path, column="first").build(SPEC)[1]
        assert np.array_equal(turned, (COLOURS / 100).astype(np.float32))


def test_grey_numbers_are_left_out_as_grey_images_are(tmp_path):
    made = pa.table({"image": [GREY.tolist()] * 2})
    with pytest.raises(vgx.Dropped, match="greyscale"):
        arrays(made, tmp_path)[0]
    assert arrays(made, tmp_path, channels=1)[0].shape == (2, 3)
    assert arrays(made, tmp_path, non_rgb="convert")[0].shape == (2, 3)
    alpha = pa.table({"image": [np.zeros((2, 2, 4), int).tolist()]})
    with pytest.raises(vgx.Dropped, match="with alpha"):
        arrays(alpha, tmp_path)[0]


def test_numbers_that_are_no_image_are_named(tmp_path):
    image = [[[1, 2], [3, 4]]] * 9 + [None, [[1, 2], [3]], [[1, None], [2, 3]], [[1, 2], [3, 999]]]
    source = arrays(pa.table({"image": image}), tmp_path, non_rgb="convert")
    with pytest.raises(vgx.Dropped, match="empty"):
        source[9]
    for row, message in ((10, "row 10: "), (11, "row 11: not an array"), (12, "row 12: values of")):
        with pytest.raises(DataError, match=message):
            source[row]
    pq.write_table(pa.table({"pixels": [[1, 2, 3]]}), tmp_path / "flat.parquet")
    assert "pixels (lists of int64)" in refused(tmp_path / "flat.parquet")
    assert "holds lists of int64, not images" in refused(tmp_path / "flat.parquet", column="pixels")


# --- names ---------------------------------------------------------------------------------------

PLACE = {"path": "ylecun/mnist"}
ADDRESSES = {
    "https://huggingface.co/datasets/ylecun/mnist": PLACE,
    "http://huggingface.co/datasets/ylecun/mnist/": PLACE,
    "https:/huggingface.co/datasets/ylecun/mnist": PLACE,  # what pathlib makes of it
    "huggingface.co/datasets/ylecun/mnist": PLACE,
    "https://www.huggingface.co/datasets/ylecun/mnist?row=3": PLACE,
    "https://hf.co/datasets/ylecun/mnist#files": PLACE,
    "https://huggingface.co/datasets/ylecun/mnist/discussions/4": PLACE,
    "https://huggingface.co/datasets/ylecun/mnist/tree/main": {**PLACE, "revision": "main"},
    "https://huggingface.co/datasets/ylecun/mnist/tree/v1.0/": {**PLACE, "revision": "v1.0"},
    "https://huggingface.co/datasets/ylecun/mnist/tree/refs%2Fconvert%2Fparquet":
        {**PLACE, "revision": "refs/convert/parquet"},
    "https://huggingface.co/datasets/ylecun/mnist/viewer": PLACE,
    "https://huggingface.co/datasets/ylecun/mnist/viewer/full": {**PLACE, "config": "full"},
    "https://huggingface.co/datasets/ylecun/mnist/viewer/full/test?p=2":
        {**PLACE, "config": "full", "split": "test"},
    "https://huggingface.co/datasets/mnist": {"path": "mnist"},
    "https://huggingface.co/datasets/mnist/tree/main": {"path": "mnist", "revision": "main"},
    "hf://datasets/ylecun/mnist": PLACE,
    "hf:/datasets/ylecun/mnist": PLACE,
    "hf://datasets/ylecun/mnist@v1": {**PLACE, "revision": "v1"},
    "hf://datasets/ylecun/mnist@refs%2Fpr%2F1/": {**PLACE, "revision": "refs/pr/1"},
    "ylecun/mnist": {}, "mnist": {}, "./a": {}, "/data/huggingface.co/datasets/a/b": {}, "a@b": {},
}  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_of_the_hub_is_taken_apart(address):
    assert from_address(address) == ADDRESSES[address]


@pytest.mark.parametrize(
    "address",
    [
        "https://huggingface.co/stabilityai/sd-turbo", "https://huggingface.co/datasets",
        "https://huggingface.co/", "hf://models/a/b", "https://huggingface.co/spaces/a/b",
        "https://huggingface.co/datasets/../etc", "hf://datasets/a/b/data/train.parquet",
        "https://huggingface.co/datasets/a/b/resolve/main/data/x.zip",
    ],
)  # fmt: skip
def test_another_address_is_refused(address):
    with pytest.raises(RecipeError, match=r"dataset\.path="):
        from_address(address)


def test_an_address_is_opened_with_its_revision_and_its_parts(monkeypatch):
    loaded = []

    def load(**fields):
        loaded.append(fields)
        return rows()

    monkeypatch.setattr(hub, "load", load)
    address = "https://huggingface.co/datasets/ylecun/mnist"
    assert numbers(f"{address}/tree/v2") == [0, 1, 2, 3]
    assert numbers(f"{address}/viewer/full/test", revision="v3") == [0, 1, 2, 3]
    assert numbers("hf://datasets/ylecun/mnist@v4", revision="v4", config="small") == [0, 1, 2, 3]
    values = [(each["path"], each["name"], each["split"], each["revision"]) for each in loaded]
    assert values == [
        ("ylecun/mnist", None, "train", "v2"),
        ("ylecun/mnist", "full", "test", "v3"),
        ("ylecun/mnist", "small", "train", "v4"),
    ]
    with pytest.raises(RecipeError, match=r"says revision v2, and dataset\.revision is v1"):
        numbers(f"{address}/tree/v2", revision="v1")
    assert len(loaded) == 3


def test_data_gives_the_fields_of_an_address():
    address = "https:/huggingface.co/datasets/ylecun/mnist/viewer/full/test"
    fields = {"path": "ylecun/mnist", "config": "full", "split": "test"}
    assert HuggingFace.fields_for(address) == fields
    assert HuggingFace.fields_for("ylecun/mnist") == PLACE
    assert HuggingFace.fields_for("mnist") is None


def test_a_bare_name_is_told_what_names_look_like(monkeypatch):
    with pytest.raises(HubError, match="is there a folder .*/mnist; names on the hub are owner"):
        numbers("mnist")


@pytest.mark.parametrize(
    "path", ["a/b/c", "./mnist", "/nowhere/mnist", "~/nowhere", "a b", "s3://x/y"]
)
def test_what_can_be_no_name_is_never_asked_for(path):
    with pytest.raises(DataError, match="no such folder or file: /"):
        numbers(path)


@pytest.mark.parametrize(
    "words",
    [
        "Config name is missing.\nPlease pick one of the available configs: ['small', 'full']\n",
        "BuilderConfig 'x' not found. Available: ['small', 'full']",
    ],
)
def test_configs_of_the_hub_are_listed(monkeypatch, words):
    def load(**_):
        raise ValueError(words)

    monkeypatch.setattr(hub, "load", load)
    with pytest.raises(HubError, match=r"the configs are: small, full; set dataset\.config=NAME"):
        numbers("someone/faces")


def test_paths_in_a_single_file_are_not_followed_and_the_folder_is_advised(tmp_path):
    parquet_with_paths(tmp_path)
    source = HuggingFace(path=str(tmp_path / "train.parquet")).build(SPEC)
    with pytest.raises(DataError, match=r"row 0 .*; set dataset\.path to the folder of its files"):
        source[0]
