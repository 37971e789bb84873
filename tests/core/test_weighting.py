"""How much a term counts, when, and in which networks; how rates and averages rise."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest
import torch
from steps import batches, forward
from torch import nn
from torch.nn import functional as F

import vgx
from vgx.engine.engine import Engine
from vgx.engine.players import Player
from vgx.errors import RecipeError
from vgx.recipe.lengths import with_length

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
RECON = {"losses": [{"type": "l1"}], "discriminator": None}


def engine_of(changes=None, steps=20, dtype=torch.float64):
    return Engine(vgx.load_recipe(TINY, {"augment": [], **(changes or {})}), steps, dtype=dtype)


def pictures(number=0, n=8, dtype=torch.float64):
    chance = torch.Generator().manual_seed(number)
    return torch.rand(n, 3, 16, 16, generator=chance, dtype=dtype)


def applied(engine, number, **batch):
    """The gradients that a step gives each player, before any optimizer sees them."""
    gradients = {}

    def move(player, number, given, *_):
        gradients[player.name] = {name: given.get(name) for name in player.trained}

    with mock.patch.object(Player, "step_optimizer", move):
        values = engine.step(number, batches(pictures(number), **batch))
    return gradients, values


# --- routing -----------------------------------------------------------------------------------


def test_a_term_that_reaches_the_decoder_alone_leaves_the_encoder_to_the_others():
    """Larsen et al. 2016, algorithm 1: the adversarial term is not the encoder's."""
    losses = [{"type": "bce-adversarial", "reaches": ["decoder"]}, {"type": "l1", "weight": 3}]
    routed, _ = applied(engine_of({"losses": losses}), 0)
    engine = engine_of()
    step = forward(engine, 0, pictures(), (0, 0, 0))
    l1 = 3 * (step.recon - step.real).abs().mean()
    both = l1 + F.softplus(-step.fake_score.logits).mean()
    for name, total in (("encoder", l1), ("decoder", both)):
        parameters = dict(engine.networks[name].named_parameters())
        plain = torch.autograd.grad(
            total, list(parameters.values()), retain_graph=True, allow_unused=True
        )
        for key, gradient in zip(parameters, plain, strict=True):
            ours = routed["generator"][f"{name}.{key}"]
            if gradient is None:  # the log-variance's bias reaches the pictures too
                assert ours is None
            else:
                assert torch.allclose(ours, gradient, rtol=0, atol=1e-12), (name, key)


def test_routing_changes_nothing_for_the_discriminator():
    losses = ["bce-adversarial", {"type": "l1"}]
    plain, _ = applied(engine_of({"losses": losses}), 0)
    routed, _ = applied(
        engine_of({"losses": [{"type": "bce-adversarial", "reaches": ["decoder"]}, losses[1]]}), 0
    )
    for name, gradient in plain["discriminator"].items():
        assert torch.equal(gradient, routed["discriminator"][name])


def test_reaching_both_is_reaching_all():
    one, _ = applied(engine_of({"losses": [{"type": "l1", "reaches": ["encoder", "decoder"]}]}), 0)
    two, _ = applied(engine_of({"losses": [{"type": "l1"}]}), 0)
    for name, gradient in two["generator"].items():
        assert gradient is one["generator"][name] or torch.equal(gradient, one["generator"][name])


# --- lazily ------------------------------------------------------------------------------------


def test_a_lazy_term_counts_as_much_in_fewer_steps():
    """Asked at 1, 4, 7, ...: three times as much then, nothing in between."""
    lazy = engine_of({**RECON, "losses": [{"type": "l1", "every": 3, "start": 1}, "bce"]})
    weights = [lazy.players["generator"].terms[0].weight(number) for number in range(8)]
    assert weights == [0, 3, 0, 0, 3, 0, 0, 3]
    assert [set(lazy.step(n, batches(pictures(n)))) for n in range(3)] == [
        {"bce"}, {"l1", "bce"}, {"bce"}
    ]  # fmt: skip
    values = lazy.step(4, batches(pictures(4)))
    step = forward(lazy, 4, pictures(4), (4, 0, 0))
    assert 0 < values["l1"].item() < 1  # told unweighted
    assert step.recon is not None


