"""StyleGAN2's parts against the authors' formulas, typed anew with loops and scipy."""

from __future__ import annotations

import copy
import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.signal import convolve2d, correlate2d
from torch import nn

import vgx
from vgx import rng
from vgx.cli import run_program
from vgx.console import Console
from vgx.data.batches import Batch
from vgx.engine.engine import Engine
from vgx.images import as_pixels
from vgx.recipe.lengths import with_length
from vgx.testing import full_step, small_model
from vgx.training import session as training
from vgx_builtin.decoders.style import StyleDecoder
from vgx_builtin.discriminators.style import StyleDiscriminator
from vgx_builtin.discriminators.style_network import MinibatchDeviation
from vgx_builtin.losses.path_length import PathLength
from vgx_builtin.losses.path_length_term import path_lengths
from vgx_builtin.metrics.path_length import PathLength as PathLengthMetric
from vgx_builtin.samplers.style_truncation import StyleTruncation
from vgx_builtin.style_layers import Blur, ModulatedConv

WIDE = torch.float64
KERNEL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


# --- the authors' formulas, for one image [F, h, w] in numpy --------------------------------------


def spread(x):
    """Zeros between the places: [h, w] -> [2h, 2w]."""
    out = np.zeros((2 * x.shape[0], 2 * x.shape[1]))
    out[::2, ::2] = x
    return out


def upfirdn(x, *, up=False, before, after, gain=1.0, step=1):
    """The authors' upfirdn2d of [h, w]: zeros between, padding, blur, every `step`-th place."""
    x = np.pad(spread(x) if up else x, (before, after))
    return convolve2d(x, KERNEL * gain, mode="valid")[::step, ::step]


def convolved(x, weight, bias=None, *, up=False, down=False):
    """The authors' conv2d_resample of [F, h, w] with [G, F, k, k]; a doubling one flips weights."""
    pad = weight.shape[2] // 2
    out = []
    for row in weight:
        total = 0
        for channel, kernel in zip(x, row, strict=True):
            if up:
                wide = upfirdn(channel, up=True, before=pad + 2, after=pad + 1, gain=4)
                total = total + convolve2d(wide, kernel, mode="valid")
            elif down:
                blurred = upfirdn(channel, before=pad + 1, after=pad + 1)
                total = total + correlate2d(blurred, kernel, mode="valid")[::2, ::2]
            else:
                total = total + correlate2d(np.pad(channel, pad), kernel, mode="valid")
        out.append(total)
    out = np.stack(out)
    return out if bias is None else out + bias[:, None, None]


def leaky(x):
    return np.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def linear(x, weight, bias, rate=1.0):
    return weight @ x * rate / math.sqrt(len(x)) + bias * rate


def modulated(x, style, conv, *, demodulate=True, up=False):
    """Modulate the weights of one image, demodulate them, and convolve it by itself."""
    s = linear(style, conv["style.weight"], conv["style.bias"])
    weight = conv["weight"] / math.sqrt(conv["weight"][0].size)
    weight = weight * s[None, :, None, None]
    if demodulate:
        norms = [1 / math.sqrt((kernel**2).sum() + 1e-8) for kernel in weight]
        weight = weight * np.array(norms)[:, None, None, None]
    return convolved(x, weight, conv["bias"], up=up)


def below(state, name):
    return {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(name)}


def arrays(network):
    return {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}


def drawn(part, *shapes, seed=0):
    """A network in float64, all of whose weights are random."""
    with rng.ambient(seed, "style"):
        network = part.build(*shapes).to(WIDE)
        for parameter in network.parameters():
            nn.init.normal_(parameter)
    return network


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=WIDE)


# --- resampling and modulation --------------------------------------------------------------------


def test_the_blur_is_that_of_upfirdn():
    blur, x = Blur().to(WIDE), normal(2, 3, 6, 8)
    doubled, halved = blur.doubled(x), blur(x, padding=1, stride=2)
    for image in range(2):
        for channel in range(3):
            plane = x[image, channel].numpy()
            wanted = upfirdn(plane, up=True, before=2, after=1, gain=4)
            np.testing.assert_allclose(doubled[image, channel], wanted, atol=1e-12)
            wanted = upfirdn(plane, before=1, after=1, step=2)
            np.testing.assert_allclose(halved[image, channel], wanted, atol=1e-12)


