"""Next-item recommendation: one owner of item embeddings and scores, around any causal encoder.

A history is a row of item ids that starts with 0, the empty history, and is padded with 0 on the
right. An encoder is a causal map of (batch, length, dim) to the same shape: its output at a
position depends on the inputs up to there and on nothing else, so neither padding nor the rest of
the batch can reach a score. ``[0, a, b]`` is represented at three positions, before ``a``, after it
and after ``b``: one row makes three predictions.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from matinee.networks.pairs.factorization import embedding_table

NEVER = float("-inf")  # score of id 0, which stands for no item


class SequenceRecommender(nn.Module):
    r"""Score items by how well they fit an encoded history, :math:`s_i = b_i + q_i^\top h`.

    The embeddings :math:`q` are tied: one table is read by the encoder and scores its output (Kang
    & McAuley, Self-Attentive Sequential Recommendation, ICDM 2018, equation 6; the bias is ours).
    Row 0 is the empty history and is trained like any other; as a candidate, id 0 scores minus
    infinity.

    Args:
        num_items: Number of items; ids are 1..num_items, 0 is the empty history and the padding.
        encoder: Makes the encoder from the width of its inputs and outputs. One that wants to know
            whose history it reads has ``needs_users``; it gets ``num_users`` too.
        embedding_dim: Length of an item's row and of a representation, at least 1.
        dropout: Share of the entries of embedded histories dropped while training, in [0, 1).
        init_std: Standard deviation of the initial embeddings; biases start at 0.
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        sparse: Whether the item tables give sparse gradients. They do for :meth:`represent` and
            :meth:`score`; scoring the whole catalogue makes the gradients dense.

    Raises:
        ValueError: If ``dropout`` or ``embedding_dim`` is out of range, or there are no items.
    """

    def __init__(
        self,
        num_items: int,
        encoder: Callable[..., nn.Module],
        embedding_dim: int = 64,
        dropout: float = 0.0,
        init_std: float = 0.05,
        num_users: int = 0,
        sparse: bool = False,
    ) -> None:
        super().__init__()
        if num_items < 1:
            raise ValueError(f"a recommender of {num_items} items has nothing to rank.")
        if not 0 <= dropout < 1:
            raise ValueError(f"model.dropout is {dropout}; give a share in [0, 1).")
        self.item_embeddings = embedding_table(num_items, embedding_dim, init_std, sparse)
        self.item_biases = embedding_table(num_items, 1, 0.0, sparse)
        self.dropout = nn.Dropout(dropout)
        made = getattr(encoder, "func", encoder)  # what a partial will call
        self.needs_users = getattr(made, "needs_users", False)
        self.ignores_history = getattr(made, "ignores_history", False)
        sizes = (embedding_dim, num_users) if self.needs_users else (embedding_dim,)
        self.encoder = encoder(*sizes)

    def represent(self, histories: Tensor, user_ids: Tensor | None = None) -> Tensor:
        """Encode histories.

        Args:
            histories: Item ids, (batch, length).
            user_ids: Whose histories they are, (batch,), for an encoder that needs it; None is
                unknown.

        Returns:
            Representations, (batch, length, dim).

        Raises:
            IndexError: If an id is outside 0..num_items (found on the CPU without a look at the
                ids; an accelerator reports it in its own words).
        """
        inputs = self.dropout(_rows(self.item_embeddings, histories))
        if not self.needs_users:
            return self.encoder(inputs)  # type: ignore[no-any-return]
        users = histories.new_zeros(len(histories)) if user_ids is None else user_ids
        return self.encoder(inputs, users)  # type: ignore[no-any-return]

    def item_table(self) -> tuple[Tensor, Tensor]:
        """Return what scores all items: weights (num_items + 1, dim), biases (num_items + 1,).

        Row 0 is the padding's and no candidate: whoever uses the table leaves it out.
        """
        return self.item_embeddings.weight, self.item_biases.weight.squeeze(-1)

    def score(self, representations: Tensor, item_ids: Tensor) -> Tensor:
        """Score chosen items for each representation.

        Args:
            representations: What :meth:`represent` returned, or some of its positions, (..., dim).
            item_ids: One item for each, (...), or several, (..., k).

        Returns:
            Scores of the shape of ``item_ids``.

        Raises:
            IndexError: As in :meth:`represent`.
        """
        weights = _rows(self.item_embeddings, item_ids)  # (..., dim) or (..., k, dim)
        biases = self.item_biases(item_ids).squeeze(-1)
        if weights.dim() == representations.dim():
            products = (weights * representations).sum(-1)
        else:
            products = (weights @ representations.unsqueeze(-1)).squeeze(-1)
        scores: Tensor = products + biases
        return scores.masked_fill(item_ids == 0, NEVER)

    def score_all(self, representations: Tensor) -> Tensor:
        """Score every item, (..., dim) to (..., num_items + 1); column 0 is minus infinity."""
        scores = F.linear(representations, *self.item_table())
        scores[..., 0] = NEVER
        return scores


def _rows(table: nn.Embedding, ids: Tensor) -> Tensor:
    try:
        return table(ids)  # type: ignore[no-any-return]
    except IndexError as error:
        raise IndexError(
            f"item ids must be in 0..{table.num_embeddings - 1}; "
            f"these range from {int(ids.min())} to {int(ids.max())}."
        ) from error
