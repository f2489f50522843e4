"""What all rankers have in common, by the test kit and by hand."""

import numpy as np
import pytest
import torch
from small_train import NUM_ITEMS, NUM_USERS, scores_of

from matinee.networks.rankers.ease import EASE
from matinee.networks.rankers.ials import ImplicitALS
from matinee.networks.rankers.item_knn import ItemKNN
from matinee.networks.rankers.markov import MarkovChain
from matinee.networks.rankers.session_knn import SessionKNN
from matinee.networks.rankers.slit import SLIT
from matinee.testing import check_sequence_network

RANKERS = [ItemKNN, EASE, ImplicitALS, MarkovChain, SessionKNN, SLIT]


@pytest.mark.parametrize("make", RANKERS)
def test_passes_the_kit(make) -> None:
    check_sequence_network(make)


@pytest.mark.parametrize("make", RANKERS)
def test_finds_the_partner_of_an_item(make) -> None:
    """Items 1 and 2, 3 and 4, 5 and 6 are met together, by three users each; item 7 by all."""
    network = make(num_items=8, num_users=9)
    users = torch.arange(1, 10).repeat_interleave(3)
    items = torch.tensor([[1, 2, 7], [3, 4, 7], [5, 6, 7]]).repeat(3, 1).flatten()
    network.fit(users, items)
    for item in (1, 3, 5):
        scores = scores_of(network, [[item]])[0]
        scores[[item, 7]] = -torch.inf
        assert scores.argmax() == item + 1


@pytest.mark.parametrize("make", RANKERS)
def test_nothing_known_leaves_popularity(make, train) -> None:
    """An empty history, unknown items and items that train lacks order all items by their rows."""
    network = make(num_items=NUM_ITEMS, num_users=NUM_USERS)
    network.fit(*train)
    counts = torch.bincount(train[1], minlength=NUM_ITEMS + 1)[1:]
    for row in scores_of(network, [[], [0, 0], [0]])[:, 1:]:
        assert torch.equal(row[:, None] > row, counts[:, None] > counts)
        assert torch.equal(row[:, None] == row, counts[:, None] == counts)


@pytest.mark.parametrize("make", RANKERS)
def test_items_that_are_not_in_train_come_last(make, train, histories) -> None:
    network = make(num_items=NUM_ITEMS, num_users=NUM_USERS)
    network.fit(*train)
    cold = np.setdiff1d(np.arange(1, NUM_ITEMS + 1), train[1].numpy())
    scores = scores_of(network, histories)
    assert len(cold) >= 2 and scores[:, 1:].isfinite().all()
    warm = np.setdiff1d(np.arange(1, NUM_ITEMS + 1), cold)
    assert (scores[:, cold].amax(1) < scores[:, warm].amin(1)).all()
    assert (scores[:, cold].amax(1) == scores[:, cold].amin(1)).all()


@pytest.mark.parametrize("make", RANKERS)
def test_the_order_of_the_users_in_train_does_not_matter(make, train, histories) -> None:
    """Only the order of each user's rows may: data modules give them by user or by time."""
    answers = []
    for order in (torch.arange(len(train[0])), train[0].argsort(stable=True)):
        network = make(num_items=NUM_ITEMS, num_users=NUM_USERS)
        torch.manual_seed(0)
        network.fit(*(column[order] for column in train))
        answers.append(scores_of(network, histories))
    torch.testing.assert_close(*answers)


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (ItemKNN, {"num_neighbors": 0}, "num_neighbors is 0; give"),
        (ItemKNN, {"shrinkage": -1.0}, "shrinkage is -1.0; give"),
        (SessionKNN, {"num_neighbors": 0}, "num_neighbors is 0; give"),
        (EASE, {"l2": 0.0}, "l2 is 0.0; give"),
        (EASE, {"max_items": 14}, "max_items is 14 and there are 15 items"),
        (ImplicitALS, {"l2": 0.0}, "l2 is 0.0; give"),
        (ImplicitALS, {"unobserved_weight": float("nan")}, "unobserved_weight is nan; give"),
        (ImplicitALS, {"init_std": 0.0}, "init_std is 0.0; give"),
        (ImplicitALS, {"sweeps": 0}, "sweeps is 0; give"),
        (MarkovChain, {"decay": 1.5}, "decay is 1.5; give"),
        (MarkovChain, {"backoff": 0.0}, "backoff is 0.0; give"),
        (MarkovChain, {"max_distance": 0}, "max_distance is 0; give"),
    ],
)
def test_wrong_options_are_rejected(make, options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(num_items=NUM_ITEMS, num_users=NUM_USERS, **options)