@pytest.mark.parametrize(("demodulate", "up"), [(True, False), (True, True), (False, False)])
def test_a_modulated_convolution_has_weights_of_its_own_for_each_image(demodulate, up):
    torch.manual_seed(0)
    conv = ModulatedConv(3, 4, 3, 5, demodulate=demodulate, double=up).to(WIDE)
    nn.init.normal_(conv.bias)
    x, w = normal(2, 3, 4, 6), normal(2, 5, seed=1)
    given = conv(x, w).detach()
    for image in range(2):
        wanted = modulated(
            x[image].numpy(), w[image].numpy(), arrays(conv), demodulate=demodulate, up=up
        )
        np.testing.assert_allclose(given[image], wanted, atol=1e-12)


# --- the decoder ----------------------------------------------------------------------------------

TINY = StyleDecoder(widths=(3, 4, 2), styles=5, mapping=2, mixing=0.5, decay=0.75)
SHAPES = vgx.LatentSpec((6,)), vgx.ImageSpec((8, 16), channels=3)


def skip_generator(state, w):
    """The colours that the authors' generator gives for the styles [6, 5] of its layers."""
    x, colours = state["start"][0], 0
    for layer in range(5):
        own = below(state, f"convolutions.{layer}")
        x = modulated(x, w[layer], below(own, "conv"), up=layer in (1, 3))
        x = leaky(x + own["strength"] * own["noise"])
        if layer % 2 == 0:
            if layer:
                up = {"up": True, "before": 2, "after": 1, "gain": 4}
                colours = np.stack([upfirdn(plane, **up) for plane in colours])
            conv = below(state, f"colours.{layer // 2}")
            colours = colours + modulated(x, w[layer + 1], conv, demodulate=False)
    return colours


def test_the_decoder_is_the_authors_generator_with_skips():
    network = drawn(TINY, *SHAPES).eval()
    state, z = arrays(network), normal(2, 6)
    assert network(z).shape == (2, 3, 8, 16)
    for image, latent in enumerate(z.numpy()):
        w = latent / math.sqrt((latent**2).mean() + 1e-8)
        for layer in (0, 2):
            weight, bias = state[f"mapping.{layer}.weight"], state[f"mapping.{layer}.bias"]
            w = leaky(linear(w, weight, bias, rate=0.01))
        wanted = skip_generator(state, [w] * 6)
        np.testing.assert_allclose(network(z)[image].detach(), wanted, atol=1e-10)
    mixed = normal(1, 6, 5, seed=1)  # another style for each layer
    wanted = skip_generator(state, mixed[0].numpy())
    np.testing.assert_allclose(network.decode_mapped(mixed)[0].detach(), wanted, atol=1e-10)


def test_new_weights_are_equalised_and_noise_begins_at_nothing():
    """Of N(0, 1) whatever their number, those of the mapping network of N(0, 100^2)."""
    torch.manual_seed(0)
    network = StyleDecoder(widths=(64, 32), styles=64).build(
        vgx.LatentSpec((64,)), vgx.ImageSpec(16)
    )
    for name, parameter in network.named_parameters():
        if name.startswith("mapping") and name.endswith("weight"):
            assert parameter.std().item() == pytest.approx(100, rel=0.05)
        elif name.endswith(("weight", "start")):
            assert parameter.std().item() == pytest.approx(1, rel=0.2)
        else:
            assert set(parameter.flatten().tolist()) == {float(name.endswith("style.bias"))}
    z = torch.randn(64, 64)
    assert network.map(z).var().item() == pytest.approx(1, rel=0.3)


def test_styles_are_mixed_from_a_random_layer_on_for_each_image():
    network = drawn(TINY, *SHAPES).train()
    assert network.layers == 6
    z = normal(1, 6).expand(4000, -1)
    with rng.ambient(0, "mixing"):
        w = network.map(z).detach()  # [4000, 6, 5]
    own = network.eval().map(z[:1]).detach()[:, :1]  # [1, 1, 5]
    same = (w == own).all(2)  # [4000, 6]
    assert same[:, 0].all()
    lengths = same.sum(1)
    assert (same == (torch.arange(6) < lengths[:, None])).all()  # a beginning, and then the other
    shares = torch.bincount(lengths, minlength=7)[1:] / 4000
    assert (shares - torch.tensor([0.1] * 5 + [0.5])).abs().max() < 0.025
    others = w[lengths == 1, 1:]
    assert (others == others[:, :1]).all()  # one other style for all layers after
    assert len(others.unique(dim=0)) == len(others)  # and another one for each image
    assert (network.map(z) == own).all()  # none in evaluation