def test_a_lazy_discriminators_half_counts_as_often():
    engine = engine_of({"losses": [{"type": "hinge", "every": 4, "weight": 10}, "l1"]})
    generator, critic = (engine.players[p].terms[0] for p in ("generator", "discriminator"))
    assert [generator.weight(n) for n in (0, 1, 4)] == [40, 0, 40]
    assert [critic.weight(n) for n in (0, 1, 4)] == [4, 0, 4]  # its weight is 1 as ever


# --- the hand-over -----------------------------------------------------------------------------


def test_a_schedule_may_begin_later():
    schedule = vgx.Schedule.model_validate({"from": 0.0, "to": 2.0, "steps": 10, "after": 100})
    values = {0: 0.0, 100: 0.0, 105: 1.0, 110: 2.0, 1000: 2.0}
    assert {number: schedule.at(number) for number in values} == values
    cycles = schedule.model_copy(update={"shape": "cyclical"})
    assert [cycles.at(n) for n in (99, 102, 105, 109, 110, 112)] == [0, 0.8, 2, 2, 0, 0.8]


class Softened(vgx.Discriminator, type="softened"):
    """A discriminator with a number that changes."""

    share: vgx.Rate = 1.0
    """A number or a schedule."""

    def build(self, image, latent):
        raise NotImplementedError


def test_a_schedule_without_steps_ends_with_the_training_wherever_it_is():
    rise = {"from": 0.0, "to": 1.0}
    losses = [{"type": "hinge", "discriminator": "a", "weight": {**rise, "after": 3}}, "l1"]
    judges = {"a": Softened(share=rise)}
    changes = {"losses": losses, "discriminators": judges, "train.steps": 9}
    recipe = vgx.load_recipe(TINY, {"discriminator": None, **changes})
    settled = with_length(recipe, None)
    assert settled.discriminators["a"].share.steps == 9
    assert settled.losses[0].weight.steps == 6
    assert settled.losses[1] is recipe.losses[1]
    assert with_length(settled, 20) is settled
    longer = with_length(recipe, 20, settled)  # a run that goes on keeps its lengths
    assert longer == settled
    losses[0]["weight"]["after"] = 10  # another schedule, which ends with the longer training
    other = vgx.load_recipe(recipe, {"losses": losses, "train.steps": 20})
    longer = with_length(other, 20, settled)
    assert longer.losses[0].weight.steps == 10
    assert longer.discriminators["a"].share.steps == 9


def test_the_discriminator_learns_before_its_term_counts():
    losses = [
        {"type": "hinge", "weight": {"from": 0.0, "to": 1.0, "steps": 2, "after": 1}},
        {"type": "l1"},
    ]
    engine = engine_of({"losses": losses})
    names = [set(engine.step(number, batches(pictures(number)))) for number in range(3)]
    assert names[0] == names[1] == {"hinge.discriminator", "l1"}
    assert names[2] == {"hinge.generator", "hinge.discriminator", "l1"}
    before = [p.clone() for p in engine.players["discriminator"].parameters]
    fresh = engine_of({"losses": losses})
    fresh.step(0, batches(pictures(0)))
    assert not all(
        torch.equal(a, b)
        for a, b in zip(fresh.players["discriminator"].parameters, before, strict=True)
    )


def adaptive(**fields):
    weight = {"against": ["l1", "bce"], **fields}
    losses = [
        {"type": "hinge", "weight": weight},
        {"type": "l1", "weight": 5},
        {"type": "bce"},
        {"type": "kl", "weight": 100},
    ]
    return {"losses": losses}


@pytest.mark.parametrize(("fields", "bound"), [({"factor": 0.8}, None), ({"most": 0.01}, 0.01)])
def test_an_adaptive_weight_is_vqgans(fields, bound):
    """Esser et al. 2021, equation 7: the ratio of gradients at the decoder's last layer."""
    ours, _ = applied(engine_of(adaptive(**fields)), 0)
    engine = engine_of()
    step = forward(engine, 0, pictures(), (0, 0, 0))
    last = engine.networks["decoder"][-1].weight
    recon = 5 * (step.recon - step.real).abs().mean() + F.binary_cross_entropy_with_logits(
        step.recon_logits, step.real
    )
    hinge = -step.fake_score.logits.mean()
    a, b = (torch.autograd.grad(t, last, retain_graph=True)[0].norm() for t in (recon, hinge))
    ratio = min((a / (b + 1e-4)).item(), bound or 1e4)
    mu, logvar = step.posterior.mu, step.posterior.logvar
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean() / 768
    total = recon + 100 * kl + fields.get("factor", 1.0) * ratio * hinge
    parameters = [
        (f"{name}.{key}", p)
        for name in ("encoder", "decoder")
        for key, p in engine.networks[name].named_parameters()
    ]
    plain = torch.autograd.grad(total, [p for _, p in parameters])
    for (name, _), gradient in zip(parameters, plain, strict=True):
        assert torch.allclose(ours["generator"][name], gradient, rtol=0, atol=1e-12), name


