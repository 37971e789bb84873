"""What a loss has of networks: `prior_z`, `encode`, `decode`, `decode_logits`, `parameters`."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import pytest
import torch
from steps import batches, forward
from torch import nn

import vgx
from vgx import rng
from vgx.check.examine import examine
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.engine.players import Player

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
WIDE = torch.float64
ADVERSARIAL = "bce-adversarial"


class Regression(vgx.Loss, type="test-regression"):
    """The encoder finds the draw that an image was decoded of; the discriminator's term calls too.

    The draws are decoded and encoded again: mean |mu(G(p)) - p|^2.
    """

    def generator(self, step):
        return (step.encode(step.decode(step.prior_z)).mean - step.prior_z).square().mean()

    def discriminator(self, step):
        images = step.decode(step.prior_z)
        assert not images.requires_grad
        assert not step.encode(images).mean.requires_grad
        return step.discriminator(images).logits.square().mean()


class Decay(vgx.Loss, type="test-decay"):
    """Half the squares of the weights of one network of each player; reads the other's too."""

    network: str = "decoder"

    def generator(self, step):
        judge = squares(step.parameters("discriminator"))
        return squares(step.parameters(self.network)) + judge

    def discriminator(self, step):
        for network in ("encoder", "decoder"):
            assert not any(each.requires_grad for each in step.parameters(network).values())
        return squares(step.parameters("discriminator"))


def squares(parameters):
    return sum(each.square().sum() for each in parameters.values()) / 2


class LabelledDecoder(vgx.Decoder, type="test-labelled-decoder"):
    """Takes labels, which it adds to the latents."""

    conditional = True

    def build(self, latent, image):
        return AddsLabels(latent, image)


class AddsLabels(nn.Module):
    def __init__(self, latent, image):
        super().__init__()
        self.layer = nn.Linear(latent.shape[0], image.pixel_values)
        self.shape = image.shape

    def forward(self, z, labels):
        return self.layer(z + labels[:, None]).view(-1, *self.shape)


def recipe(losses, **changes):
    changed = {f"train.{name}": value for name, value in changes.pop("train", {}).items()}
    return vgx.load_recipe(TINY, {"augment": [], "losses": losses, **changed, **changes})


def images(number, n=8):
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(number), dtype=WIDE)


def gradients(engine, monkeypatch, *minibatches, labels=None):
    """What the optimizers would get in one step."""
    given = {}
    with monkeypatch.context() as patch:
        patch.setattr(
            Player, "step_optimizer", lambda self, _, grads, *__: given.update({self.name: grads})
        )
        engine.step(0, batches(*minibatches, labels=labels))
    return given


@pytest.mark.parametrize("order", ["generator-first", "discriminator-first"])
def test_a_loss_that_decodes_and_encodes_has_the_gradient_of_a_plain_loop(order, monkeypatch):
    losses = [{"type": "test-regression", "weight": 3}, {"type": ADVERSARIAL}, {"type": "l1"}]
    whole = recipe([Regression(weight=3), *losses[1:]], train={"order": order})
    one, two = (Engine(whole, 1, dtype=WIDE) for _ in range(2))
    real = images(0)
    given = gradients(one, monkeypatch, real)
    encoder, decoder, judge = (two.networks[n] for n in ("encoder", "decoder", "discriminator"))
    posterior = encoder(real)
    eps = torch.randn(
        posterior.mu.shape, generator=rng.generator(0, "posterior", 0, 0, 0), dtype=WIDE
    )
    recon = decoder(posterior.mu + (posterior.logvar / 2).exp() * eps).sigmoid()
    p = torch.randn(8, 8, generator=rng.generator(0, "prior", 0, 0, 0), dtype=WIDE)
    decoded = decoder(p).sigmoid()
    bce = nn.functional.binary_cross_entropy_with_logits
    fooled = judge(recon).logits
    value = 3 * (encoder(decoded).mu - p).square().mean() + (recon - real).abs().mean()
    value = value + bce(fooled, torch.ones_like(fooled))
    plain = torch.autograd.grad(value, two.players["generator"].parameters)
    yes, no = judge(real).logits, judge(recon.detach()).logits
    value = bce(yes, torch.ones_like(yes)) + bce(no, torch.zeros_like(no))
    value = value + judge(decoded.detach()).logits.square().mean()
    critic = torch.autograd.grad(value, two.players["discriminator"].parameters)
    for player, expected in {"generator": plain, "discriminator": critic}.items():
        for (name, ours), theirs in zip(given[player].items(), expected, strict=True):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-12), name


