"""Discriminators of latents and of pairs, several at once, and critics inside of losses.

The gradient of each network is compared with that of a loop written here: its losses, detached
inputs and random numbers by their keys; of vgx it takes the networks alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from steps import batches, forward
from torch import nn

import vgx
from vgx import rng
from vgx.check.audit import parts_of
from vgx.check.examine import examine
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.engine.losses import leaves
from vgx.engine.players import Player
from vgx.errors import RecipeError
from vgx.parts.base import BrokenError

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
WIDE = torch.float64
SOFT = nn.functional.softplus
LATENT = {"type": "latent-mlp", "widths": [8, 6]}
PAIR = {"type": "pair-conv", "widths": [4, 6], "joint": 8}
IMAGE = {"type": "patchgan", "widths": [4, 6], "norm": "none"}
CRITIC = {"type": "density-ratio-tc", "weight": 3, "widths": [8, 6], "unit": "sample"}


class Leaky(vgx.Loss, type="test-leaky"):
    """A critic of latents whose own term leads into the encoder."""

    critic: ClassVar[bool] = True

    detached: bool = False

    def build(self, image, latent):
        return LeakyTerm(latent.size, self.detached)


class LeakyTerm(nn.Module):
    def __init__(self, size, detached):
        super().__init__()
        self.critic = nn.Linear(size, 1)
        self.detached = detached

    def generator(self, step):
        return self.critic(step.z).square().mean()

    def discriminator(self, step):
        return self.critic(step.z.detach() if self.detached else step.z).mean().square()


class Untrained(vgx.Loss, type="test-untrained"):
    """A critic that no term trains."""

    critic: ClassVar[bool] = True

    def build(self, image, latent):
        return UntrainedTerm(latent.size)


class UntrainedTerm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.critic = nn.Linear(size, 1)

    def generator(self, step):
        return self.critic(step.z).square().mean()


class Unsaid(vgx.Loss, type="test-unsaid"):
    """A critic that the part does not declare."""

    def build(self, image, latent):
        return LeakyTerm(latent.size, True)


def recipe(losses, **changes):
    whole = {"augment": [], "losses": losses, "discriminator": None, "train.ema": None, **changes}
    return vgx.load_recipe(TINY, whole)


def images(number, n=8):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(number), dtype=WIDE)


def drawn(stream, shape=(8, 8)):
    return torch.randn(shape, generator=rng.generator(0, stream, 0, 0, 0), dtype=WIDE)


def passed(networks, real):
    """z, the reconstruction, the draw from N(0, I) and what it is decoded to."""
    posterior = networks["encoder"](real)
    z = posterior.mu + torch.exp(posterior.logvar / 2) * drawn("posterior")
    p = drawn("prior")
    decoder = networks["decoder"]
    return posterior, z, decoder(z).sigmoid(), p, decoder(p).sigmoid()


def aae(networks, real):
    _, z, recon, p, _ = passed(networks, real)
    judge = networks["discriminator"]
    error = 10 * (recon - real).square().mean()
    fooled = 0.1 * SOFT(-judge(z).logits).mean()
    own = SOFT(-judge(p).logits).mean() + SOFT(judge(z.detach()).logits).mean()
    return {"encoder": error + fooled, "decoder": error, "discriminator": own}


def bigan(networks, real):
    _, z, _, p, decoded = passed(networks, real)
    judge = networks["discriminator"]
    value = SOFT(-judge(decoded, p).logits).mean() + SOFT(judge(real, z).logits).mean()
    own = SOFT(-judge(real, z.detach()).logits).mean()
    own = own + SOFT(judge(decoded.detach(), p).logits).mean()
    return {"encoder": value, "decoder": value, "discriminator": own}


def alpha_gan(networks, real):
    _, z, recon, p, decoded = passed(networks, real)
    of_images, of_latents = networks["discriminator image"], networks["discriminator latent"]
    fake = torch.cat([recon, decoded])
    error = 40 * (recon - real).abs().mean()
    own = SOFT(-of_images(real).logits).mean() + SOFT(of_images(fake.detach()).logits).mean()
    # 1/2 |grad D|^2 of the latents that should be called real.
    at = p.clone().requires_grad_()
    (slopes,) = torch.autograd.grad(of_latents(at).logits.sum(), at, create_graph=True)
    other = SOFT(-of_latents(p).logits).mean() + SOFT(of_latents(z.detach()).logits).mean()
    return {
        "encoder": error + SOFT(-of_latents(z).logits).mean(),
        "decoder": error + SOFT(-of_images(fake).logits).mean(),
        "discriminator image": own,
        "discriminator latent": other + 5 * 0.5 * slopes.square().sum(1).mean(),
    }


def factor_vae(networks, real):
    posterior, z, recon, *_ = passed(networks, real)
    critic = networks["loss density-ratio-tc"].critic
    mu, logvar = posterior.mu, posterior.logvar
    nats = 0.5 * (mu**2 + logvar.exp() - 1 - logvar).sum(1).mean()
    error = (recon - real).square().mean()
    uniform = torch.empty(8, 8, dtype=WIDE)
    uniform.uniform_(generator=rng.generator(0, "loss density-ratio-tc", 0, 0, 0))
    columns = [z.detach()[uniform[:, j].argsort(), j] for j in range(8)]
    permuted = torch.stack(columns, 1)
    own = SOFT(-critic(z.detach()).logits).mean() + SOFT(critic(permuted).logits).mean()
    return {
        "encoder": error + nats + 3 * critic(z).logits.mean(),
        "decoder": error,
        "loss density-ratio-tc": own / 2,
    }


def soft_intro(networks, real):
    """Encoder and decoder each have a sum of their own, as in the authors' program."""
    encoder, decoder = networks["encoder"], networks["decoder"]
    posterior, _, recon, p, _ = passed(networks, real)
    pixels = real[0].numel()

    def nats(of):
        return (0.5 * (of.mu**2 + of.logvar.exp() - 1 - of.logvar)).sum(1)

    error = (recon - real).square().mean()
    terms = []
    for stream, made in (("prior", decoder(p).sigmoid()), ("recon", recon)):
        fake = made.detach()
        of = encoder(fake)
        eps = drawn(f"loss soft-intro {stream}")
        again = decoder(of.mu + torch.exp(of.logvar / 2) * eps).sigmoid()
        squares = (again - fake).square().sum((1, 2, 3))
        terms.append(torch.exp(-2 / pixels * (squares + 5 * nats(of))).mean())
    low = 0.25 * (terms[0] + terms[1])
    kind = nats(encoder(decoder(p).sigmoid())).mean() + nats(encoder(recon)).mean()
    return {
        "encoder": error + nats(posterior).mean() / pixels + low,
        "decoder": error + 0.5 * kind / pixels,
    }


