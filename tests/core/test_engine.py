"""The step: who gets which gradient, what counts when, what a state holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from steps import batches, forward
from torch import nn

import vgx
from vgx import rng
from vgx.engine.engine import Engine
from vgx.engine.losses import weighted_losses
from vgx.engine.players import Player
from vgx.engine.stored_latents import MAX_LATENTS
from vgx.errors import StorageError

TINY = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
GAN = {"encoder": None, "losses": [{"type": "bce-adversarial"}], "sampler": "prior"}
VAE = {"discriminator": None, "losses": [{"type": "bce"}, {"type": "kl"}]}


def tiny(changes=None):
    return vgx.load_recipe(TINY, {"augment": [], **(changes or {})})


def pictures(number, n=8, dtype=torch.float32):
    chance = torch.Generator().manual_seed(number)
    return torch.rand(n, 3, 16, 16, generator=chance, dtype=dtype)


def copied(engine):
    return {
        f"{name}.{key}": tensor.clone()
        for name, network in engine.networks.items()
        for key, tensor in network.state_dict().items()
    }


def test_the_networks_get_augmented_images():
    """All parts in their order, worked out by hand: the left half black, then mirrored."""

    class Black(vgx.Augmentation, type="black-left"):
        """Paint the left half black."""

        def build(self, image):
            return lambda images, _: images * (torch.arange(image.width) >= image.width // 2)

    mirror = {"type": "horizontal-flip", "p": 1}
    recipe = tiny({**VAE, "augment": [mirror, mirror]})
    recipe = recipe.model_copy(update={"augment": (Black(), recipe.augment[0])})
    engine = Engine(recipe, 1)
    real = pictures(0)
    step = forward(engine, 0, real)
    expected = real.clone()
    expected[..., :8] = 0
    expected = expected.flip(-1)
    assert torch.equal(step.real, expected)
    assert torch.allclose(step.posterior.mu, engine.networks["encoder"](expected).mu, atol=1e-6)


def test_each_minibatch_is_augmented_with_its_own_draws(monkeypatch):
    """Which of 8 equal images a step mirrors: by chance no two of 6 minibatches are alike."""
    recipe = tiny({"augment": ["horizontal-flip"], "train.discriminator_steps": 2})
    engine = Engine(recipe, 3)
    seen = []
    monkeypatch.setattr(engine, "observe", lambda _, step: seen.append(step.real))
    real = pictures(0, 1).expand(8, -1, -1, -1)
    for number in range(3):
        engine.step(number, batches(real, real))
    mirrored = [(images == real.flip(-1)).flatten(1).all(1) for images in seen]
    for images, turned in zip(seen, mirrored, strict=True):
        assert torch.equal(images, real.flip(-1).where(turned[:, None, None, None], real))
    assert len({tuple(turned.tolist()) for turned in mirrored}) == 6


def test_each_player_gets_the_plain_orders_gradient():
    """One forward pass serves both: their gradients are those of separate detached passes."""
    recipe = tiny({"losses": [{"type": "bce-adversarial", "weight": 3}, {"type": "l1"}]})
    one, two = (Engine(recipe, 1, dtype=torch.float64) for _ in range(2))
    real = pictures(0, dtype=torch.float64)
    step = forward(one, 0, real)
    shared = {}
    for player in ("generator", "discriminator"):
        losses = weighted_losses(one.players[player].terms, step, one.last_layer)
        ((networks, total),) = losses.sums.items()
        assert networks is None  # all of the player's
        shared[player] = torch.autograd.grad(
            total, one.players[player].parameters, retain_graph=True
        )
    step = forward(two, 0, real)
    fake = step.recon
    score = two.networks["discriminator"](fake).logits
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    loss = 3 * bce(score, torch.ones_like(score)) + (fake - real).abs().mean()
    plain = torch.autograd.grad(loss, two.players["generator"].parameters)
    judged, seen = (two.networks["discriminator"](x).logits for x in (fake.detach(), real))
    loss = bce(seen, torch.ones_like(seen)) + bce(judged, torch.zeros_like(judged))
    critic = torch.autograd.grad(loss, two.players["discriminator"].parameters)
    for ours, theirs in zip(shared["generator"], plain, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    for ours, theirs in zip(shared["discriminator"], critic, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fakes", [["recon"], ["prior", "recon"]], ids=" ".join)
def test_a_discriminator_with_dropout_judges_again_as_in_the_plain_order(fakes, monkeypatch):
    losses = [{"type": "bce-adversarial"}, {"type": "l1"}]
    recipe = tiny({"losses": losses, "train.fakes": fakes})
    one, two = (Engine(recipe, 1, dtype=torch.float64) for _ in range(2))
    for engine in (one, two):
        engine.networks["discriminator"].stages[0].append(nn.Dropout(0.5))
    given = {}
    monkeypatch.setattr(
        Player,
        "step_optimizer",
        lambda self, _, grads, *__: given.update({self.name: [*grads.values()]}),
    )
    real = pictures(0, dtype=torch.float64)
    one.step(0, batches(real))

    bce = torch.nn.functional.binary_cross_entropy_with_logits
    with rng.ambient(recipe.train.seed, "step", 0):
        step = forward(two, 0, real, (0, 0, 0))
        made = [getattr(step, name) for name in fakes]
        score = step.fake_score.logits
        loss = bce(score, torch.ones_like(score)) + (step.recon - real).abs().mean()
        plain = torch.autograd.grad(loss, two.players["generator"].parameters)
        seen, judged = (two.networks["discriminator"](x).logits for x in (real, torch.cat(made)))
    loss = bce(seen, torch.ones_like(seen)) + bce(judged, torch.zeros_like(judged))
    critic = torch.autograd.grad(loss, two.players["discriminator"].parameters)
    for player, expected in {"generator": plain, "discriminator": critic}.items():
        for ours, theirs in zip(given[player], expected, strict=True):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    # Other masks than for the generator, so that this could fail.
    assert not torch.equal(judged, score)


def test_a_step_moves_every_network_and_leaves_no_gradients():
    engine = Engine(tiny(), 5)
    before = copied(engine)
    values = engine.step(0, batches(pictures(0)))
    names = {"bce-adversarial.generator", "bce-adversarial.discriminator", "l1", "bce", "kl"}
    assert set(values) == names
    assert not any(value.requires_grad for value in values.values())
    for name, network in engine.networks.items():
        for key, parameter in network.named_parameters():
            assert parameter.grad is None
            assert not torch.equal(parameter, before[f"{name}.{key}"]), (name, key)


def test_the_engine_is_the_same_twice_and_other_with_another_seed():
    def trained(seed):
        engine = Engine(tiny({"train.seed": seed}), 3)
        for number in range(3):
            engine.step(number, batches(pictures(number)))
        return copied(engine)

    one, two, other = trained(0), trained(0), trained(1)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["decoder.0.weight"], other["decoder.0.weight"])


def test_swapping_one_network_leaves_the_others_first_weights_alone():
    one, two = copied(Engine(tiny(), 1)), copied(Engine(tiny({"encoder.widths": [4, 4]}), 1))
    assert torch.equal(one["decoder.0.weight"], two["decoder.0.weight"])
    name = "discriminator.head.weight"
    assert torch.equal(one[name], two[name])


def test_the_global_random_state_is_as_it_was():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    engine = Engine(tiny(), 1)
    engine.step(0, batches(pictures(0)))
    assert torch.equal(torch.rand(3), expected)


def test_pieces_of_a_minibatch_give_the_gradient_of_the_whole():
    """Where nothing depends on the batch's statistics: SGD, one step, evaluation mode."""
    sgd = {"type": "sgd", "lr": 0.1}
    optimizers = {"generator": sgd, "discriminator": sgd}
    losses = [{"type": "bce-adversarial"}, {"type": "l2"}, {"type": "kl"}]
    ends = []
    for pieces in (1, 4):
        changes = {"train.accumulate": pieces, "train.optimizers": optimizers, "losses": losses}
        engine = Engine(tiny({**changes, "train.ema": None}), 1, dtype=torch.float64)
        for network in engine.networks.values():
            network.eval()
        noise = torch.Generator().manual_seed(3)
        eps = torch.randn(8, 8, generator=noise, dtype=torch.float64)
        _give_noise(engine, eps)
        engine.step(0, batches(pictures(0, dtype=torch.float64)))
        ends.append(copied(engine))
    for name in ends[0]:
        assert torch.allclose(ends[0][name], ends[1][name], rtol=0, atol=1e-12), name


