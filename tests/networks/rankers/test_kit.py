import pytest

from matinee.networks.rankers.ease import EASE
from matinee.networks.rankers.ials import ImplicitALS
from matinee.networks.rankers.item_knn import ItemKNN
from matinee.networks.rankers.markov import MarkovChain
from matinee.networks.rankers.session_knn import SessionKNN
from matinee.networks.rankers.slit import SLIT
from matinee.testing import check_sequence_network


@pytest.mark.parametrize("make", [ItemKNN, EASE, ImplicitALS, MarkovChain, SessionKNN, SLIT])
def test_network_passes_the_kit(make) -> None:
    check_sequence_network(make)