def info(networks, real):
    _, _, _, p, decoded = passed(networks, real)
    judge = networks["discriminator"]
    found = 0.5 * (networks["encoder"](decoded).mu[:, :3] - p[:, :3]).square().mean()
    fooled = SOFT(-judge(decoded).logits).mean()
    own = SOFT(-judge(real).logits).mean() + SOFT(judge(decoded.detach()).logits).mean()
    return {"encoder": 2 * found, "decoder": 2 * found + fooled, "discriminator": own}


def info_with_categories(networks, real):
    """The first three latents are a category, which the inner decoder gets as a one-hot vector."""
    _, _, _, p, _ = passed(networks, real)
    which = p[:, :3].argmax(1)
    inner = torch.zeros_like(p)
    inner[:, 3:], inner[range(len(p)), which] = p[:, 3:], 1.0
    decoded = networks["decoder"].inner(inner).sigmoid()
    found, judge = networks["encoder"](decoded).mu, networks["discriminator"]
    nats = -found[:, :3].log_softmax(1)[range(len(p)), which].mean()
    found = (nats + sum((0.5 * (found[:, j] - p[:, j]) ** 2).mean() for j in (3, 4))) / 3
    fooled = SOFT(-judge(decoded).logits).mean()
    own = SOFT(-judge(real).logits).mean() + SOFT(judge(decoded.detach()).logits).mean()
    return {"encoder": 2 * found, "decoder": 2 * found + fooled, "discriminator": own}