def _give_noise(engine, eps):
    """Let the pieces of the minibatch use their part of the same noise."""
    encode = engine.networks["encoder"].forward
    used = []

    class Fixed(vgx.Gaussian):
        def sample(self, generator):
            del generator
            part = eps[len(used) : len(used) + len(self.mu)]
            used.extend(part)
            return self.mu + (self.logvar / 2).exp() * part

    def fixed(posterior):
        return Fixed(posterior.mu, posterior.logvar)

    engine.networks["encoder"].forward = lambda images: fixed(encode(images))


def test_weights_schedules_and_starts():
    losses = [
        {"type": "l1", "name": "ramp", "weight": {"from": 0, "to": 10, "steps": 4}},
        {"type": "l2", "name": "late", "start": 2, "weight": 5},
        {"type": "bce-adversarial", "weight": 7},
    ]
    engine = Engine(tiny({"losses": losses}), 10)
    weights = [
        {term.label: term.weight(number) for term in engine.players["generator"].terms}
        for number in (0, 2, 8)
    ]
    assert [w["ramp"] for w in weights] == [0, 5, 10]
    assert [w["late"] for w in weights] == [0, 5, 5]
    assert [w["bce-adversarial.generator"] for w in weights] == [7, 7, 7]
    (critic,) = engine.players["discriminator"].terms
    assert critic.weight(0) == 1.0
    assert set(engine.step(0, batches(pictures(0)))) == {
        "bce-adversarial.generator",
        "bce-adversarial.discriminator",
    }
    assert "late" in engine.step(2, batches(pictures(2)))


