"""The first look: what is known before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import vgx
from vgx import check
from vgx.engine import Engine
from vgx.errors import PluginError, RecipeError

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
ODD = '''
import torch, vgx


class Wide(vgx.Decoder, type="wide"):
    """A decoder whose pictures are too wide."""

    def build(self, latent, image):
        wide = torch.nn.Unflatten(1, (3, 16, 17))
        return torch.nn.Sequential(torch.nn.Linear(8, 3 * 16 * 17), wide)


class Vector(vgx.Loss, type="vector"):
    """A loss that forgets its mean."""

    def generator(self, step):
        return (step.recon - step.real).flatten(1).mean(1)


class Bare(vgx.Discriminator, type="bare"):
    """A discriminator that gives a bare tensor."""

    def build(self, image):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 1))


class Failing(vgx.Loss, type="failing"):
    """A loss with a bug."""

    def generator(self, step):
        return step.recon.no_such_method()


@vgx.hookimpl
def register_components(register):
    for part in (Wide, Vector, Bare, Failing):
        register(part)
'''


@pytest.fixture
def examine(tmp_path):
    (tmp_path / "odd.py").write_text(ODD)
    registry = vgx.discover([tmp_path / "odd.py"])

    def examined(*overrides):
        recipe = vgx.load_recipe(TINY, overrides, registry)
        engine = Engine(recipe, 4)
        real = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        return check.examine(engine, registry, real), engine

    return examined


def test_the_table_has_shapes_and_counts(examine):
    findings, engine = examine()
    rows = {row.network: row for row in findings.rows}
    assert rows["encoder"].shapes == "3x16x16 -> 8"
    assert rows["decoder"].shapes == "8 -> 3x16x16"
    for name, row in rows.items():
        assert row.parameters == sum(p.numel() for p in engine.networks[name].parameters())
    assert set(findings.losses) == {
        "bce-adversarial.generator", "bce-adversarial.discriminator", "l1", "bce", "kl",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["discriminator=null"],
            "bce-adversarial asks for step.fake_score: the recipe needs a dis",
        ),
        (["encoder=null"], "l1 asks for step.recon: the recipe needs an encoder"),
        (["encoder=null", "losses=[bce-adversarial, kl]"], "kl asks for step.posterior"),
    ],
)
def test_a_loss_that_asks_for_what_is_absent_is_named(examine, overrides, said):
    with pytest.raises(RecipeError) as caught:
        examine(*overrides)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("decoder=wide", "decoder 'wide'.*logits.*17"),
        ("losses=[vector]", "loss 'vector'.*no finite scalar"),
        ("discriminator=bare", "discriminator 'bare'.*not a vgx.Score"),
        ("losses=[failing]", "loss 'failing'.*no_such_method"),
    ],
)
def test_a_part_that_breaks_its_contract_is_named_with_its_plugin(examine, override, said):
    with pytest.raises(PluginError, match=said) as caught:
        examine(override)
    assert "odd.py" in str(caught.value)


def test_looking_changes_nothing(examine):
    recipe = vgx.load_recipe(TINY)
    engine = Engine(recipe, 4)
    before = {
        name: {key: tensor.clone() for key, tensor in network.state_dict().items()}
        for name, network in engine.networks.items()
    }
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    check.examine(engine, vgx.discover(), torch.rand(4, 3, 16, 16, generator=torch.Generator()))
    assert torch.equal(torch.rand(3), expected)
    for name, network in engine.networks.items():
        assert network.training
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[name][key]), f"{name}.{key}"
    assert engine.coded == 0