GAN = "bce-adversarial"
CATEGORIES = {"type": "latent-regression", "categories": [3], "latents": 5, "weight": 2}
FAMILIES = {
    "aae": (
        aae,
        [{"type": "l2", "weight": 10}, {"type": GAN, "reaches": ["encoder"], "weight": 0.1}],
        {"discriminator": LATENT},
    ),
    "bigan": (bigan, [{"type": GAN, "both_sides": True}], {"discriminator": PAIR}),
    "alpha-gan": (
        alpha_gan,
        [
            {"type": "l1", "weight": 40},
            {"type": GAN, "discriminator": "image", "reaches": ["decoder"]},
            {"type": GAN, "discriminator": "latent", "reaches": ["encoder"]},
            {"type": "r1", "discriminator": "latent", "weight": 5},
        ],
        {
            "discriminators": {"image": IMAGE, "latent": LATENT},
            "train.fakes": ["recon", "prior"],
        },
    ),
    "factor-vae": (factor_vae, ["l2", {"type": "kl", "unit": "sample"}, CRITIC], {}),
    "soft-intro": (
        soft_intro,
        [
            "l2",
            "kl",
            {"type": "soft-intro-encoder", "kl": 5, "reaches": ["encoder"]},
            {"type": "soft-intro-decoder", "reaches": ["decoder"]},
        ],
        {},
    ),
    "infogan": (
        info,
        [GAN, {"type": "latent-regression", "latents": 3, "weight": 2}],
        {"discriminator": IMAGE, "train.fakes": ["prior"]},
    ),
    "infogan with categories": (
        info_with_categories,
        [GAN, CATEGORIES],
        {
            "discriminator": IMAGE,
            "train.fakes": ["prior"],
            "decoder": {
                "type": "categorical",
                "sizes": [3],
                "inner": {"type": "conv-transpose", "widths": [16, 8]},
            },
        },
    ),
}


def test_no_more_latents_can_be_found_than_there_are():
    losses = [GAN, {"type": "latent-regression", "latents": 1000}]
    with pytest.raises(RecipeError, match="latents: 1000: the latent has . numbers"):
        Engine(recipe(losses, **{"discriminator": IMAGE, "train.fakes": ["prior"]}), 1)
    losses = [GAN, {"type": "latent-regression", "categories": [4, 3], "latents": 6}]
    with pytest.raises(RecipeError, match="categories: they need a flat latent of 7 numbers"):
        Engine(recipe(losses, **{"discriminator": IMAGE, "train.fakes": ["prior"]}), 1)