def test_a_gan_has_no_encoder_and_learns_from_the_prior():
    engine = Engine(tiny(GAN), 2)
    step = forward(engine, 0, pictures(0), (0, 0, 0))
    for name in ("posterior", "recon"):
        assert not step.has(name)
        with pytest.raises(vgx.AbsentError, match=f"step.{name} is absent: .* needs an encoder"):
            getattr(step, name)
    assert step.prior.shape == (8, 3, 16, 16)
    assert step.z.shape == (8, 8)
    assert torch.equal(step.prior, torch.sigmoid(engine.networks["decoder"](step.z)))
    engine.step(0, batches(pictures(0)))
    assert torch.equal(engine.state({"step": 1}).latents["codes"], step.z)


def test_of_a_run_with_an_encoder_the_draws_are_stored_and_not_the_means():
    engine = Engine(tiny(VAE), 2)
    step = forward(engine, 0, pictures(0), (0, 0, 0))
    engine.step(0, batches(pictures(0)))
    codes = engine.state({"step": 1}).latents["codes"]  # [8, 8]
    drawn = (codes - step.posterior.mu) / (step.posterior.logvar / 2).exp()
    noise = torch.empty(8, 8).normal_(generator=rng.generator(0, "posterior", 0, 0, 0))
    assert torch.allclose(drawn, noise, atol=1e-5)


def test_a_vae_has_no_discriminator():
    engine = Engine(tiny(VAE), 2)
    values = engine.step(0, batches(pictures(0)))
    assert set(values) == {"bce", "kl"}
    assert list(engine.players) == ["generator"]


def test_fakes_are_shown_in_the_order_of_the_recipe():
    engine = Engine(tiny({"train.fakes": ["prior", "recon"]}), 1)
    for network in engine.networks.values():
        network.eval()
    step = forward(engine, 0, pictures(0))
    assert step.fake_score.logits.shape[0] == 16
    judged = engine.forward.score(torch.cat([step.prior, step.recon])).logits
    assert torch.equal(judged, step.fake_score.logits)