def test_what_is_called_is_what_the_step_has():
    engine = Engine(recipe(["l1"], discriminator=None, train={"fakes": ["prior"]}), 1, dtype=WIDE)
    step = forward(engine, 0, images(0))
    drawn = torch.randn(8, 8, generator=rng.generator(0, "prior"), dtype=WIDE)
    assert torch.equal(step.prior_z, drawn)
    assert torch.equal(step.decode(step.prior_z), step.prior)
    assert torch.equal(step.decode_logits(step.z), step.recon_logits)
    assert torch.equal(step.encode(step.real).mean, step.posterior.mean)
    with torch.no_grad():
        assert not step.decode(step.z).requires_grad
    gan = Engine(recipe([ADVERSARIAL], encoder=None, sampler="prior"), 1, dtype=WIDE)
    step = forward(gan, 0, images(0))
    assert torch.equal(step.prior_z, step.z)
    assert not step.has("encode")
    with pytest.raises(vgx.AbsentError, match=r"step.encode is absent: .* needs an encoder"):
        step.encode(step.real)
    with pytest.raises(vgx.AbsentError, match=r"step.prior_z is absent"):
        _ = step.but(prior_z=None).prior_z


def test_each_call_drops_out_by_its_key_and_moves_no_other_draw():
    engine = Engine(recipe(["l1"]), 1, dtype=WIDE)
    decoder = engine.networks["decoder"] = nn.Sequential(
        copy.deepcopy(engine.networks["decoder"]), nn.Dropout(0.5)
    )
    real = images(0)
    steps = [forward(engine, number, real, (number, 0, 0)) for number in (3, 3, 4)]
    with rng.ambient(0, "anything"):
        before = torch.get_rng_state()
        first, second = steps[0].decode_logits(steps[0].z), steps[0].decode_logits(steps[0].z)
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, steps[1].decode_logits(steps[0].z))  # the first call of that step
    assert not torch.equal(first, second)
    assert not torch.equal(first, steps[2].decode_logits(steps[0].z))
    assert decoder[1].training


@pytest.mark.parametrize("order", ["generator-first", "discriminator-first"])
def test_a_loss_on_weights_adds_its_gradient_to_the_network_of_its_player_alone(order, monkeypatch):
    """The gradient of |w|^2 / 2 is w: beside the others' it is the weight times w, and nothing."""
    losses, train = [ADVERSARIAL, "l1"], {"order": order}
    whole = Engine(recipe([Decay(weight=3), *losses], train=train), 1, dtype=WIDE)
    plain = Engine(recipe(losses, train=train), 1, dtype=WIDE)
    before = {
        f"{network}.{name}": each.detach().clone()
        for network in ("encoder", "decoder", "discriminator")
        for name, each in whole.networks[network].named_parameters()
    }
    given = gradients(whole, monkeypatch, images(0))
    without = gradients(plain, monkeypatch, images(0))
    factor = {"encoder": 0, "decoder": 3, "discriminator": 1}
    seen = set()
    for player in ("generator", "discriminator"):
        for name, ours in given[player].items():
            network = name.partition(".")[0]
            added = factor[network] * before[name]
            assert torch.allclose(ours, without[player][name] + added, rtol=0, atol=1e-12), name
            seen.add(name)
    assert seen == {*before}