@pytest.mark.parametrize("order", ["generator-first", "discriminator-first"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_network_gets_the_gradient_of_a_plain_loop(family, order, monkeypatch):
    plain, losses, changes = FAMILIES[family]
    whole = recipe(losses, **changes, **{"train.order": order})
    one, two = (Engine(whole, 1, dtype=WIDE) for _ in range(2))
    given = {}
    monkeypatch.setattr(
        Player, "step_optimizer", lambda self, _, grads, *__: given.update({self.name: grads})
    )
    real = images(0)
    one.step(0, batches(real))
    values = plain(two.networks, real)
    assert {*values} == {*two.networks}
    gradients = {**given["generator"], **given.get("discriminator", {})}
    for name, value in values.items():
        network = two.networks[name]
        expected = torch.autograd.grad(value, [*network.parameters()], retain_graph=True,
                                       allow_unused=True)  # fmt: skip
        for (key, _), theirs in zip(network.named_parameters(), expected, strict=True):
            ours = gradients.pop(f"{name}.{key}", None)
            if theirs is None:  # the encoder's variance, where only the mean is used
                assert ours is None or not ours.any(), key
            else:
                assert torch.allclose(ours, theirs, rtol=0, atol=1e-12), (name, key)
                assert theirs.any() or "bias" in key, (name, key)
    assert not gradients
    of_judge = ("discriminator", "loss density-ratio-tc.critic.")
    assert all(name.startswith(of_judge) for name in given.get("discriminator", {}))


@pytest.mark.parametrize(
    ("judge", "names"),
    [(LATENT, ("prior_z",)), (PAIR, ("real", "z"))],
    ids=["latents", "pairs"],
)
def test_penalties_act_on_what_is_judged(judge, names):
    """Slopes by latents are plain; by images they are by pixels of [-1, 1], half as steep."""
    whole = recipe([GAN, "r1", "r2", "gradient-penalty", "dragan"], discriminator=judge)
    engine = Engine(whole, 1, dtype=WIDE)
    step = forward(engine, 0, images(0))
    network = engine.networks["discriminator"]
    own = engine.players["discriminator"].terms
    terms = {term.label: term.value(step).item() for term in own}

    def slopes(inputs):
        inputs = [each.detach().requires_grad_() for each in inputs]
        found = torch.autograd.grad(network(*inputs).logits.sum(), inputs)
        return torch.cat([s.flatten(1) / (2 if s.dim() == 4 else 1) for s in found], 1)

    real = [getattr(step, name) for name in names]
    fake = [step.z] if judge is LATENT else [step.prior, step.prior_z]
    assert terms["r1"] == pytest.approx(0.5 * slopes(real).square().sum(1).mean().item())
    assert terms["r2"] == pytest.approx(0.5 * slopes(fake).square().sum(1).mean().item())
    eps = torch.empty(8, dtype=WIDE).uniform_(generator=rng.generator(0, "loss gradient-penalty"))
    mixed = [
        torch.stack([e * a + (1 - e) * b for e, a, b in zip(eps, *both, strict=True)])
        for both in zip(real, fake, strict=True)
    ]
    lengths = slopes(mixed).norm(dim=1)
    assert terms["gradient-penalty"] == pytest.approx((lengths - 1).square().mean().item())
    generator = rng.generator(0, "loss dragan")
    noises = [torch.empty_like(a).uniform_(generator=generator) for a in real]
    alpha = torch.empty(8, dtype=WIDE).uniform_(generator=generator)
    shares = [0.5 * alpha.view(-1, *[1] * (a.dim() - 1)) * a.std(correction=0) for a in real]
    moved = [a + e * u for a, e, u in zip(real, shares, noises, strict=True)]
    lengths = slopes(moved).norm(dim=1)
    assert terms["dragan"] == pytest.approx((lengths - 1).square().mean().item())


@pytest.mark.parametrize("judge", [LATENT, PAIR], ids=["latents", "pairs"])
def test_with_dropout_the_discriminators_scores_lead_into_no_other_network(judge):
    engine = Engine(recipe([GAN], discriminator=judge), 1, dtype=WIDE)
    network = engine.networks["discriminator"]
    stages = network.stages if judge is LATENT else network.images
    stages[0].append(nn.Dropout(0.5))
    step = forward(engine, 0, images(0))
    own = {id(p) for p in network.parameters()}
    reached = {id(leaf) for leaf in leaves(step.fake_score.logits + step.real_score.logits)}
    assert reached > own  # the encoder or the decoder, too
    again = engine.forward.for_discriminator(step, engine.streams())
    reached = {id(leaf) for leaf in leaves(again.fake_score.logits + again.real_score.logits)}
    assert reached == own
    assert not torch.equal(again.real_score.logits, step.real_score.logits)


def test_a_critic_is_trained_in_each_step_of_the_discriminator_with_its_rate_and_clip():
    sgd = {"type": "sgd", "lr": 1.0}
    changes = {"train.discriminator_steps": 3, "train.clip": 0.001}
    changes["train.optimizers"] = {"generator": {"type": "sgd", "lr": 0.0001}, "discriminator": sgd}
    whole = recipe(["l2", CRITIC], **changes)
    assert whole.batches_per_step == 3
    engine = Engine(whole, 1)
    before = {name: p.clone() for name, p in engine.named_parameters("discriminator").items()}
    assert {name.partition(".critic.")[0] for name in before} == {"loss density-ratio-tc"}
    engine.step(0, batches(*(images(n).float() for n in range(3))))
    moved = [p - before[name] for name, p in engine.named_parameters("discriminator").items()]
    length = torch.cat([each.flatten() for each in moved]).norm().item()
    assert 0.001 < length <= 0.0031  # three clipped steps at rate 1


@pytest.mark.parametrize("family", ["alpha-gan", "factor-vae"])
def test_going_on_from_a_state_is_going_on(family):
    _, losses, changes = FAMILIES[family]
    straight, stopped, resumed = (Engine(recipe(losses, **changes), 4) for _ in range(3))
    for number in range(2):
        straight.step(number, batches(images(number).float()))
    stopped.step(0, batches(images(0).float()))
    state = stopped.state({"step": 1})
    resumed.restore(state)
    resumed.step(1, batches(images(1).float()))
    one, two = straight.state({"step": 2}), resumed.state({"step": 2})
    for name, tensor in (one.model | one.optimizer).items():
        assert torch.equal(tensor, (two.model | two.optimizer)[name]), name
    heads = {name.partition(".")[0] for name in state.model}
    wanted = {"discriminator image", "discriminator latent"}
    assert heads - {"encoder", "decoder"} == (
        wanted if family == "alpha-gan" else {"loss density-ratio-tc"}
    )
    owners = {key.partition("/")[0] for key in state.optimizer if ".critic." in key or "dis" in key}
    assert owners == {"discriminator"}


# --- what the checks say -------------------------------------------------------------------------


def examined(losses, **changes):
    engine = Engine(recipe(losses, **changes), 10)
    return examine(engine, vgx.discover(), Batch(images(0, 4).float(), None))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_audit_passes_and_measures_each(family):
    _, losses, changes = FAMILIES[family]
    if family.startswith("infogan"):  # its encoder gives a variance that nothing trains
        inner = {"type": "conv", "widths": [8, 16]}
        changes = {**changes, "encoder": {"type": "deterministic", "inner": inner}}
    found = examined(losses, **changes)
    for flow in found.flows:
        reached = {name for name, norm in flow.norms.items() if norm is not None}
        if flow.label.endswith(".discriminator") or flow.label == "r1-latent":
            assert all(name.startswith(("discriminator", "loss ")) for name in reached), flow
        else:
            assert reached <= {"encoder", "decoder"}, flow
        assert reached, flow


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([Leaky(), "l1"], r"leak:test-leaky.discriminator: .* leads to step.z and so into the gen"),
        ([Untrained(), "l1"], r"unstepped:discriminator: no loss has a term for the discriminator"),
        (
            [Untrained(), CRITIC, "l1"],
            r"unreached:loss test-untrained.critic: no loss term trains it",
        ),
    ],
)
def test_faults_of_critics_are_found(losses, message):
    with pytest.raises(RecipeError, match=message):
        examined(losses)
    if isinstance(losses[0], Leaky):  # the control: without the fault it passes
        assert examined([Leaky(detached=True), "l1"])