def test_noise_is_drawn_for_each_image_in_training_and_constant_in_evaluation():
    network = drawn(TINY.model_copy(update={"mixing": 0.0}), *SHAPES).train()
    z = normal(1, 6).expand(2, -1)
    with rng.ambient(3, "noise"):
        first = network(z)
    with rng.ambient(3, "noise"):
        assert torch.equal(network(z), first)
    assert not torch.allclose(first[0], first[1])
    with rng.ambient(4, "noise"):
        assert not torch.allclose(network(z), first)
    with torch.no_grad():
        for layer in network.convolutions:
            layer.strength.zero_()
    with rng.ambient(3, "noise"):
        plain = network(z)
    assert torch.allclose(plain, network.eval()(z))
    without = drawn(TINY.model_copy(update={"mixing": 0.0, "noise": False}), *SHAPES).train()
    state = network.state_dict()
    noisy = {name for name in state if name.endswith(("strength", "noise"))}
    without.load_state_dict({name: state[name] for name in state if name not in noisy})
    assert torch.equal(without(z), plain)


def test_the_mean_of_w_is_plain_at_first_and_then_exponential():
    network = drawn(TINY, *SHAPES).train()
    wanted, z = torch.zeros(5, dtype=WIDE), [normal(8, 6, seed=n) for n in range(6)]
    for number, latents in enumerate(z):
        network.map(latents)
        mean = network._styles(latents).detach().mean(0)
        share = max(1 / (number + 1), 0.25)
        wanted = (1 - share) * wanted + share * mean
    assert torch.allclose(network.w_mean, wanted, atol=1e-12)
    kept = network.w_mean.clone()
    network.eval()(z[0])
    assert torch.equal(network.w_mean, kept)
    assert torch.equal(network.state_dict()["w_mean"], kept)


def test_second_derivatives_are_right():
    """Of images by latents and by styles, in training mode, and for both memory layouts."""
    part = StyleDecoder(widths=(1, 2), styles=2, mapping=1, mixing=0.5)
    network = drawn(part, vgx.LatentSpec((2,)), vgx.ImageSpec(2, channels=1)).train()

    def images(z):
        with rng.ambient(0, "second"):
            return network(z).tanh()

    assert torch.autograd.gradgradcheck(images, [normal(2, 2).requires_grad_()])
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    gradients = []
    for each in (network, other):
        w = normal(2, 4, 2).requires_grad_()
        with rng.ambient(0, "second"):
            lengths = path_lengths(each.decode_mapped(w), w, torch.ones(2, 1, 2, 2))
        gradients.append(torch.autograd.grad(lengths.sum(), list(each.convolutions.parameters())))
    for one, two in zip(*gradients, strict=True):
        assert torch.allclose(one, two, atol=1e-12)


def test_sizes_and_latents_that_do_not_fit_are_refused():
    with pytest.raises(vgx.RecipeError, match="24 pixels can't be halved 4 times; try image.size="):
        StyleDecoder().build(vgx.LatentSpec((8,)), vgx.ImageSpec(24))
    with pytest.raises(vgx.RecipeError, match="decoder style wants one number, not the shape"):
        StyleDecoder().build(vgx.LatentSpec((8, 2, 2)), vgx.ImageSpec(64))
    with pytest.raises(vgx.RecipeError, match="discriminator style: 24 pixels can't be halved"):
        StyleDiscriminator().build(vgx.ImageSpec(24), vgx.LatentSpec((8,)))


# --- the discriminator ----------------------------------------------------------------------------


def deviation(x, group):
    """The authors' minibatch deviation of [B, F, h, w], in loops; group i mod (B / N)."""
    n = max(n for n in range(1, group + 1) if len(x) % n == 0)
    count, planes = len(x) // n, []
    for image in range(len(x)):
        own = [x[i] for i in range(len(x)) if i % count == image % count]
        mean = sum(own) / n
        variance = sum((each - mean) ** 2 for each in own) / n
        planes.append(np.full((1, *x.shape[2:]), np.sqrt(variance + 1e-8).mean()))
    return np.concatenate([x, np.stack(planes)], 1)


