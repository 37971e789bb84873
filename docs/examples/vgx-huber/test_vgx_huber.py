from dataclasses import fields
from pathlib import Path

import pytest
import torch
import vgx
from vgx_huber import Huber


def step(**given):
    """Return a step in which everything but the given is absent."""
    absent = dict.fromkeys(field.name for field in fields(vgx.Step))
    return vgx.Step(**{**absent, "number": 0, "progress": 0.0, **given})


@pytest.mark.parametrize(("error", "loss"), [(0.1, 0.005), (3.0, 2.5)])
def test_it_is_a_parabola_near_zero_and_a_line_far_away(error, loss):
    real = torch.zeros(2, 3, 4, 4)
    value = Huber(delta=1.0).generator(step(real=real, recon=real + error))
    assert value.shape == ()
    assert value.item() == pytest.approx(loss)


def test_its_gradient_reaches_the_reconstruction():
    recon = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    Huber().generator(step(real=torch.zeros(2, 3, 4, 4), recon=recon)).backward()
    assert (recon.grad > 0).all()


def test_a_recipe_can_name_it_once_it_is_installed():
    recipe = vgx.load_recipe(Path(__file__).with_name("recipe.yaml"))
    assert recipe.losses[0].delta == 0.1