def test_a_critic_must_be_declared():
    with pytest.raises(BrokenError, match=r"in the part: critic: ClassVar\[bool\] = True"):
        Engine(recipe(["l1", Unsaid()]), 1)


def test_of_several_discriminators_a_loss_names_one():
    both = {"discriminators": {"fine": IMAGE, "coarse": {**IMAGE, "halvings": 1}}}
    with pytest.raises(RecipeError, match=r"'discriminator: NAME' in this loss, with one of: fine"):
        examined(["hinge", "l1"], **both)
    named = [{"type": "hinge", "discriminator": name} for name in ("fine", "coarse")]
    found = examined([*named, "l1"], **both)
    assert [row.network for row in found.rows[2:]] == [
        "discriminator fine", "discriminator coarse"
    ]  # fmt: skip
    assert [row.shapes for row in found.rows[2:]] == ["3x16x16 -> 1x6x6", "3x16x16 -> 1x2x2"]
    assert {"hinge-fine.generator", "hinge-coarse.discriminator"} < {*found.losses}
    found = examined([*named[:1], "l1"], discriminators={"fine": IMAGE})
    assert found.rows[2].network == "discriminator fine"
    alone = Engine(recipe(["hinge"], discriminators={"fine": IMAGE}), 1)
    assert set(alone.step(0, batches(images(0).float()))) == {
        "hinge.generator", "hinge.discriminator"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"discriminators": {"a": IMAGE}, "losses": [{"type": "hinge", "discriminator": "b"}]},
            "the loss 'hinge-b' is about the discriminator 'b'; there is a",
        ),
        (
            {"discriminator": IMAGE, "losses": [{"type": "hinge", "discriminator": "b"}]},
            "about the discriminator 'b'; there is none with a name",
        ),
        (
            {"discriminator": LATENT, "encoder": None, "losses": ["hinge"], "sampler": "prior"},
            "the discriminator latent-mlp judges latents, which need an encoder",
        ),
        ({"discriminators": {"a b": IMAGE}, "losses": ["hinge"]}, "discriminators.a b"),
    ],
)
def test_a_recipe_that_is_ambiguous_or_lacks_something_says_so(changes, message):
    with pytest.raises(RecipeError, match=message):
        recipe(changes.pop("losses", ["l1"]), **changes)


