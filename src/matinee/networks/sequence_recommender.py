"""Next-item recommendation with any causal encoder.

A history is a row of item ids. It starts with 0, which stands for the empty history, and is padded
with 0 on the right. An encoder maps (batch, length, dim) to the same shape and is causal: its
output at a position depends only on the inputs of the same row up to that position. Padding and
other rows of the batch therefore never change a score. The row ``[0, a, b]`` has three
representations, before ``a``, after ``a`` and after ``b``, so it makes three predictions.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from matinee.networks.carried_states import CarriedStates
from matinee.networks.embedding import EmbeddingTable
from matinee.networks.options import check_shares, check_sizes

NEVER = float("-inf")  # score of id 0, which stands for no item


class SequenceRecommender(nn.Module):
    r"""Embed a history, encode it, and score items against the result, :math:`s_i = b_i + q_i^\top h`.

    The embeddings :math:`q` are tied: the same table feeds the encoder and scores its output (Kang
    & McAuley, Self-Attentive Sequential Recommendation, ICDM 2018, equation 6; the bias is our
    addition), unless ``tied`` is false. Row 0 represents the empty history and is trained like any
    other row. As a candidate, id 0 always scores minus infinity.

    Args:
        num_items: Number of items, at least 1; ids are 1..num_items, 0 is the empty history and the
            padding.
        encoder: Makes the encoder from ``embedding_dim``, the width of its inputs and outputs. If
            the encoder declares ``needs_users``, it is made from ``embedding_dim`` and
            ``num_users``. It may also declare ``needs_times``.
        embedding_dim: Width of an item embedding and of a representation, at least 1.
        dropout: Share of the entries of embedded histories dropped while training, in [0, 1).
        init_std: Standard deviation of the initial embeddings; biases start at 0.
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        sparse: Whether the item tables have sparse gradients. :meth:`represent` and :meth:`score`
            then produce sparse gradients; scoring the whole catalogue still produces dense ones.
        tied: Whether the items are scored by the embeddings that the encoder reads, or by a second
            table.

    Raises:
        ValueError: If ``num_items``, ``embedding_dim`` or ``dropout`` is out of range, or if ``tied`` is
            false and the encoder ignores the history.
    """

    carried: CarriedStates | None = None  # set by a service, which asks for growing histories

    def __init__(
        self,
        num_items: int,
        encoder: Callable[..., nn.Module],
        embedding_dim: int = 64,
        dropout: float = 0.0,
        init_std: float = 0.05,
        num_users: int = 0,
        sparse: bool = False,
        tied: bool = True,
    ) -> None:
        super().__init__()
        check_sizes(num_items=num_items)
        check_shares(dropout=dropout)
        self.item_embeddings = EmbeddingTable(num_items, embedding_dim, init_std, sparse)
        self.item_biases = EmbeddingTable(num_items, 1, 0.0, sparse)
        self.dropout = nn.Dropout(dropout)
        made = getattr(encoder, "func", encoder)  # the class behind a partial
        self.needs_users = getattr(made, "needs_users", False)
        self.needs_times = getattr(made, "needs_times", False)
        self.ignores_history = getattr(made, "ignores_history", False)
        sizes = (embedding_dim, num_users) if self.needs_users else (embedding_dim,)
        self.encoder = encoder(*sizes)
        self.tied = tied
        if not tied:
            if self.ignores_history:
                raise ValueError(
                    f"tied is False and {made.__name__} reads no items; set it to true."
                )
            self.output_embeddings = EmbeddingTable(num_items, embedding_dim, init_std, sparse)

    def represent(
        self, histories: Tensor, user_ids: Tensor | None = None, times: Tensor | None = None
    ) -> Tensor:
        """Encode histories.

        Args:
            histories: Item ids, integers in 0..num_items, (batch, length).
            user_ids: User of each history, (batch,), for an encoder that declares ``needs_users``.
                None stands for user 0, the unknown user, in every row.
            times: Seconds since the first item, (batch, length), for an encoder that declares
                ``needs_times``, see :class:`matinee.contracts.Encoder`. None stands for 0 everywhere.

        Returns:
            One representation per position, (batch, length, embedding_dim).

        Raises:
            IndexError: If an id is outside 0..num_items. This check is free on the CPU; an
                accelerator raises its own error.
        """
        inputs = self.dropout(_rows(self.item_embeddings, histories))
        context = []
        if self.needs_users:
            context.append(
                histories.new_zeros(histories.shape[0]) if user_ids is None else user_ids
            )
        if self.needs_times:
            context.append(torch.zeros_like(histories) if times is None else times)
        return self.encoder(inputs, *context)  # type: ignore[no-any-return]

    def score_next(
        self, histories: Tensor, lengths: Tensor, user_ids: Tensor, times: Tensor | None = None
    ) -> Tensor:
        """Score all items after some histories, see :meth:`matinee.contracts.Ranker.score_next`."""
        if self.carried is not None:
            return self.score_all(self._carry(self.carried, histories, lengths, user_ids))
        representations = self.represent(histories, user_ids, times)
        rows = torch.arange(lengths.shape[0], device=lengths.device)
        return self.score_all(representations[rows, lengths.long() - 1])

    def _carry(
        self, carried: CarriedStates, histories: Tensor, lengths: Tensor, user_ids: Tensor
    ) -> Tensor:
        """Represent the last positions of histories, (batch, dim), from the states that are kept."""
        rows = [row[:length] for row, length in zip(histories, lengths.tolist(), strict=True)]
        return carried.last(
            [row.numpy() for row in rows],
            lambda number, first: _rows(self.item_embeddings, rows[number][first:]),
            user_ids if self.needs_users else None,
        )

    def tables(self) -> dict[str, Tensor]:
        """Return the embeddings of the items, and those of the users if the encoder needs users."""
        users = self.encoder.tables() if self.needs_users else {}  # type: ignore[operator]
        return {"items": self.item_embeddings.weight, **users}

    @property
    def _candidates(self) -> nn.Embedding:
        """Return the table that scores the items."""
        return self.item_embeddings if self.tied else self.output_embeddings

    def item_table(self) -> tuple[Tensor, Tensor]:
        """Return the item weights, (num_items + 1, dim), and the item biases, (num_items + 1,).

        Row 0 belongs to the padding. It is not a candidate, so leave it out when you score with the
        table.
        """
        return self._candidates.weight, self.item_biases.weight.squeeze(-1)

    def score(self, representations: Tensor, item_ids: Tensor) -> Tensor:
        """Score chosen items for each representation.

        Args:
            representations: Output of :meth:`represent`, or some of its positions, (..., dim).
            item_ids: One item per representation, (...), or several, (..., k); or (1, k), items that
                are scored for each of n representations (n, dim).

        Returns:
            Scores, same shape as ``item_ids``, or (n, k).

        Raises:
            IndexError: See :meth:`represent`.
        """
        weights = _rows(self._candidates, item_ids)  # (..., dim) or (..., k, dim)
        biases = self.item_biases(item_ids).squeeze(-1)
        if weights.dim() == representations.dim():
            products = (weights * representations).sum(-1)
        elif len(weights) == 1:
            products = representations @ weights[0].T  # one product instead of n
        else:
            products = (weights @ representations.unsqueeze(-1)).squeeze(-1)
        scores: Tensor = products + biases
        return scores.masked_fill(item_ids == 0, NEVER)

    def score_all(self, representations: Tensor) -> Tensor:
        """Score all items: (..., dim) to (..., num_items + 1); column 0 is minus infinity."""
        scores = F.linear(representations, *self.item_table())
        scores[..., 0] = NEVER
        return scores


def _rows(table: nn.Embedding, ids: Tensor) -> Tensor:
    try:
        return table(ids)  # type: ignore[no-any-return]
    except IndexError as error:
        raise IndexError(
            f"item ids range from {int(ids.min())} to {int(ids.max())}; "
            f"give ids in 0..{table.num_embeddings - 1}."
        ) from error