def test_an_adaptive_weight_waits_while_the_discriminator_learns():
    engine = engine_of(adaptive(after=2))
    names = [set(engine.step(number, batches(pictures(number)))) for number in range(3)]
    assert "hinge.generator" not in names[0] | names[1]
    assert "hinge.discriminator" in names[0]
    assert "hinge.generator" in names[2]


@pytest.mark.parametrize("against", [["l2"], ["hinge"], []])
def test_an_adaptive_weight_is_against_other_losses_of_the_recipe(against):
    losses = [{"type": "hinge", "weight": {"against": against}}, {"type": "l1"}]
    with pytest.raises(RecipeError, match="against"):
        vgx.load_recipe(TINY, {"losses": losses})


def test_shares_are_those_of_the_gradient_at_the_decoders_output():
    """Defossez et al. 2022: 6 to 3 to 1, and the first keeps its own gradient."""
    losses = [
        {"type": "l1", "weight": {"share": 0.6}},
        {"type": "bce", "weight": {"share": 0.3}},
        {"type": "hinge", "weight": {"share": 0.1, "after": 0}},
        {"type": "kl", "weight": 100},
    ]
    ours, values = applied(engine_of({"losses": losses}), 0)
    engine = engine_of()
    step = forward(engine, 0, pictures(), (0, 0, 0))
    l1 = (step.recon - step.real).abs().mean()
    bce = F.binary_cross_entropy_with_logits(step.recon_logits, step.real)
    hinge = -step.fake_score.logits.mean()
    slopes = [
        torch.autograd.grad(t, step.recon_logits, retain_graph=True)[0] for t in (l1, bce, hinge)
    ]
    own, b, h = (slope.norm().item() for slope in slopes)
    mu, logvar = step.posterior.mu, step.posterior.logvar
    kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean() / 768
    total = l1 + 0.3 / 0.6 * own / b * bce + 0.1 / 0.6 * own / h * hinge + 100 * kl
    parameters = [
        (f"{name}.{key}", p)
        for name in ("encoder", "decoder")
        for key, p in engine.networks[name].named_parameters()
    ]
    plain = torch.autograd.grad(total, [p for _, p in parameters])
    for (name, _), gradient in zip(parameters, plain, strict=True):
        assert torch.allclose(ours["generator"][name], gradient, rtol=0, atol=1e-10), name
    assert values["bce"].item() == pytest.approx(bce.item())  # the log has the unweighted value


def test_a_share_waits_and_the_next_term_then_keeps_its_gradient():
    losses = [
        {"type": "l1", "weight": {"share": 2.0, "after": 1}},
        {"type": "l2", "weight": {"share": 5.0}},
    ]
    changes = {"losses": losses, "discriminator": None}
    alone, _ = applied(engine_of(changes), 0)
    plain, _ = applied(engine_of({**changes, "losses": ["l2"]}), 0)
    for name, gradient in plain["generator"].items():
        assert torch.allclose(alone["generator"][name], gradient, rtol=0, atol=1e-12)


def test_a_share_of_a_term_without_a_gradient_at_the_reconstruction_is_refused():
    from vgx.check.examine import examine
    from vgx.data.batches import Batch

    losses = ["l1", {"type": "kl", "weight": {"share": 0.5}}]
    engine = engine_of({"losses": losses, "discriminator": None}, dtype=torch.float32)
    with pytest.raises(RecipeError, match=r"losses.1: kl: weight: share: it has no gradient"):
        examine(engine, vgx.discover(), Batch(pictures(dtype=torch.float32)))


# --- rates and averages ------------------------------------------------------------------------