def test_discriminator_first_shows_the_generator_an_updated_judge():
    """The two orders differ in the generator's step and in nothing of the discriminator's."""
    ends = {}
    for order in ("generator-first", "discriminator-first"):
        recipe = tiny({"train.order": order, "losses": [{"type": "bce-adversarial"}]})
        engine = Engine(recipe, 1, dtype=torch.float64)
        engine.step(0, batches(pictures(0, dtype=torch.float64)))
        ends[order] = copied(engine)
    one, two = ends.values()
    head, first = "discriminator.head.weight", "decoder.0.weight"
    assert torch.allclose(one[head], two[head], rtol=0, atol=1e-12)
    assert not torch.allclose(one[first], two[first], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        # The discriminator's further steps, before its loss counts.
        ({"losses": [{"type": "hinge", "start": 1}, "l1"], "train.discriminator_steps": 2}, 2),
        # The discriminator is first, and has nothing to learn yet.
        (
            {
                "losses": [{"type": "hinge", "start": 1}, "l1"],
                "train.order": "discriminator-first",
            },
            1,
        ),
        # A VAE whose only loss counts every second step.
        ({"discriminator": None, "losses": [{"type": "l1", "every": 2, "start": 1}]}, 1),
    ],
)
def test_a_player_without_a_term_that_counts_stays_as_it_is(changes, count):
    engine = Engine(tiny({"train.ema": None, **changes}), 4)
    player = engine.players["discriminator" if "train" in "".join(changes) else "generator"]
    before = [p.clone() for p in player.parameters]
    engine.step(0, batches(*map(pictures, range(count))))
    assert all(map(torch.equal, before, player.parameters))
    engine.step(1, batches(*map(pictures, range(count))))
    assert not all(map(torch.equal, before, player.parameters))


def test_further_discriminator_steps_move_only_the_discriminator():
    one, three = (Engine(tiny({"train.discriminator_steps": n}), 1) for n in (1, 3))
    one.step(0, batches(pictures(0)))
    three.step(0, batches(pictures(0), pictures(1), pictures(2)))
    a, b = copied(one), copied(three)
    assert torch.equal(a["decoder.0.weight"], b["decoder.0.weight"])
    assert not torch.equal(a["discriminator.head.weight"], b["discriminator.head.weight"])


def test_averaged_weights_follow_by_hand_and_buffers_are_copied():
    engine = Engine(tiny({"train.ema": 0.75}), 3)
    history = []
    for number in range(3):
        engine.step(number, batches(pictures(number)))
        history.append(copied(engine))
    name = "decoder.0.weight"
    expected = history[0][name]
    for later in history[1:]:
        expected = 0.75 * expected + 0.25 * later[name]
    shown = engine.network_for_sampling("decoder").state_dict()
    assert torch.allclose(shown["0.weight"], expected, atol=1e-7)
    assert torch.equal(shown["3.running_mean"], history[-1]["decoder.3.running_mean"])
    assert torch.equal(shown["3.num_batches_tracked"], torch.tensor(3))


def test_a_gradient_in_another_memory_layout_moves_the_same_weights():
    ends = []
    for layout in (torch.channels_last, torch.contiguous_format):
        engine = Engine(tiny(), 1)
        chance = torch.Generator().manual_seed(0)
        gradients = {}
        for name, parameter in engine.players["generator"].trained.items():
            gradient = torch.randn(parameter.shape, generator=chance)
            gradients[name] = gradient.to(memory_format=layout) if gradient.dim() == 4 else gradient
        engine.players["generator"].step_optimizer(0, gradients, 1.0, None)
        ends.append(copied(engine))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_clipping_bounds_the_gradient_of_each_player():
    sgd = {"type": "sgd", "lr": 1.0}
    changes = {"train.clip": 0.01, "train.optimizers": {"generator": sgd, "discriminator": sgd}}
    engine = Engine(tiny(changes), 1)
    before = {name: [p.clone() for p in each.parameters] for name, each in engine.players.items()}
    engine.step(0, batches(pictures(0)))
    for player, parameters in ((n, each.parameters) for n, each in engine.players.items()):
        moved = [(p - old).norm() ** 2 for p, old in zip(parameters, before[player], strict=True)]
        assert torch.stack(moved).sum().sqrt().item() == pytest.approx(0.01, rel=1e-3)


def test_stored_latents_are_the_newest_oldest_first():
    engine = Engine(tiny(GAN), 5, codes=20)
    seen = []
    for number in range(5):
        seen.append(forward(engine, number, pictures(number), (number, 0, 0)).z)
        engine.step(number, batches(pictures(number)))
    codes = engine.state({"step": 5}).latents["codes"]
    assert torch.equal(codes, torch.cat(seen)[-20:])
    assert Engine(tiny(), 1, codes=10**9).latents.ring.shape == (MAX_LATENTS, 8)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "lion", "adopt", "rmsprop", "muon"])
