"""Evaluations beside each other: what is marked as better, and what is not."""

from __future__ import annotations

import pytest

from vgx_report.tables import side_by_side


def over_images(*groups, better="higher"):
    """A figure of reconstructions, as it is measured on equally large parts of the images."""
    mean = sum(groups) / len(groups)
    return {"mean": mean, "spread": 1.0, "values": [mean], "groups": [*groups], "better": better}


def figure(*values, better="lower"):
    mean = sum(values) / len(values)
    squares = sum((value - mean) ** 2 for value in values)
    spread = (squares / (len(values) - 1)) ** 0.5 if len(values) > 1 else 0.0
    return {"mean": mean, "spread": spread, "values": list(values), "better": better}


def said(fid=None, psnr=None, **changes):
    """What `vgx eval` writes, as far as it is read here."""
    generation = {"sampler": {"type": "prior"}, "pictures": 100, "real": 90, "split": "trained on"}
    found = {
        "format": 2,
        "data": {"content": "abc"},
        "metrics": [{"type": "frechet-distance", "bins": 1}, {"type": "psnr"}],
        "features": [{"part": {"type": "random-conv"}, "sha256": "1"}],
        "reconstruction": psnr and {"pictures": 10, "split": "held out", "figures": {"psnr": psnr}},
        "generation": [generation | {"figures": {"frechet-distance": fid}}] if fid else [],
        "latent": None,
    }
    return found | changes


def test_a_figure_is_named_with_the_features_of_all_runs():
    """Also where they differ, which is then no comparison."""
    one, two = (figure(9, 10, 11) | {"features": name} for name in ("random-conv", "timm resnet50"))
    names = [
        [row.name for row in side_by_side([said(a), said(b)])[0].rows]
        for a, b in ((one, one), (one, two), (one, figure(9, 10, 11)))
    ]
    assert names == [
        ["frechet-distance [random-conv] (less is better)"],
        ["frechet-distance [random-conv and timm resnet50] (less is better)"],
        ["frechet-distance [random-conv] (less is better)"],
    ]


def best(*evaluations):
    return [row.best for side in side_by_side(evaluations) for row in side.rows]


# Spread 1 each: the means must be further apart than 2.
@pytest.mark.parametrize(
    ("one", "two", "marked"),
    [
        ((9, 10, 11), (12.5, 13.5, 14.5), 0),
        ((12.5, 13.5, 14.5), (9, 10, 11), 1),
        ((9, 10, 11), (11, 12, 13), None),
        ((9, 10, 11), (9, 10, 11), None),
    ],
)
def test_only_what_exceeds_the_spread_is_better(one, two, marked):
    assert best(said(figure(*one)), said(figure(*two))) == [marked]


def test_more_is_better_where_more_is_better():
    found = (said(figure(*each, better="higher")) for each in [(9, 10, 11), (19, 20, 21)])
    assert best(*found) == [1]


def test_the_best_of_three_is_better_than_each():
    low, near, far = (9, 10, 11), (10, 11, 12), (30, 31, 32)
    assert best(*(said(figure(*each)) for each in (far, low, near))) == [None]
    assert best(*(said(figure(*each)) for each in (far, low, far))) == [1]


def test_a_figure_that_is_neither_good_nor_bad_is_not_marked():
    assert best(said(figure(1, 2, better=None)), said(figure(50, 51, better=None))) == [None]


def test_one_seed_knows_no_spread():
    assert best(said(figure(1)), said(figure(9, 9.1))) == [None]
    # Nor does a reconstruction that an earlier version measured, without parts of the images.
    recon = [said(psnr=figure(value, better="higher")) for value in (20.0, 21.0)]
    assert best(*recon) == [None]


def test_reconstructions_are_compared_on_the_same_images():
    """By hand: the parts differ by 0.4, 0.2 and 0.3; the standard error is 0.1 / sqrt(3) = 0.058.

    The spread over images is larger than the difference, since some images are harder than others.
    """
    one = said(psnr=over_images(18.0, 22.0, 26.0))
    assert best(one, said(psnr=over_images(18.4, 22.2, 26.3))) == [1]
    assert best(said(psnr=over_images(18.4, 22.2, 26.3)), one) == [0]
    # As large a difference, but on one part it is the other way: 0.8, -0.2, 0.3; the error 0.29.
    assert best(one, said(psnr=over_images(18.8, 21.8, 26.3))) == [None]
    # Twice the error is 0.58: a mean difference of 0.6 is more.
    assert best(one, said(psnr=over_images(19.1, 22.1, 26.6))) == [1]
    assert best(one, one) == [None]
    assert best(one, said(psnr=figure(30.0, better="higher"))) == [None]


def test_a_run_that_lacks_a_figure_has_an_empty_cell():
    sides = side_by_side([said(figure(9, 10, 11)), {}, said(figure(1, 2, 3))])
    assert [(side.title, side.warning) for side in sides] == [("samples of prior", "")]
    row = sides[0].rows[0]
    assert row.name == "frechet-distance (less is better)"
    assert row.cells == ["10 ± 1", "-", "2 ± 1"]
    assert row.best == 2
    assert best(said(figure(1, 2, 3)), {}) == [None]  # nobody to be better than
    assert side_by_side([{}, {}]) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"format": 1}, "versions of vgx eval"),
        ({"data": {"content": "other"}}, "images"),
        ({"metrics": [{"type": "frechet-distance", "bins": 2}]}, "metrics"),
        ({"features": [{"part": {"type": "random-conv"}, "sha256": "2"}]}, "feature networks"),
    ],
)
def test_what_is_measured_in_two_ways_is_not_marked(changes, what):
    sides = side_by_side([said(figure(1, 2, 3)), said(figure(50, 51, 52), **changes)])
    assert [row.best for row in sides[0].rows] == [None]
    assert sides[0].warning == f"Not measured alike, so none is marked: the {what} differ."


def test_a_metric_that_only_one_was_judged_by_sets_nothing_apart():
    fewer = said(figure(50, 51, 52), metrics=[{"type": "frechet-distance", "bins": 1}])
    assert best(said(figure(1, 2, 3)), fewer) == [0]


def test_fewer_pictures_are_another_way():
    few = said(figure(50, 51, 52))
    few["generation"][0]["pictures"] = 7
    (side,) = side_by_side([said(figure(1, 2, 3)), few])
    assert "number of images" in side.warning


def test_reconstructions_come_first_and_latents_last():
    latent = {"pictures": 10, "split": "held out", "figures": {"kl": figure(1, better=None)}}
    one = said(figure(1, 2), psnr=figure(20, better="higher"), latent=latent)
    titles = [side.title for side in side_by_side([{}, one])]
    assert titles == ["reconstruction", "samples of prior", "latent"]


def test_a_figure_without_its_spread_is_shown_and_never_marked():
    """As an `evaluation.json` may have it that was damaged, or that another version wrote."""
    whole = {
        "format": 3, "data": {"content": "x"}, "metrics": [], "features": [],
        "reconstruction": {"pictures": 8, "split": "held out", "figures": {}},
    }  # fmt: skip
    one, two = (
        {**whole, "reconstruction": {**whole["reconstruction"], "figures": {"psnr": figure}}}
        for figure in ({"mean": 1.0, "better": "higher"}, {"mean": 2.0, "better": "higher"})
    )
    ((row,),) = (table.rows for table in side_by_side([one, two]))
    assert (row.cells, row.best) == (["1", "2"], None)