def test_frozen_and_started_discriminators_are_all_of_them():
    both = {"discriminators": {"fine": IMAGE, "latent": LATENT}, "train.freeze": ["discriminator"]}
    whole = recipe(["l1", {"type": GAN, "discriminator": "fine"}], **both)
    engine = Engine(whole, 1)
    assert list(engine.players) == ["generator"]
    assert whole.frozen == ["discriminator fine", "discriminator latent"]
    assert not any(p.requires_grad for p in engine.named_parameters("discriminator").values())
    with pytest.raises(
        RecipeError, match=r"dead:bce-adversarial-fine\.discriminator: train\.freeze has the"
    ):
        examine(engine, vgx.discover(), Batch(images(0, 4).float(), None))


def test_the_places_of_several_discriminators_are_those_of_the_recipe():
    places = dict(parts_of(recipe(["l1"], discriminators={"fine": IMAGE, "coarse": LATENT})))
    assert {"discriminators.fine", "discriminators.coarse"} < {*places}


def test_both_forms_in_one_file_are_an_error(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: tiny\ndiscriminator: patchgan\ndiscriminators: {a: patchgan}\n")
    with pytest.raises(RecipeError, match="there are 'discriminator' and 'discriminators'"):
        vgx.load_recipe(file)


def test_each_form_takes_the_place_of_the_other_in_a_recipe_that_extends(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: tiny\ndiscriminators: {a: {type: patchgan, widths: [4, 6]}}\n"
                    "losses: [{type: hinge, discriminator: a}, l1]\n")  # fmt: skip
    several = vgx.load_recipe(file)
    assert several.discriminator is None
    assert list(several.networks) == ["encoder", "decoder", "discriminator a"]
    single = vgx.load_recipe(file, {"discriminator": IMAGE, "losses": ["hinge", "l1"]})
    assert single.discriminators == {}
    changed = vgx.load_recipe(file, ["discriminators.a.widths=[4, 8]"])
    assert changed.discriminators["a"].widths == (4, 8)