def test_going_on_from_a_state_is_going_on(optimizer):
    """Bit for bit, with averaged weights, for optimizers with states of every kind."""
    chosen = {"type": optimizer, "lr": 1e-3}
    changes = {"train.optimizers": {"generator": chosen, "discriminator": chosen}}
    straight, stopped, resumed = (Engine(tiny(changes), 4, codes=20) for _ in range(3))
    for number in range(4):
        straight.step(number, batches(pictures(number)))
    for number in range(2):
        stopped.step(number, batches(pictures(number)))
    resumed.restore(stopped.state({"step": 2}))
    for number in range(2, 4):
        resumed.step(number, batches(pictures(number)))
    one, two = straight.state({"step": 4}), resumed.state({"step": 4})
    for kind in ("model", "optimizer", "latents"):
        ours, theirs = getattr(one, kind), getattr(two, kind)
        assert list(ours) == list(theirs)
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), (kind, name)
    assert one.numbers == two.numbers


class Slashed(vgx.Decoder, type="slashed"):
    """A decoder whose stages have names with slashes."""

    def build(self, latent, image):
        stages = {
            "stage/1": nn.Linear(latent.shape[0], image.pixel_values),
            "stage/2/view": nn.Unflatten(1, (image.channels, image.size, image.size)),
        }
        network = nn.ModuleDict(stages)
        network.forward = lambda z: stages["stage/2/view"](stages["stage/1"](z))
        return network


def test_a_module_may_have_a_slash_in_its_name():
    """Optimizer tensors are saved as player/parameter/key."""
    plugin = vgx.Plugin("slashed", "0", "slashed", (Slashed,))
    registry = vgx.Registry((*vgx.discover().plugins, plugin))
    changes = {"augment": [], "train.ema": None, "decoder": "slashed", **VAE}
    recipe = vgx.load_recipe(TINY, changes, registry)
    straight, stopped, resumed = (Engine(recipe, 4) for _ in range(3))
    for number in range(2):
        straight.step(number, batches(pictures(number)))
    stopped.step(0, batches(pictures(0)))
    state = stopped.state({"step": 1})
    assert "generator/decoder.stage/1.weight/exp_avg" in state.optimizer
    resumed.restore(state)
    resumed.step(1, batches(pictures(1)))
    one, two = straight.state({"step": 2}), resumed.state({"step": 2})
    for name, tensor in (one.model | one.optimizer).items():
        assert torch.equal(tensor, (two.model | two.optimizer)[name]), name


@pytest.mark.parametrize("address", ["nobody/decoder.0.weight/exp_avg", "generator/x/exp_avg"])
def test_an_optimizer_state_of_something_else_is_refused(address):
    engine, other = Engine(tiny(), 4), Engine(tiny(), 4)
    engine.step(0, batches(pictures(0)))
    state = engine.state({"step": 1})
    state.optimizer[address] = torch.zeros(3)
    expected = "the checkpoint does not fit the recipe: .*; another version of vgx or of a plugin"
    with pytest.raises(StorageError, match=expected):
        other.restore(state)


@pytest.mark.parametrize("lost", ["model", "optimizer", "latents"])
def test_a_state_without_a_piece_is_refused_or_shows(lost):
    """The negative control of the test above: nothing in a state is there for nothing."""
    engine = Engine(tiny(), 4, codes=20)
    engine.step(0, batches(pictures(0)))
    state = engine.state({"step": 1})
    other = Engine(tiny(), 4, codes=20)
    getattr(state, lost).popitem()
    engine.step(1, batches(pictures(1)))
    try:
        other.restore(state)
        other.step(1, batches(pictures(1)))
    except (StorageError, KeyError):
        return
    one, two = copied(engine), copied(other)
    assert not all(torch.equal(one[name], two[name]) for name in one)


def test_bf16_runs_the_networks_low_and_the_losses_high():
    engine = Engine(tiny({"train.precision": "bf16"}), 1)
    seen = {}
    engine.networks["decoder"][1].register_forward_hook(
        lambda module, inputs, output: seen.update(dtype=output.dtype)
    )
    step = forward(engine, 0, pictures(0))
    assert seen["dtype"] == torch.bfloat16
    assert step.recon.dtype == step.recon_logits.dtype == torch.float32
    assert step.real_score.logits.dtype == step.posterior.mu.dtype == torch.float32
    values = engine.step(0, batches(pictures(0)))
    assert all(value.dtype == torch.float32 and value.isfinite() for value in values.values())
