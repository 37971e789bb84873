from dataclasses import replace
from pathlib import Path

import pytest
import torch
import vgx
from vgx.testing import check_part, full_step
from vgx_huber import Huber


def test_it_keeps_the_contract_of_a_loss():
    check_part(Huber(delta=0.5))


@pytest.mark.parametrize(("error", "loss"), [(0.1, 0.005), (3.0, 2.5)])
def test_it_is_quadratic_for_small_errors_and_linear_for_large_ones(error, loss):
    real = torch.zeros(2, 3, 4, 4)
    step = replace(full_step(), real=real, recon=real + error)
    assert Huber(delta=1.0).generator(step).item() == pytest.approx(loss)


def test_a_recipe_can_name_it_after_installation():
    recipe = vgx.load_recipe(Path(__file__).with_name("recipe.yaml"))
    assert recipe.losses[0].delta == 0.1