@pytest.mark.parametrize(("images", "group"), [(8, 4), (6, 4), (5, 4), (3, 3), (4, 1)])
def test_the_minibatch_deviation_is_that_of_groups(images, group):
    x = normal(images, 2, 3, 4)
    given = MinibatchDeviation(group)(x)
    np.testing.assert_allclose(given, deviation(x.numpy(), group), atol=1e-6)


def test_the_discriminator_is_the_authors_residual_one():
    part = StyleDiscriminator(widths=(2, 3, 4), group=2)
    network = drawn(part, vgx.ImageSpec((8, 16), channels=3), vgx.LatentSpec((6,)))
    state, images = arrays(network), normal(4, 3, 8, 16).sigmoid()

    def conv(x, name, **how):
        weight = state[f"{name}.weight"]
        return convolved(x, weight / math.sqrt(weight[0].size), state.get(f"{name}.bias"), **how)

    maps, features = [], []
    for image in images.numpy():
        x = leaky(conv(2 * image - 1, "stages.0.0"))
        own = [x]
        for stage in (1, 2):
            body = leaky(conv(x, f"stages.{stage}.body.0"))
            body = leaky(conv(body, f"stages.{stage}.body.2", down=True))
            x = np.stack([upfirdn(plane, before=1, after=1, step=2) for plane in x])
            x = (conv(x, f"stages.{stage}.shortcut") + body) / math.sqrt(2)
            own.append(x)
        maps.append(x)
        features.append(own)
    score = network(images)
    for image, x in enumerate(deviation(np.stack(maps), 2)):
        flat = leaky(conv(x, "head.1")).reshape(-1)
        flat = leaky(linear(flat, state["head.4.weight"], state["head.4.bias"]))
        logit = linear(flat, state["head.6.weight"], state["head.6.bias"])
        np.testing.assert_allclose(score.logits[image].detach(), logit, rtol=1e-6)
        for given, wanted in zip(score.features, features[image], strict=True):
            np.testing.assert_allclose(given[image].detach(), wanted, atol=1e-10)


def test_a_penalty_of_slopes_is_the_same_in_both_memory_layouts():
    part = StyleDiscriminator(widths=(2, 3), group=2)
    network = drawn(part, vgx.ImageSpec(4, channels=3), vgx.LatentSpec((6,)))
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    gradients = []
    for each in (network, other):
        x = normal(4, 3, 4, 4).sigmoid().requires_grad_()
        (slopes,) = torch.autograd.grad(each(x).logits.sum(), x, create_graph=True)
        gradients.append(
            torch.autograd.grad(
                slopes.square().sum(), [p for p in each.parameters() if p.dim() > 1]
            )
        )
    for one, two in zip(*gradients, strict=True):
        assert one.abs().max() > 0
        assert torch.allclose(one, two, rtol=1e-5, atol=1e-8)


# --- the path length ------------------------------------------------------------------------------


class Linear:
    """Images A w of one pixel value per row of A; w has layers, whose sum is decoded."""

    def __init__(self, matrix, layers=0):
        self.matrix, self.layers = matrix, layers

    def map(self, z, labels=None):
        w = z if not self.layers else z[:, None].expand(-1, self.layers, -1)
        return w * torch.ones((), dtype=WIDE, requires_grad=True)

    def decode_mapped(self, w):
        w = w.sum(1) if self.layers else w
        return (w @ self.matrix.T).view(len(w), 1, 2, 2)


@pytest.mark.parametrize("layers", [0, 3])
def test_the_path_length_of_a_linear_decoder_is_known(layers):
    """J is 2 A, as pixels are those of [-1, 1]; its gradient by A is worked out by hand."""
    matrix = normal(4, 3).requires_grad_()
    decoder, latent = Linear(matrix, layers), vgx.LatentSpec((3,))
    step = full_step(vgx.ImageSpec(2, channels=1), latent).but(
        map=decoder.map, decode_mapped=decoder.decode_mapped, prior_z=normal(8, 3)
    )
    term = PathLength(decay=0.75).build(vgx.ImageSpec(2), latent).to(WIDE)
    average = 0.0
    for _ in range(2):
        value = term.generator(step)
        (given,) = torch.autograd.grad(value, matrix)
        draws = step.rng("path-length")
        torch.empty(4, 3, dtype=WIDE).normal_(generator=draws)  # half of the latents
        y = torch.empty(4, 1, 2, 2, dtype=WIDE).normal_(generator=draws).view(4, 4).numpy() / 2
        a = matrix.detach().numpy()
        slopes = 2 * y @ a  # [4, 3], the same in each layer, whose squares are averaged
        lengths = np.sqrt((slopes**2).sum(1))
        average = 0.75 * average + 0.25 * lengths.mean()
        assert value.item() == pytest.approx(((lengths - average) ** 2).mean(), rel=1e-9)
        # d/dA of |2 A^T y| is 2 y (2 A^T y)^T / |2 A^T y|.
        each = 2 * y[:, :, None] * slopes[:, None, :] / lengths[:, None, None]  # [4, 4, 3]
        wanted = (2 * (lengths - average)[:, None, None] * each).mean(0)
        np.testing.assert_allclose(given, wanted, rtol=1e-6)
    assert term.state_dict()["average"].item() == pytest.approx(average)