def test_parameters_are_those_of_the_network_by_their_names():
    judge = {"type": "patchgan", "widths": [4, 6]}
    judges = {"discriminator": None, "discriminators": {"a": judge, "b": judge}}
    named = [{"type": ADVERSARIAL, "discriminator": name} for name in "ab"]
    engine = Engine(recipe([*named, "l1"], **judges), 1, dtype=WIDE)
    step = forward(engine, 0, images(0))
    for network, of in (("decoder", step), ("discriminator a", step), ("discriminator", "b")):
        own = step.about(of).parameters(network) if of == "b" else of.parameters(network)
        name = "discriminator b" if of == "b" else network
        expected = dict(engine.networks[name].named_parameters())
        assert [*own] == [*expected]
        assert all(own[key] is expected[key] for key in expected)
    for wrong in ("decoer", "discriminator", "loss l1"):
        with pytest.raises(vgx.AbsentError, match=r"one network of this name; it has encoder, dec"):
            step.parameters(wrong)
    with pytest.raises(vgx.AbsentError, match="step.parameters is absent"):
        step.but(parameters=None).about("b").parameters("decoder")


def test_labels_are_those_of_the_step_or_those_given():
    changes = {"image.classes": 3, "decoder": LabelledDecoder(), "discriminator": None}
    changes["dataset"] = {"type": "drawn-faces", "count": 8, "label": "hair_style"}
    engine = Engine(recipe(["l1"], **changes), 1, dtype=WIDE)
    labels, others = torch.arange(8) % 3, (torch.arange(8) + 1) % 3
    step = forward(engine, 0, images(0), labels=labels)
    two = torch.cat([step.z, step.z])
    expected = engine.networks["decoder"](two, torch.cat([labels, labels]))
    assert torch.equal(step.decode_logits(two), expected)
    expected = engine.networks["decoder"](step.z, others)
    assert torch.equal(step.decode_logits(step.z, others), expected)


def test_the_audit_sees_what_a_call_trains():
    engine = Engine(recipe([Regression(), ADVERSARIAL, "l1"]), 10)
    found = examine(engine, vgx.discover(), Batch(images(0, 4).float(), None))
    norms = {flow.label: flow.norms for flow in found.flows}["test-regression.generator"]
    assert norms["encoder"] > 0
    assert norms["decoder"] > 0
    norms = {flow.label: flow.norms for flow in found.flows}["test-regression.discriminator"]
    assert norms["discriminator"] > 0
    assert norms["encoder"] is norms["decoder"] is None


def test_the_audit_sees_what_a_loss_on_weights_trains():
    engine = Engine(recipe([Decay(), ADVERSARIAL, "l1"]), 10)
    found = examine(engine, vgx.discover(), Batch(images(0, 4).float(), None))
    norms = {flow.label: flow.norms for flow in found.flows}
    for term, trained in (("generator", "decoder"), ("discriminator", "discriminator")):
        of_term = norms[f"test-decay.{term}"]
        assert [name for name, norm in of_term.items() if norm is not None] == [trained]
        own = torch.cat([p.flatten() for p in engine.networks[trained].parameters()])
        assert of_term[trained] == pytest.approx(own.norm().item(), rel=1e-5)
    engine = Engine(recipe([Decay(network="discriminator"), ADVERSARIAL, "l1"]), 10)
    with pytest.raises(vgx.RecipeError, match=r"dead:test-decay.generator: reaches only the disc"):
        examine(engine, vgx.discover(), Batch(images(0, 4).float(), None))


def test_a_build_of_earlier_versions_works_with_one_notice():
    class Old(vgx.Discriminator, type="test-old"):
        """Written for an earlier version of vgx."""

        def build(self, image):
            return ("built for", image)

    class OldLoss(vgx.Loss, type="test-old-loss"):
        """Written for an earlier version of vgx."""

        def build(self):
            return "built"

    image, latent = vgx.ImageSpec(8), vgx.LatentSpec((4,))
    for part, expected in ((Old(), ("built for", image)), (OldLoss(), "built")):
        with pytest.warns(vgx.Notice, match=r"write def build\(self, image, latent\) in its class"):
            assert part.build(image, latent) == expected
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert part.build(image, latent) == expected
