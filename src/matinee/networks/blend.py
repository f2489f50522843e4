"""Blend: a trained network and a Markov chain rank items together."""

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from matinee.networks.rankers.markov import MarkovChain
from matinee.networks.sequence_recommender import NEVER, SequenceRecommender


class Blend(nn.Module):
    r"""Add the log-probabilities of a Markov chain to those of a trained network.

    .. math::
        s_j = \log \mathrm{softmax}_j(\text{network}) + w \log \left( P_j + \frac{0.01}{n} \right)

    where :math:`P` is the distribution of the chain over the next of :math:`n` items. This is the
    log-linear interpolation of language models (Klakow, Log-linear Interpolation of Language Models,
    ICSLP 1998). The two err differently: counts are reliable for frequent pairs, and a network
    generalises to pairs that never occurred. The network is trained alone, as if there were no chain;
    the chain is solved at the start of the fit.

    Args:
        num_items: Number of items, at least 1; ids are 1..num_items, 0 is the padding.
        network: Makes the network from ``num_items`` and ``num_users``.
        prior: Makes the chain from ``num_items`` and ``num_users``.
        weight: :math:`w`, at least 0. A network is surer of itself than it should be, and the smoothed
            chain less sure, so the best weight is above 1.
        num_users: Number of users; ids are 1..num_users, 0 is unknown.

    Raises:
        ValueError: If ``weight`` is negative.
    """

    def __init__(
        self,
        num_items: int,
        network: Callable[..., SequenceRecommender],
        prior: Callable[..., MarkovChain],
        weight: float = 4.0,
        num_users: int = 0,
    ) -> None:
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"weight is {weight}; give a number of at least 0.")
        self.network = network(num_items=num_items, num_users=num_users)
        self.prior = prior(num_items=num_items, num_users=num_users)
        self.weight = weight
        self.floor = 0.01 / num_items
        self.needs_times = self.network.needs_times
        self.ignores_history = False

    def represent(
        self, histories: Tensor, user_ids: Tensor | None = None, times: Tensor | None = None
    ) -> Tensor:
        """Represent every position by the network, see :meth:`SequenceRecommender.represent`."""
        return self.network.represent(histories, user_ids, times)

    def item_table(self) -> tuple[Tensor, Tensor]:
        """Return what the loss scores the catalogue with: the table of the network."""
        return self.network.item_table()

    def score(self, representations: Tensor, item_ids: Tensor) -> Tensor:
        """Score chosen items for the loss: by the network, see :meth:`SequenceRecommender.score`."""
        return self.network.score(representations, item_ids)

    def score_all(self, representations: Tensor) -> Tensor:
        """Score all items for the loss: by the network, see :meth:`SequenceRecommender.score_all`."""
        return self.network.score_all(representations)

    def tables(self) -> Mapping[str, Tensor]:
        """Return the embeddings of the network."""
        return self.network.tables()

    def score_next(
        self, histories: Tensor, lengths: Tensor, user_ids: Tensor, times: Tensor | None = None
    ) -> Tensor:
        """Score all items after some histories, see :meth:`matinee.contracts.Ranker.score_next`."""
        scores = self.network.score_next(histories, lengths, user_ids, times)
        scores -= scores.logsumexp(1, keepdim=True)
        chain = self.prior.probabilities(histories, lengths)
        scores += chain.add_(self.floor).log_().mul_(self.weight)
        scores[:, 0] = NEVER
        return scores