def test_the_path_length_of_one_image_is_that_of_one_latent():
    """Half of a minibatch of 1 is no latent, and the mean of no lengths is not finite."""
    decoder, latent = Linear(normal(4, 3), 0), vgx.LatentSpec((3,))
    step = full_step(vgx.ImageSpec(2, channels=1), latent).but(
        map=decoder.map, decode_mapped=decoder.decode_mapped, prior_z=normal(1, 3)
    )
    value = PathLength(shrink=2).build(vgx.ImageSpec(2), latent).to(WIDE).generator(step)
    assert value.isfinite()


def test_a_decoder_without_a_mapping_network_has_no_path_length():
    step = full_step().but(map=None, decode_mapped=None)
    with pytest.raises(vgx.AbsentError, match="the recipe needs a decoder with a mapping network"):
        PathLength().build(vgx.ImageSpec(16), vgx.LatentSpec((8,))).generator(step)


# --- truncation -----------------------------------------------------------------------------------


class Doubling(nn.Module):
    """A decoder with a mapping by hand: w = 2 z, in layers or not; logits are those of w's sum."""

    def __init__(self, layers=0):
        super().__init__()
        self.layers, self.w_mean = layers, torch.tensor([1.0, -2.0])

    def map(self, z, labels=None):
        return 2 * z[:, None].expand(-1, self.layers, -1) if self.layers else 2 * z

    def decode_mapped(self, w):
        return w.flatten(1).sum(1)[:, None, None, None].expand(-1, 3, 16, 16)


def logits(network, z, **fields):
    sampler = StyleTruncation(**fields).build(vgx.LatentSpec((2,)))
    model = small_model(latent=vgx.LatentSpec((2,)))
    sampler.use(dataclasses.replace(model, decoder=network))
    return sampler.decode(z, None).logit()[:, 0, 0, 0]


def test_w_is_moved_towards_its_mean():
    z = torch.tensor([[0.5, 0.25], [-1.0, 0.5]])  # w is [1, 0.5] and [-2, 1], of sums 1.5 and -1
    for psi, wanted in ((1.0, [1.5, -1.0]), (0.0, [-1.0, -1.0]), (0.5, [0.25, -1.0])):
        given = logits(Doubling(), z, psi=psi)
        torch.testing.assert_close(given, torch.tensor(wanted))
    given = logits(Doubling(3), z, psi=0.0, cutoff=2)  # two layers of three are the mean
    torch.testing.assert_close(given, torch.tensor([-2 + 1.5, -2 - 1.0]))
    with pytest.raises(vgx.RecipeError, match="cutoff: the decoder's w has no layers; leave it"):
        logits(Doubling(), z, cutoff=1)
    without = Doubling()
    del without.w_mean
    with pytest.raises(vgx.RecipeError, match="decoder testing has no buffer `w_mean`; write"):
        logits(without, z)
    with pytest.raises(vgx.RecipeError, match="no mapping network; write 'sampler: prior', or"):
        logits(nn.Identity(), z)


LABELLED = {
    "image": {"size": 8, "classes": 3},
    "latent": 4,
    "dataset": {"type": "drawn-faces", "count": 8, "label": "accessory"},
    "decoder": {
        "type": "labelled",
        "inner": {"type": "style", "widths": [4, 4], "styles": 5, "mapping": 1, "mixing": 0},
        "embedding": 2,
    },
    "discriminator": {"type": "projection", "inner": {"type": "style", "widths": [4, 4]}},
    "sampler": "style-truncation",
    "train.batch": 8,
}


