"""`vgx import-weights`: other people's .pt files become safetensors, or nothing at all."""

from __future__ import annotations

import zipfile
from collections import OrderedDict

import pytest
import safetensors.torch
import torch

import vgx
from vgx.errors import RecipeError, StorageError
from vgx.runs import import_weights as importing
from vgx.runs.import_weights import import_weights

STATE = OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.tensor([1, 2]))


@pytest.fixture
def imported(tmp_path):
    """Save an object as PyTorch does, import it, and read what was written."""

    def call(thing, **options):
        torch.save(thing, tmp_path / "in.pt", **options)
        import_weights(tmp_path / "in.pt", tmp_path / "out.safetensors")
        return safetensors.torch.load_file(tmp_path / "out.safetensors")

    return call


@pytest.mark.parametrize("key", [None, "state_dict", "params_ema", "model", "generator"])
@pytest.mark.parametrize("zipped", [True, False])
def test_weights_are_found_and_stay_what_they_are(imported, key, zipped):
    thing = STATE if key is None else {"epoch": 3, key: STATE}
    read = imported(thing, _use_new_zipfile_serialization=zipped)
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in STATE.items())
    assert read["b"].dtype == torch.int64


def test_averaged_weights_go_before_others(imported):
    other = {name: tensor + 1 for name, tensor in STATE.items()}
    with pytest.warns(vgx.Notice, match=r"under params_ema are taken; others: model \(--key KEY"):
        assert torch.equal(imported({"model": other, "params_ema": STATE})["a"], STATE["a"])


def test_the_tensors_under_another_key_can_be_had_too(tmp_path):
    """A key that is none of the usual ones, too; and no notice about what was chosen."""
    other = {name: tensor + 1 for name, tensor in STATE.items()}
    torch.save({"generator": STATE, "critic": other, "epoch": 3}, tmp_path / "gan.pt")
    read = import_weights(tmp_path / "gan.pt", tmp_path / "out.safetensors", "critic")
    assert torch.equal(read["a"], STATE["a"] + 1)
    for key in ("epoch", "none"):
        with pytest.raises(StorageError, match=f"under {key}; it has: generator, critic, epoch"):
            import_weights(tmp_path / "gan.pt", tmp_path / "other.safetensors", key)
    assert not (tmp_path / "other.safetensors").exists()


WRAPPERS = [
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "backbone.",
    "model.backbone.",
    "net.",
]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_names_of_wrappers_are_taken_off(imported, wrapper):
    with pytest.warns(vgx.Notice, match=f"the prefix {wrapper} of all names is taken off"):
        assert imported({f"{wrapper}{k}": v for k, v in STATE.items()}).keys() == STATE.keys()


def test_names_of_layers_are_no_wrappers(imported):
    """`features.` is all that there is of a VGG network without its head."""
    assert imported({f"features.{k}": v for k, v in STATE.items()}).keys() == {
        "features.a",
        "features.b",
    }


def test_the_program_says_what_it_takes(tmp_path, monkeypatch, capfd):
    from vgx.cli import run_program

    monkeypatch.chdir(tmp_path)
    torch.save({"generator": STATE, "discriminator": dict(STATE)}, tmp_path / "gan.pt")
    given = ["import-weights", "gan.pt"]
    assert run_program([*given, "d.safetensors", "--key", "discriminator"]) == 0
    assert capfd.readouterr().err == ""
    assert run_program([*given, "g.safetensors"]) == 0
    out, err = capfd.readouterr()
    assert "g.safetensors: 2 tensors, 8 numbers" in out
    assert "NOTICE: gan.pt: the tensors under generator are taken; others: discriminator" in err


def test_a_name_that_only_some_have_stays(imported):
    read = imported({"module.a": STATE["a"], "b": STATE["b"]})
    assert read.keys() == {"module.a", "b"}


def test_tied_and_transposed_weights_are_written_whole(imported):
    tied = torch.arange(6.0).view(2, 3)
    read = imported({"a": tied, "b": tied, "c": tied.T})
    assert torch.equal(read["b"], tied)
    assert torch.equal(read["c"], tied.T)


