"""A step is what the recipe gives: what it lacks is an error that says so."""

from __future__ import annotations

import pytest
import torch

import vgx
from vgx import rng

REAL = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
NEEDS = {
    "posterior": "an encoder",
    "recon": "an encoder",
    "recon_logits": "an encoder",
    "prior": "'prior' in train.fakes",
    "real_score": "a discriminator",
    "fake_score": "a discriminator",
    "discriminator": "a discriminator",
}


def step(**given):
    return vgx.Step(number=3, progress=0.5, real=REAL, z=torch.zeros(2, 5), **given)


@pytest.mark.parametrize(("name", "needs"), NEEDS.items())
def test_what_the_recipe_lacks_raises_and_says_what_it_needs(name, needs):
    assert not step().has(name)
    with pytest.raises(vgx.AbsentError) as absent:
        getattr(step(), name)
    assert str(absent.value) == f"step.{name} is absent: the recipe needs {needs}"
    assert (absent.value.name, absent.value.needs) == (name, needs)
    assert absent.value.exit_code == 2
    given = step(**{name: REAL})
    assert given.has(name)
    assert getattr(given, name) is REAL


def test_a_copy_has_other_values_and_lacks_the_same():
    recon = step(recon=REAL + 1)
    copy = recon.but(number=9, recon=REAL)
    assert (copy.number, copy.progress) == (9, 0.5)
    assert copy.recon is REAL
    assert not copy.has("prior")
    assert recon.number == 3


def test_no_field_of_a_step_can_be_assigned():
    with pytest.raises(AttributeError):
        step().number = 4


def test_the_fake_images_are_those_that_the_recipe_names_in_its_order():
    recon, prior = REAL + 1, REAL + 2
    assert step(recon=recon).fake is recon
    assert step(prior=prior, fakes=("prior",)).fake is prior
    both = step(recon=recon, prior=prior, fakes=("prior", "recon"))
    assert torch.equal(both.fake, torch.cat([prior, recon]))
    with pytest.raises(vgx.AbsentError, match="step.recon is absent"):
        _ = step(prior=prior).fake


def test_the_old_name_of_the_generators_works_with_a_warning():
    keyed = step(rng=rng.Streams(0, (3,)))
    with pytest.warns(DeprecationWarning, match="step.chance is step.rng now"):
        old = keyed.chance("noise")
    assert old.initial_seed() == keyed.rng("noise").initial_seed() == rng.key(0, "noise", 3)
