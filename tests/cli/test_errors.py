"""What a person reads when something is wrong, and the exit code that a script reads."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import jsonschema
import pytest
from pace import within

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = RECIPES / "tiny.yaml"

FOUR_FAULTS = """\
name: broken
image: {size: 16}
latent: 8
latent: 9
dataset: {type: drawn-faces, cuont: 64}
encoder: {type: convv, widths: [8, 16]}
decoder: {type: conv-transpose, widths: [16, 8]}
losses:
  - {type: l1, weight: heavy}
sampler: prior
train: {steps: 2, batch: 8}
"""


def test_four_faults_are_four_messages_with_their_places(vgx_here, tmp_path):
    (tmp_path / "broken.yaml").write_text(FOUR_FAULTS)
    code, out, err = vgx_here("check", "broken.yaml")
    assert (code, out) == (2, "")
    lines = err.strip().splitlines()
    assert len(lines) == 4
    assert "Traceback" not in err
    duplicate, field, part, number = lines
    assert "broken.yaml:4:1: " in duplicate
    assert "latent" in duplicate
    assert "broken.yaml:5:30: dataset.cuont: unknown field" in field
    assert "did you mean 'count'?" in field
    assert "broken.yaml:6:17: encoder: no installed encoder is called 'convv'" in part
    assert "did you mean 'conv'?" in part
    assert "broken.yaml:9:24: losses.0.weight: " in number
    assert "'heavy'" in number


def test_a_misspelt_type_is_recognised(vgx_here, tmp_path):
    """It is no field of the part's model, and the nearest field of the recipe is an optimizer's."""
    (tmp_path / "broken.yaml").write_text("extends: tiny\nencoder: {typ: conv, widths: [8]}\n")
    code, _, err = vgx_here("check", "broken.yaml")
    assert code == 2
    assert (
        "broken.yaml:2:11: encoder.typ: unknown field; allowed: widths; did you mean 'type'?" in err
    )
    code, _, err = vgx_here("check", "tiny", "--set", "losses.0.typ=hinge")
    assert "did you mean 'type'?" in err


def test_the_program_without_a_command_shows_its_help(vgx_here):
    """Whole, and not as an error message of a few lines."""
    code, out, err = vgx_here()
    assert (code, out) == (2, "")
    assert err.lstrip().startswith("Usage: vgx [OPTIONS] COMMAND")
    assert "ablate" in err


def test_check_shows_the_networks_and_writes_nothing(vgx_here, tmp_path):
    code, out, err = vgx_here("check", TINY)
    assert code == 0, err
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    # conv: 3*8*9 + 2*8 + 8*16*9 + 2*16 and two linear layers of 16*4*4 -> 8
    assert f"{216 + 16 + 1152 + 32 + 2 * (256 * 8 + 8):,}" in rows["encoder"]
    assert "3x16x16 -> 8" in rows["encoder"]
    assert "8 -> 3x16x16" in rows["decoder"]
    assert "The discriminator scores a grid of" in out
    assert "beta" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_anime_recipe_judges_three_by_three_patches(vgx_here):
    smaller = ("--set", "dataset={type: drawn-faces, count: 64}", "--set", "train.batch=2")
    code, out, err = vgx_here("check", RECIPES / "anime_vaegan.yaml", *smaller)
    assert code == 0, err
    assert "The discriminator scores a grid of 3x3 patches." in out
    assert "3x96x96 -> 1x3x3" in out
    assert "3x96x96 -> 256" in out


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("run", "missing.yaml"), 2, "missing.yaml"),
        (("run",), 2, "RECIPE"),
        (("frobnicate",), 2, "frobnicate"),
        (("run", TINY, "--set", "train.btach=3"), 2, "did you mean 'batch'?"),
        (("run", TINY, "--set", "train.batch"), 2, "KEY=VALUE"),
        (("run", TINY, "--set", "losses.9.weight=1"), 2, "items 0 to 3"),
        (("run", TINY, "--device", "abacus"), 2, "device 'abacus'"),
        (("check", TINY, "--plugin", "broken.py"), 3, "broken.py: ZeroDivisionError"),
        (("check", TINY, "--plugin", "absent.py"), 3, "absent.py"),
        (("run", TINY, "--set", "dataset={type: image-folder, path: empty}"), 4, "empty"),
        (("resume", "17"), 5, "no run '17'"),
        (("run", TINY, "train.steps=3"), 2, "A value is changed with: --set train.steps=3"),
        (("check", TINY, "a=1", "b=2"), 2, "changed with: --set a=1 --set b=2"),
        (("run", "train.steps=3"), 2, "a value is changed with: --set train.steps=3"),
        (("check", TINY, "--set", "train.lr=1"), 2, "did you mean 'train.optimizers.generator.lr'"),
        (("check", TINY, "--set", "dataset.path=x"), 2, "huggingface or image-folder have it"),
        (("parts", "Encoder"), 2, "did you mean 'encoder'?"),
        (("parts", "sampler/WeightedMix"), 2, "did you mean 'weighted-mix'?"),
        (("parts", "encodr"), 2, "did you mean 'encoder'?"),
        (("parts", "encoder/conf"), 2, "did you mean 'conv'?"),
    ],
    ids=lambda value: " ".join(map(str, value))[-40:] if isinstance(value, tuple) else None,
)
def test_an_error_is_one_message_and_its_own_code(vgx_here, tmp_path, arguments, code, expected):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "empty").mkdir()
    got, _, err = vgx_here(*arguments)
    assert got == code, err
    assert expected in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 10


@pytest.mark.parametrize(
    ("variable", "arguments"),
    [("VGX_RUNS", ("report", "1")), ("VGX_CACHE", ("run", TINY)), ("VGX_CACHE", ("cache",))],
)
@pytest.mark.parametrize("folder", ["x" * 300, "/" + "y/" * 3000], ids=["name", "path"])
def test_a_folder_with_too_long_a_name_is_one_message(
    vgx_here, monkeypatch, variable, arguments, folder
):
    monkeypatch.setenv(variable, folder)
    code, _, err = vgx_here(*arguments)
    assert code == 5
    assert ": File name too long: give a shorter name" in err
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else for a while")
@pytest.mark.parametrize("arguments", [("eval", "theirs/run"), ("sample", "theirs/run")])
def test_what_a_user_may_not_read_is_one_message(vgx_here, tmp_path, arguments):
    (tmp_path / "theirs" / "run").mkdir(parents=True)
    (tmp_path / "theirs").chmod(0o700)
    vgx_here(*arguments)  # what is imported once
    os.seteuid(65534)
    try:
        code, _, err = vgx_here(*arguments)
    finally:
        os.seteuid(0)
    assert code == 5
    assert ": Permission denied: you may not " in err
    assert len(err.splitlines()) == 1


@pytest.mark.bar("C3")
@pytest.mark.parametrize(
    ("change", "code", "expected"),
    [
        ("train.batch=65", 4, "64 images don't fill one minibatch of 65"),
        ("train.batch=1000000000", 2, "train.batch"),
        ("train.accumulate=3", 2, "3 does not divide batch: 8"),
        ("train.discriminator_steps=0", 2, "train.discriminator_steps"),
        ("train.ema=1.5", 2, "train.ema"),
        ("train.steps=0", 2, "train.steps"),
        ("train.optimizers.generator.lr=-1", 2, "lr"),
        ("encoder=null", 2, "the recipe needs an encoder"),
        ("discriminator=null", 2, "the recipe needs a discriminator"),
        ("image.size=15", 2, "15"),
        ("image.channels=0", 2, "image.channels"),
        ("encoder.widths=[8,8,8,8,8,8,8,8]", 2, "can't be halved"),
        ("encoder.widths=[100000000]", 2, "encoder: training it takes more than"),
        ("decoder.widths=[1000000000000000000]", 2, "decoder: training it takes more than"),
        ("latent=9999999", 2, "training it takes more than"),
        ("sampler={type: neighbours, of: 100000000}", 2, "of: 100000000"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)
def test_what_cannot_be_is_refused_within_two_seconds_and_leaves_no_run(
    vgx_here, tmp_path, change, code, expected
):
    vgx_here("parts", "loss")  # what is imported once
    refused_before_there_is_a_run(vgx_here, tmp_path, change, code, expected)


@pytest.mark.bar("C3", control="the run directory made before the networks are tried")
def test_a_run_that_is_made_too_early_would_be_seen(
    vgx_here, tmp_path, monkeypatch, record_property
):
    from vgx.runs import directory
    from vgx.training import session

    def early(recipe, *given, open_images=session.open_images):
        directory.create(recipe.name, None)
        return open_images(recipe, *given)

    monkeypatch.setattr(session, "open_images", early)
    change = ("encoder.widths=[100000000]", 2, "encoder: training it takes more than")
    with pytest.raises(AssertionError, match="exists"):
        refused_before_there_is_a_run(vgx_here, tmp_path, *change)
    (left,) = (tmp_path / "runs").iterdir()
    record_property("seen", f"{left.name} is left")


def refused_before_there_is_a_run(vgx_here, folder, change, code, expected):
    since = time.process_time()
    got, _, err = vgx_here("run", TINY, "--set", change)
    assert within(time.process_time() - since, 2)
    assert (got, expected in " ".join(err.split())) == (code, True), err
    assert not (folder / "runs").exists()


def test_a_setting_of_a_sampler_that_is_no_yaml_says_why(tiny_run, vgx_here):
    code, _, err = vgx_here("sample", tiny_run[2], "--sampler", "weighted-mix", "--set", "of=[1")
    assert code == 2
    assert "--set of: no YAML: " in err
    assert "KEY=VALUE" not in err


def test_a_sampler_and_its_fields_are_named_as_they_were_typed(tiny_run, vgx_here):
    code, _, err = vgx_here("sample", tiny_run[2], "--sampler", "priro")
    assert code == 2
    assert err.startswith("vgx: --sampler: sampler: no installed sampler is called 'priro'")
    for key in ("of", "sampler.of"):  # the second is that of `vgx run`
        code, _, err = vgx_here(
            "sample", tiny_run[2], "--sampler", "weighted-mix", "--set", f"{key}=x"
        )
        assert code == 2
        assert err.startswith(f"vgx: --set {key}: sampler.of: Input should be a valid integer")


def test_a_message_of_a_library_is_cut(capsys):
    from vgx.cli import print_error

    print_error("weights:\n" + "".join(f"\tsize mismatch of {i}\n" for i in range(48)) + "x" * 9000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["vgx: weights:", "  size mismatch of 0"]
    assert lines[9:] == ["... and 41 more lines"]  # 50 in all, of which 9 are shown
    print_error("x" * 9000)
    assert capsys.readouterr().err == f"vgx: {'x' * 2000}...\n"


def test_debug_shows_the_traceback(vgx_here):
    code, _, err = vgx_here("check", TINY, "--set", "train.batch=no", "--debug")
    assert code == 2
    assert "Traceback" in err


@pytest.mark.slow
def test_a_hub_that_may_not_be_asked_is_exit_8(vgx_program):
    done = vgx_program(
        "check", RECIPES / "anime_vaegan.yaml", "--offline",
        "--set", "dataset.fallback=null", code=8,
    )  # fmt: skip
    assert "DrishtiSharma/Anime-Face-Dataset" in done.stderr
    assert "Traceback" not in done.stderr
    assert "drawn-faces" in done.stderr  # what would work


def test_corrupt_checkpoints_are_exit_5(tiny_run, vgx_here, tmp_path):
    import shutil

    _, _, run = tiny_run
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for model in copy.glob("checkpoints/*/model.safetensors"):
        model.write_bytes(model.read_bytes()[:-1])
    code, _, err = vgx_here("sample", copy)
    assert code == 5
    assert "model.safetensors" in err


def test_a_run_that_is_being_trained_is_exit_7(tiny_run, vgx_here):
    import vgx

    _, _, run = tiny_run
    with vgx.Run(run).held():
        code, _, err = vgx_here("resume", run)
    assert code == 7
    assert "is training here" in err


def test_the_lock_of_another_machine_is_forgotten_on_request(tiny_run, vgx_here, tmp_path):
    import shutil

    copy = shutil.copytree(tiny_run[2], tmp_path / "copy")
    (copy / "lock").write_text("1 (on elsewhere since 2026)")
    code, _, err = vgx_here("resume", copy)
    assert code == 7
    assert f"if it has ended: rm {copy}/lock" in err
    with pytest.MonkeyPatch.context() as patch:  # of several processes only the first removes it
        patch.setattr("vgx.distributed.group.is_first", lambda: False)
        patch.setattr("vgx.cli.train._go_on", lambda *_: None)
        assert vgx_here("resume", copy, "--force-unlock")[0] == 0
    assert (copy / "lock").exists()
    code, _, err = vgx_here("resume", copy, "--force-unlock")
    assert code == 0, err


def test_plugins_and_parts_say_what_there_is(vgx_here):
    code, out, _ = vgx_here("plugins")
    assert code == 0
    assert "builtin  (vgx " in out
    assert "loss: alignment, bce, bce-adversarial, bit-entropy, charbonnier" in out
    code, out, _ = vgx_here("parts", "sampler")
    assert [line.split()[1] for line in out.splitlines()[1:]] == [
        "aggregate-gaussian", "gaussian-mixture", "interpolate", "learned-prior", "neighbours",
        "posterior", "prior", "reconstruct", "style-truncation", "traversal", "truncation",
        "vamp-prior", "weighted-mix",
    ]  # fmt: skip
    code, out, _ = vgx_here("parts", "sampler/weighted-mix")
    assert "concentration" in out
    assert "anchors" in out


def test_the_schema_takes_the_recipes_and_refuses_a_misspelt_field(vgx_here):
    from vgx import dump_recipe, load_recipe
    from vgx.recipe.yaml import read

    code, out, _ = vgx_here("schema")
    assert code == 0
    schema = json.loads(out)
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    for path in sorted(RECIPES.glob("*.yaml")):
        written = read(path.read_text(), path.name)[0].plain()
        whole = read(dump_recipe(load_recipe(path)), path.name)[0].plain()
        assert list(check.iter_errors(whole)) == []
        assert list(check.iter_errors(written)) == []
        assert not check.is_valid({**whole, "trian": whole["train"]})
        assert not check.is_valid({**whole, "losses": [{"type": "l1", "wieght": 1}]})


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "resume",
        "sample",
        "check",
        "plugins",
        "parts",
        "schema",
        "new-plugin",
        "import-weights",
    ],
)
def test_every_command_explains_itself(vgx_here, command):
    code, out, _ = vgx_here(command, "--help")
    assert code == 0
    assert "--debug" in out
    assert "--offline" in out


def test_the_help_of_the_program_lists_every_command(vgx_program):
    out = vgx_program("--help").stdout
    for command in ("run", "resume", "sample", "check", "plugins", "parts", "schema"):
        assert f" {command} " in out


def test_what_the_disk_refuses_is_no_bug_of_vgx(vgx_here):
    code, _, err = vgx_here("compare", "x" * 300, "y", "--out", "z" * 300 + ".html")
    assert code == 5
    assert "File name too long: give a shorter name" in err
    assert "Traceback" not in err