class Evil:
    """What a pickle calls when it is believed."""

    def __init__(self, called, *arguments):
        self.called, self.arguments = called, arguments

    def __reduce__(self):
        return self.called, self.arguments


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (torch.zeros(3), "holds a Tensor, not tensors by name"),
        ([torch.zeros(3)], "holds a list"),
        ({}, "it has: nothing"),
        ({"optimizer": {"lr": 1.0}}, "it has: optimizer"),
        ({"a": torch.zeros(3), "epoch": 3}, "it has: a, epoch"),
        ({"a": torch.zeros(1).expand(10**6, 10**6)}, "claim to be 4,000,000,000,000"),
        (torch.nn.Linear(2, 2), "holds more than weights"),
        ({"a": Evil(eval, "1 + 1")}, "holds more than weights"),
        ({"a": torch.zeros(3).to_sparse()}, "in.pt: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_anything_else_is_refused_and_writes_nothing(imported, tmp_path, thing, said):
    with pytest.raises(StorageError, match=r"in\.pt: ") as caught:
        imported(thing)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert [path.name for path in tmp_path.iterdir()] == ["in.pt"]


def test_the_switch_of_pytorch_that_allows_pickles_changes_nothing(imported, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "marker"
    with pytest.raises(StorageError, match="holds more than weights"):
        imported({"a": Evil(open, str(marker), "w")})
    assert not marker.exists()


@pytest.mark.bar("S3")
def test_an_archive_that_grows_is_refused_before_it_is_read(tmp_path):
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as old,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert (tmp_path / "bomb.pt").stat().st_size < 20_000
    with pytest.raises(StorageError, match="compressed"):
        import_weights(tmp_path / "bomb.pt", tmp_path / "out.safetensors")


@pytest.mark.parametrize("hidden", ["numel", "element_size", "detach", "cpu", "clone"])
def test_attributes_of_a_tensor_hide_nothing(imported, hidden):
    odd = torch.arange(3.0)
    odd.__dict__[hidden] = "hidden"
    assert torch.equal(imported({"a": odd})["a"], torch.arange(3.0))


@pytest.mark.parametrize("name", ["__metadata__", "\ud800", "a\udcffb"])
def test_a_name_that_could_not_be_read_again_is_refused(imported, tmp_path, name):
    with pytest.raises(StorageError, match=r"in\.pt|out\.safetensors"):
        imported({name: torch.zeros(2), "b": torch.zeros(2)})
    assert [path.name for path in tmp_path.iterdir()] == ["in.pt"]


@pytest.mark.parametrize("name", ["", " ", "\n", "é", "a.b/../c", "x" * 10_000, "module."])
def test_any_other_name_is_kept(imported, name):
    assert imported({name: torch.ones(2)}).keys() == {name}


def test_names_without_their_prefix_stay_different(imported):
    names = {
        "module.a": 0,
        "module.module.a": 1,
        "module._orig_mod.a": 2,
        "module.module.module.a": 3,
    }
    with pytest.warns(vgx.Notice, match="the prefix module. of all"):
        read = imported({name: torch.full((1,), value) for name, value in names.items()})
    assert {name: int(value) for name, value in read.items()} == {
        name.removeprefix("module."): value for name, value in names.items()
    }


def test_archives_of_other_versions_are_refused(tmp_path):
    torch.save(STATE, tmp_path / "plain.pt")
    data = bytearray((tmp_path / "plain.pt").read_bytes())
    for place in range(len(data) - 6):
        if data[place : place + 4] == b"PK\x01\x02":  # an entry of the directory
            data[place + 6] = 93
    (tmp_path / "in.pt").write_bytes(data)
    with pytest.raises(StorageError, match=r"in\.pt: .*version 9\.3"):
        import_weights(tmp_path / "in.pt", tmp_path / "out.safetensors")


def test_more_tensors_than_a_network_may_have_are_refused(imported, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "MAX_TENSORS", 300)
    one = torch.zeros(1)
    for many in ({str(n): torch.zeros(1) for n in range(401)}, {str(n): one for n in range(301)}):
        with pytest.raises(StorageError, match="tensors; at most 300 are read"):
            imported(many)
    assert len(imported({str(n): torch.zeros(1) for n in range(300)})) == 300


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"\x80\x02.", b"not a file of weights", b"\0" * 99]
)
def test_what_is_no_such_file_is_refused(tmp_path, content):
    (tmp_path / "in.pt").write_bytes(content)
    with pytest.raises(StorageError, match=r"in\.pt"):
        import_weights(tmp_path / "in.pt", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_nothing_is_written_over_and_names_are_plain(tmp_path):
    torch.save(STATE, tmp_path / "in.pt")
    (tmp_path / "out.safetensors").write_bytes(b"mine")
    with pytest.raises(StorageError, match="there already"):
        import_weights(tmp_path / "in.pt", tmp_path / "out.safetensors")
    assert (tmp_path / "out.safetensors").read_bytes() == b"mine"
    with pytest.raises(RecipeError, match=r"must end in \.safetensors"):
        import_weights(tmp_path / "in.pt", tmp_path / "out.pt")
    with pytest.raises(StorageError, match="No such file"):
        import_weights(tmp_path / "absent.pt", tmp_path / "new.safetensors")
    with pytest.raises(StorageError, match="no file"):
        import_weights(tmp_path, tmp_path / "new.safetensors")