def test_with_labels_w_has_the_label():
    """Around `style`: w is the mapping of z and the label's vector, and the mean w has no label."""
    recipe = vgx.load_recipe("stylegan2_ada", LABELLED)
    with rng.ambient(0, "weights"):
        network = recipe.decoder.build(recipe.latent, recipe.image).eval()
    assert isinstance(network, vgx.Mapped)
    network.inner.w_mean.fill_(0.3)
    z, labels = torch.randn(3, 4, generator=rng.generator(0, "test")), torch.tensor([2, 0, 2])
    both = torch.cat([z, network.embedding.weight[labels]], 1)  # [3, 6]
    linear = both / both.square().mean(1, keepdim=True).sqrt() @ network.inner.mapping[0].weight.T
    wanted = math.sqrt(2) * nn.functional.leaky_relu(0.01 / math.sqrt(6) * linear, 0.2)
    torch.testing.assert_close(network.map(z, labels)[:, 0], wanted)
    model = dataclasses.replace(small_model(latent=recipe.latent), recipe=recipe, decoder=network)
    images = network(z, labels).sigmoid()
    for psi in (1, 0):
        sampler = StyleTruncation(psi=psi).build(recipe.latent)
        sampler.use(model)
        drawn = sampler.decode(z, labels)
        torch.testing.assert_close(drawn, images if psi else drawn[:1].expand_as(drawn))
    metric = PathLengthMetric(between="mapped").build(recipe.image)
    metric.use(model)
    metric.update(images, torch.rand(3, 3, 8, 8), labels)
    assert metric.compute()["path-length"] > 0


def test_with_labels_styles_are_not_mixed():
    recipe = vgx.load_recipe("stylegan2_ada", LABELLED | {"decoder.inner.mixing": 0.9})
    with pytest.raises(vgx.RecipeError, match="inner: mixed styles would .*; write 'mixing: 0'"):
        recipe.decoder.build(recipe.latent, recipe.image)


def test_a_decoder_with_labels_and_a_mapping_network_trains():
    recipe = with_length(vgx.load_recipe("stylegan2_ada", LABELLED), 100)
    engine = Engine(recipe, 100)
    batch = Batch(torch.rand(8, 3, 8, 8), torch.arange(8) % 3)
    terms = engine.step(16, [batch] * recipe.batches_per_step)  # R1 and path length count too
    assert {"path-length", "r1"} <= terms.keys()
    assert all(value.isfinite() for value in terms.values())
    assert engine.networks["decoder"].w_mean.any()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps of the recipe with tiny networks; its grids show the mean image again and again."""
    changes = {
        "image.size": 16,
        "latent": 8,
        "dataset": {"type": "drawn-faces", "count": 16},
        "decoder": {"type": "style", "widths": [8, 4, 4], "styles": 8, "mapping": 2},
        "discriminator": {"type": "style", "widths": [4, 4, 8]},
        "sampler.psi": 0,
        "train.steps": 2,
        "train.batch": 8,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VGX_RUNS", str(tmp_path_factory.mktemp("runs")))
        patch.setenv("VGX_CACHE", str(tmp_path_factory.mktemp("cache")))
        quiet = Console(file=io.StringIO())
        yield training.run(vgx.load_recipe("stylegan2_ada", changes), console=quiet)


@pytest.mark.slow
def test_truncation_is_seen_wherever_images_are_drawn(run, tmp_path):
    """In Python, in the grids of the training and after it; psi 1 is N(0, I) as it is."""
    model = vgx.load(run)
    mean = model.decoder.decode_mapped(model.decoder.w_mean.expand(1, 6, -1)).sigmoid()
    torch.testing.assert_close(vgx.sample(run, n=3), mean.expand(3, -1, -1, -1))
    plain = vgx.sample(run, "style-truncation", n=3, settings={"psi": 1})
    torch.testing.assert_close(plain, vgx.sample(run, "prior", n=3))
    assert plain.std(0).max() > 1e-3
    wanted = as_pixels(mean)[0].astype(int)
    grid = np.asarray(Image.open(run.samples / "step-00000002.png")).astype(int)
    cells = grid[2:18, 2:18], grid[2:18, 20:36]
    folder = tmp_path / "single"
    assert run_program(["sample", str(run.path), "-n", "2", "--separate", str(folder)]) == 0
    files = sorted(folder.glob("*.png"))
    assert len(files) == 2
    for image in (*cells, *(np.asarray(Image.open(file)).astype(int) for file in files)):
        assert np.abs(image - wanted).max() <= 1