def test_learning_rates_follow_their_schedule_after_a_warmup():
    rate = {"from": 0.4, "to": 0.0, "steps": 8}
    engine = engine_of({**RECON, "train.optimizers": {"generator": {"lr": rate, "warmup": 4}}})
    seen = []
    for number in range(10):
        engine.step(number, batches(pictures(number)))
        seen.append(engine.players["generator"].optimizer.param_groups[0]["lr"])
    falling = [0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05, 0.0, 0.0]
    rising = [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1]
    assert seen == pytest.approx([f * r for f, r in zip(falling, rising, strict=True)])


def test_a_rate_of_zero_moves_nothing():
    rate = {"from": 0.0, "to": 1.0, "steps": 8, "after": 1}
    sgd = {"type": "sgd", "lr": rate}
    engine = engine_of({**RECON, "train.optimizers": {"generator": sgd}})
    before = [p.clone() for p in engine.players["generator"].parameters]
    engine.step(0, batches(pictures(0)))
    assert all(map(torch.equal, before, engine.players["generator"].parameters))


def test_an_average_that_warms_up_forgets_the_first_weights():
    """After n updates its decay is at most (1 + n) / (10 + n): 2/11, 3/12, 4/13, ..."""
    engine = engine_of({**RECON, "train.ema": 0.3, "train.ema_warmup": True})
    name, history = "0.weight", []
    for number in range(5):
        engine.step(number, batches(pictures(number)))
        history.append(engine.networks["decoder"].state_dict()[name].clone())
    expected = history[0]
    for n, later in enumerate(history[1:], 1):
        decay = min(0.3, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * later
    assert torch.allclose(
        engine.network_for_sampling("decoder").state_dict()[name], expected, atol=1e-12
    )
    assert (1 + 1) / (10 + 1) < 0.3 < (1 + 4) / (10 + 4)  # both sides of the minimum were taken


# --- what the discriminator is shown -----------------------------------------------------------


def test_the_discriminator_sees_real_and_fake_changed_and_the_gradient_passes():
    """DiffAugment (Zhao et al. 2020, figure 4): T on real and fake, in both players' updates."""
    engine = engine_of({"diff_augment": [{"type": "horizontal-flip", "p": 1.0}]})
    shown = []
    engine.networks["discriminator"].register_forward_pre_hook(
        lambda module, inputs: shown.append(inputs[0])
    )
    step = forward(engine, 0, pictures())
    assert torch.equal(step.real, pictures())  # reconstructions are held against the plain ones
    assert torch.equal(shown[0], step.real.flip(-1))
    assert torch.equal(shown[1], step.recon.flip(-1))
    assert shown[1].requires_grad
    step.discriminator(step.real)
    assert torch.equal(shown[2], step.real.flip(-1))


def test_the_changes_are_keyed():
    engine = engine_of({"diff_augment": [{"type": "horizontal-flip", "p": 0.5}]})
    engine.networks["discriminator"] = Columns()
    one, two = (forward(engine, 0, pictures(n=32), (7,)) for _ in range(2))
    other = forward(engine, 0, pictures(n=32), (8,))
    assert torch.equal(one.real_score.logits, two.real_score.logits)
    assert not torch.equal(one.real_score.logits, other.real_score.logits)
    same = forward(engine, 0, pictures(n=32), (7,))
    turned = [score.logits[:, 0].sign() for score in (one.real_score, same.fake_score)]
    assert 0 < (turned[0] > 0).sum() < 32


class Columns(nn.Module):
    """Scores the left column minus the right one."""

    def forward(self, images):
        return vgx.Score((images[..., 0] - images[..., -1]).mean((1, 2)).view(-1, 1))


def test_a_losss_draws_are_keyed_by_its_word_and_the_step():
    engine = engine_of()
    step, again, other = (forward(engine, 0, pictures(), (n, 0, 0)) for n in (3, 3, 4))

    def draws(step, word):
        return torch.rand(4, generator=step.rng(word))

    assert torch.equal(draws(step, "a"), draws(step, "a"))
    assert torch.equal(draws(step, "a"), draws(again, "a"))
    assert not torch.equal(draws(step, "a"), draws(step, "b"))
    assert not torch.equal(draws(step, "a"), draws(other, "a"))
