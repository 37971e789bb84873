"""BigGAN's parts beside the authors' program, typed anew here as functions of the weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

import vgx
from vgx.engine.averages import new_statistics, statistics_layers
from vgx.errors import RecipeError
from vgx.testing import check_part, full_step

IMAGE, LATENT = vgx.ImageSpec((8, 16), classes=3), vgx.LatentSpec((11,))
WIDE = torch.float64


def part(kind, name, **fields):
    return vgx.discover().part(kind, name)(**fields)


def decoder(**fields):
    made = part("decoder", "biggan", widths=(12, 8, 16), embedding=5, **fields)
    return made.build(LATENT, IMAGE).to(WIDE)


def discriminator(**fields):
    made = part("discriminator", "biggan", widths=(8, 16), **fields)
    return made.build(IMAGE, LATENT).to(WIDE)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def scattered(network):
    """Give all parameters other values, so that none is 0 or orthogonal, and return them."""
    with torch.no_grad():
        for each in network.parameters():
            each.normal_(std=0.2)
    return dict(network.named_parameters())


# --- the authors' program ------------------------------------------------------------------------


def conv(weights, name, x, padding=1):
    return F.conv2d(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"), padding=padding)


def normalised(x):
    """In training: over the batch and all places, channel by channel."""
    channels = [
        (x[:, c] - x[:, c].mean()) / (x[:, c].var(correction=0) + 1e-5).sqrt()
        for c in range(x.shape[1])
    ]
    return torch.stack(channels, 1)


def ccbn(weights, name, x, y):
    gain = 1 + y @ weights[f"{name}.gain.weight"].T
    bias = y @ weights[f"{name}.bias.weight"].T
    return normalised(x) * gain.view(*gain.shape, 1, 1) + bias.view(*bias.shape, 1, 1)


def upsampled(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def g_block(weights, name, x, y):
    h = upsampled(F.relu(ccbn(weights, f"{name}.norm1", x, y)))
    h = conv(weights, f"{name}.conv1", h)
    h = conv(weights, f"{name}.conv2", F.relu(ccbn(weights, f"{name}.norm2", h, y)))
    return h + conv(weights, f"{name}.shortcut", upsampled(x), 0)


def attention(weights, name, x):
    """Place by place, for each image."""
    query = conv(weights, f"{name}.query", x, 0)
    key = F.max_pool2d(conv(weights, f"{name}.key", x, 0), [2, 2])
    value = F.max_pool2d(conv(weights, f"{name}.value", x, 0), [2, 2])
    assert (query.shape[1], value.shape[1]) == (x.shape[1] // 8, x.shape[1] // 2)
    seen = torch.zeros(*value.shape[:2], *x.shape[2:], dtype=x.dtype)
    for b in range(x.shape[0]):
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                products = torch.einsum("c,chw->hw", query[b, :, i, j], key[b])
                shares = products.exp() / products.exp().sum()
                seen[b, :, i, j] = (value[b] * shares).sum((1, 2))
    return weights[f"{name}.factor"] * conv(weights, f"{name}.out", seen, 0) + x


def d_block(weights, name, x, *, first=False, halves=True):
    """As in the authors' program: the shortcut's convolution comes before the averages."""
    body = ("body.0", "body.2") if first else ("body.1", "body.3")
    h = conv(weights, f"{name}.{body[0]}", x if first else F.relu(x))
    h = conv(weights, f"{name}.{body[1]}", F.relu(h))
    if not halves:
        return h + x
    return F.avg_pool2d(h, 2) + F.avg_pool2d(conv(weights, f"{name}.shortcut.1", x, 0), 2)


def test_the_generator_is_that_of_the_authors_program():
    network = decoder(spectral=False, attention=4)
    weights = scattered(network)
    z, labels = torch.randn(3, 11, dtype=WIDE), torch.tensor([2, 0, 2])
    pieces = z[:, :4], z[:, 4:8], z[:, 8:]  # 11 numbers in 3 pieces
    shared = weights["embedding.weight"][labels]
    h = pieces[0] @ weights["first.0.weight"].T + weights["first.0.bias"]
    h = h.view(3, 12, 2, 4)
    h = g_block(weights, "blocks.0", h, torch.cat([shared, pieces[1]], 1))
    h = attention(weights, "attention.0", h)
    h = g_block(weights, "blocks.1", h, torch.cat([shared, pieces[2]], 1))
    gain, bias = (weights[f"last.0.{name}"].view(-1, 1, 1) for name in ("weight", "bias"))
    expected = conv(weights, "last.2", F.relu(normalised(h) * gain + bias))
    assert expected.shape == (3, 3, 8, 16)
    assert torch.allclose(network(z, labels), expected, atol=1e-9)


def test_the_discriminator_is_that_of_the_authors_program():
    network = discriminator(spectral=False, attention=2)
    weights = scattered(network)
    assert weights["inner.stages.1.0.body.1.weight"].shape[:2] == (16, 8)  # as wide as the second
    images, labels = torch.rand(3, 3, 8, 16, dtype=WIDE), torch.tensor([1, 2, 0])
    first = d_block(weights, "inner.stages.0", images * 2 - 1, first=True)
    second = attention(weights, "inner.stages.1.1", d_block(weights, "inner.stages.1.0", first))
    third = d_block(weights, "inner.stages.2", second, halves=False)
    h = F.relu(third).sum((2, 3))
    out = h @ weights["inner.head.2.weight"].T + weights["inner.head.2.bias"]
    expected = out + (weights["embedding.weight"][labels] * h).sum(1, keepdim=True)
    score = network(images, labels)
    assert torch.allclose(score.logits, expected, rtol=1e-9)
    for given, feature in zip(score.features, (first, second, third), strict=True):
        assert torch.allclose(given, feature, rtol=1e-9)


def matrices(network):
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
    return [(layer, layer.weight.flatten(1)) for layer in layers]


@pytest.mark.parametrize(("make", "layers"), [(decoder, 21), (discriminator, 14)])
def test_weights_start_orthogonal(make, layers):
    network = make(attention=4, spectral=False)
    found = matrices(network)
    assert len(found) == layers
    for layer, matrix in found:
        smaller = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
        assert torch.allclose(smaller, torch.eye(len(smaller), dtype=WIDE), atol=1e-5)
        assert getattr(layer, "bias", None) is None or not layer.bias.any()


@pytest.mark.parametrize("make", [decoder, discriminator])
def test_spectral_norm_is_of_every_layer_but_the_generators_vectors_for_labels(make):
    network = make(attention=4)
    scattered(network)
    for _ in range(100):  # of the power iteration
        matrices(network)
    network.eval()
    for layer, matrix in matrices(network):
        plain = make is decoder and isinstance(layer, nn.Embedding)
        assert parametrize.is_parametrized(layer) != plain
        largest = torch.linalg.svdvals(matrix)[0].item()
        assert plain == (largest != pytest.approx(1, abs=1e-3))


def test_statistics_are_taken_anew_and_truncated_latents_vary_less_than_they_say():
    """The first map is linear in the latent: a share of its variance is left, that of one number.

    Of a normal number within -t..t it is 1 - 2 t phi(t) / (2 Phi(t) - 1).
    """
    network = decoder()
    assert len(statistics_layers(network)) == 5  # two in each of two blocks, and the last one
    labels = torch.arange(2000) % 3
    with torch.no_grad(), new_statistics([network]):
        network(torch.randn(2000, 11, dtype=WIDE), labels)
    network.eval()
    maps = []
    network.blocks[0].norm1.norm.register_forward_hook(lambda *given: maps.append(given[2]))
    for threshold in (0.3, 1.0):
        sampler = part("sampler", "truncation", threshold=threshold).build(LATENT)
        z = sampler.draw(2000, torch.zeros(0, 11, dtype=WIDE), torch.Generator().manual_seed(0))
        network(z, labels)
        density = math.exp(-(threshold**2) / 2) / math.sqrt(2 * math.pi)
        left = 1 - 2 * threshold * density / math.erf(threshold / math.sqrt(2))
        assert maps.pop().var().item() == pytest.approx(left, rel=0.05)


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (decoder, {"attention": 2}, "biggan: attention: 2: .* maps is 4, 8; give one of these"),
        (discriminator, {"attention": 8}, "biggan: attention: 8: .* maps is 4, 2; give one"),
    ],
)
def test_attention_is_where_a_map_is(make, fields, message):
    with pytest.raises(RecipeError, match=message):
        make(**fields)


def test_what_does_not_fit_is_told():
    made = part("decoder", "biggan", widths=(4, 4, 4))
    with pytest.raises(RecipeError, match=r"biggan: 2: each of 3 widths wants a number of the la"):
        made.build(vgx.LatentSpec((2,)), IMAGE)
    for each, shapes in (
        (made, (LATENT, vgx.ImageSpec(16))),
        (part("discriminator", "biggan"), (vgx.ImageSpec(16), LATENT)),
    ):
        with pytest.raises(RecipeError, match="image.classes is 0, so there are no labels"):
            each.build(*shapes)


# --- orthogonal regularisation -------------------------------------------------------------------


def weights_of(network, **tensors):
    def parameters(name):
        assert name == network
        return tensors

    return full_step().but(parameters=parameters)


def by_loops(*weights):
    total = 0.0
    for weight in weights:
        rows = weight.reshape(len(weight), -1).tolist()
        for i, one in enumerate(rows):
            for j, other in enumerate(rows):
                product = sum(a * b for a, b in zip(one, other, strict=True))
                total += product**2 if i != j else 0
    return total


def test_orthogonal_regularisation_by_loops_and_its_gradient_by_hand():
    """4 (W W^T * (1 - I)) W, for more rows than columns and for fewer."""
    wide, high = torch.randn(3, 2, 2, 2, dtype=WIDE), torch.randn(6, 4, dtype=WIDE)
    skipped = torch.randn(6, 4, dtype=WIDE)
    for each in (wide, high, skipped):
        each.requires_grad_()
    step = weights_of(
        "decoder", wide=wide, high=high, bias=torch.randn(4, dtype=WIDE),
        **{"embedding.weight": skipped},
    )  # fmt: skip
    loss = part("loss", "orthogonal").build(IMAGE, LATENT)
    value = loss.generator(step)
    assert value.item() == pytest.approx(by_loops(wide, high), rel=1e-12)
    given = torch.autograd.grad(value, [wide, high, skipped], allow_unused=True)
    assert given[2] is None
    for weight, gradient in zip((wide, high), given, strict=False):
        rows = weight.detach().flatten(1)
        apart = 1 - torch.eye(len(rows), dtype=WIDE)
        expected = 4 * (rows @ rows.T * apart) @ rows
        assert torch.allclose(gradient.flatten(1), expected, rtol=0, atol=1e-10)
    loss = part("loss", "orthogonal", leave_out=("wide",)).build(IMAGE, LATENT)
    assert loss.generator(step).item() == pytest.approx(by_loops(high, skipped), rel=1e-12)
    loss = part("loss", "orthogonal", leave_out=("*",)).build(IMAGE, LATENT)
    with pytest.raises(RecipeError, match=r"leaves no weight of the decoder; it has wide, high, e"):
        loss.generator(step)


def test_orthogonal_regularisation_of_a_discriminator_is_a_term_of_its_player():
    made = part("loss", "orthogonal", network="discriminator")
    check_part(made)
    loss, weight = made.build(IMAGE, LATENT), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert not hasattr(loss, "generator")
    assert loss.discriminator(weights_of("discriminator", weight=weight)).item() == 2 * 11**2
