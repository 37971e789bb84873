"""The order of an epoch: each image once, known at any position, a few groups at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vgx.data.order import Shuffled, Windowed

GROUPS = st.one_of(
    st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any),
    st.integers(1, 40).map(lambda n: [1] * n),  # row groups of one row
    st.integers(1, 60).map(lambda n: [n]),  # a row group of all rows
)


@st.composite
def orders(draw):
    """Groups, how many make a window, and the images to go through: all, or some of them."""
    groups, width = draw(GROUPS), draw(st.integers(1, 8))
    rows = np.arange(sum(groups))
    if draw(st.booleans()):
        kept = draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)).filter(any))
        return groups, width, rows[np.array(kept)]
    return groups, width, None


def whole(case, seed=0, epoch=0):
    order = Windowed(*case)
    return order.rows(seed, epoch, 0, len(order))


@given(orders(), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_has_each_image_once(case, seed, epoch):
    groups, _, rows = case
    expected = np.arange(sum(groups)) if rows is None else rows
    assert sorted(whole(case, seed, epoch).tolist()) == expected.tolist()


@given(orders(), st.integers(0, 3), st.data())
def test_a_position_is_known_without_those_before(case, epoch, data):
    expected = whole(case, 0, epoch)
    first = data.draw(st.integers(0, len(expected) - 1))
    last = data.draw(st.integers(first, len(expected)))
    assert Windowed(*case).rows(0, epoch, first, last).tolist() == expected[first:last].tolist()


@given(orders())
def test_a_window_is_read_to_its_end_before_the_next(case):
    """Counted by hand: after the rows of `width` groups, others follow, and none comes back."""
    groups, width, _ = case
    edges = np.cumsum([0, *groups])
    of = np.searchsorted(edges, whole(case), "right") - 1  # the group of each row in its turn
    left = {group: int((of == group).sum()) for group in of.tolist()}
    opened = set()
    for group in of.tolist():
        if group not in opened and all(left[other] == 0 for other in opened):
            opened = set()  # a new window
        opened.add(group)
        assert len(opened) <= width
        left[group] -= 1


@given(orders(), st.data())
def test_the_next_groups_are_those_of_the_next_window(case, data):
    """A window has the next `width` groups of its epoch; after the last one comes another epoch."""
    groups, width, _ = case
    order, edges = Windowed(*case), np.cumsum([0, *groups])
    position = data.draw(st.integers(0, len(order) - 1))
    coming = order.next_groups(3, 1, position)
    windows = []
    for epoch in (1, 2):
        of = np.searchsorted(edges, order.rows(3, epoch, 0, len(order)), "right") - 1
        seen = list(dict.fromkeys(of.tolist()))  # each group of the epoch, window by window
        windows += [set(seen[n : n + width]) for n in range(0, len(seen), width)]
        if epoch == 1:
            here = seen.index(of[position]) // width
    assert sorted(coming) == sorted(windows[here + 1])


@pytest.mark.parametrize("groups", [[50] * 10, [1] * 100, [100]])
def test_epochs_and_seeds_differ(groups):
    case = (groups, 2, None)
    orders = [whole(case, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_epochs_have_their_own_order_of_groups_and_of_the_rows_of_each_window():
    """10 groups of 50 rows, each a window: by chance alone, nothing here is ever equal."""
    case = ([50] * 10, 1, None)
    epochs = [whole(case, 0, epoch).reshape(10, 50) for epoch in (0, 1)]
    assert (epochs[0] // 50)[:, 0].tolist() != (epochs[1] // 50)[:, 0].tolist()
    rows = [tuple((window % 50).tolist()) for epoch in epochs for window in epoch]
    assert len(set(rows)) == 20


def test_rows_of_a_window_are_mixed():
    """Of 8 groups of 100 rows, a minibatch of 64 has rows of nearly all of them."""
    rows = whole(([100] * 8, 8, None))[:64]
    assert len(set((rows // 100).tolist())) >= 7


def test_a_store_has_the_order_that_it_had():
    """The order of earlier versions, computed as they did: runs resume to the same bits."""
    import torch

    from vgx import rng

    rows = np.arange(3, 40)
    expected = rows[torch.randperm(37, generator=rng.generator(5, "order", 2)).numpy()]
    assert Shuffled(rows).rows(5, 2, 10, 20).tolist() == expected[10:20].tolist()
