import pytest
import torch
import vgx
from vgx.testing import check_part, full_step
from vgx_began import Began, BeganDecoder, BeganDiscriminator

IMAGE, LATENT = vgx.ImageSpec(16), vgx.LatentSpec((4,))


@pytest.mark.parametrize("part", [BeganDecoder(width=4), BeganDiscriminator(width=4), Began()])
def test_each_part_keeps_the_contract_of_its_kind(part):
    check_part(part)
    check_part(part, image=vgx.ImageSpec((17, 20), channels=1))


def test_the_logit_is_minus_the_error_of_the_reconstruction():
    """A decoder that gives 0.5 everywhere: black and white pixels are 1.5 and 0.5 from it."""
    network = BeganDiscriminator(width=4, hidden=3).build(IMAGE, LATENT)
    last = network.decoder.layers[-1]
    last.weight.data.zero_()
    last.bias.data.fill_(0.5)
    images = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16), torch.zeros(3, 16, 16)])
    images[2, :, :4] = 1  # a quarter of the pixels
    assert network(images).logits.flatten().tolist() == pytest.approx([-1.5, -0.5, -1.25])


@pytest.mark.parametrize(
    ("size", "halvings", "smallest"),
    [(32, 2, (8, 8)), (33, 2, (9, 9)), ((20, 64), 1, (10, 32)), (8, 0, (8, 8))],
)
def test_the_smallest_maps_are_about_eight_pixels(size, halvings, smallest):
    image = vgx.ImageSpec(size)
    network = BeganDiscriminator(width=4).build(image, LATENT)
    strides = [layer.stride for layer in network.encoder if isinstance(layer, torch.nn.Conv2d)]
    assert strides.count((2, 2)) == halvings
    assert network.decoder.start == (4, *smallest)
    assert network.linear.in_features == (halvings + 1) * 4 * smallest[0] * smallest[1]


def scored(real, fake):
    """A step whose images are reconstructed with these errors."""
    scores = [vgx.Score(-torch.tensor(errors)[:, None]) for errors in (real, fake)]
    return full_step().but(real_score=scores[0], fake_score=scores[1])


def test_the_balance_follows_the_errors():
    """Worked out by hand: gamma 0.5, lambda 0.1, errors of 0.6 for real images."""
    loss = Began(diversity=0.5, rate=0.1).build(IMAGE, LATENT)
    easy, hard = scored([0.5, 0.7], [0.1, 0.1]), scored([0.6], [1.9, 2.1])
    assert loss.generator(easy).item() == pytest.approx(0.1)
    values, balances = [], []
    for step in (easy, easy, hard, hard):
        values.append(loss.discriminator(step).item())
        balances.append(loss.k.item())
    # k rises by 0.1 (0.3 - 0.1), and would fall by 0.1 (2 - 0.3): at 0 it ends.
    assert balances == pytest.approx([0.02, 0.04, 0.0, 0.0])
    # real - k fake, with the k before it moves
    assert values == pytest.approx([0.6, 0.598, 0.52, 0.6])
    # The measure of the last step: 0.6 + |0.5 x 0.6 - 2|.
    assert loss.figures() == pytest.approx({"k": 0.0, "measure": 2.3})
    assert set(loss.state_dict()) == {"k", "measure"}


def test_k_is_at_most_one():
    loss = Began(diversity=1, rate=10).build(IMAGE, LATENT)
    loss.discriminator(scored([0.6], [0.1]))
    assert loss.k.item() == 1


def test_the_gradients_of_both_players_are_those_of_the_errors():
    loss = Began(rate=0.1).build(IMAGE, LATENT)
    loss.k.fill_(0.25)
    real, fake = (torch.full((2, 1), -0.5, requires_grad=True) for _ in range(2))
    step = full_step().but(real_score=vgx.Score(real), fake_score=vgx.Score(fake))
    given = torch.autograd.grad(loss.discriminator(step), [real, fake])
    assert [g.flatten().tolist() for g in given] == [[-0.5, -0.5], [0.125, 0.125]]
