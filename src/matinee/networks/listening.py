r"""Networks that predict ratings from rated histories.

All of them start from the running offsets of the batch, :math:`\mu + b_i + b_u`, in the units of the loss.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from matinee.contracts import RatedHistories, Rows, ScoreScale
from matinee.networks.carried_states import CarriedStates
from matinee.networks.embedding import EmbeddingTable
from matinee.networks.options import check_shares, check_sizes


class RunningBias(nn.Module):
    r"""Predict the global mean plus the running damped offsets of item and user, :math:`\mu + b_i + b_u`.

    The offsets are those of the batch, see :class:`matinee.batches.running_biases.RunningBiases`, and nothing
    is left to learn.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        scale: The scores of ratings.
    """

    def __init__(self, num_users: int, num_items: int, scale: ScoreScale) -> None:
        super().__init__()
        self.scale = scale

    def fit(self, user_ids: Tensor, item_ids: Tensor, ratings: Tensor) -> None:
        """Learn nothing: the batches hold the offsets."""

    def read(self, batch: RatedHistories) -> Tensor:
        """Score the targets of a batch, (n,)."""
        return self.scale.score(self.scale.mean + batch.target_states[:, :2].sum(-1))

    def looked_up(self, batch: RatedHistories) -> Rows:
        """Return nothing to shrink."""
        return (batch.target_states.new_zeros(len(batch.rows), 0),)

    def tables(self) -> dict[str, Tensor]:
        """Return no embeddings."""
        return {}


class ListeningNetwork(nn.Module):
    r"""Correct the running offsets by what a history of ratings says of its user.

    A rating enters the history as its item's row :math:`p_j` and as evidence :math:`e_j`: how far it deviates
    from the mean, from the mean and the item's offset, and from these and the user's offset, in standard
    deviations of the ratings,

    .. math:: x_j = p_j + p_j \odot W_1 e_j + W_2 e_j

    A causal encoder turns the rows :math:`x_0, x_1, \dots, x_t`, of which :math:`x_0` is the empty history,
    into :math:`h_t`. The prediction for item :math:`i` is

    .. math:: \mu + b_i + b_u + \sigma (a_i + w^\top h_t + q_i^\top V h_t + f(b_i, b_u, n_i, n_u))

    where :math:`f` is a network of one hidden layer that says how far offsets from so few ratings are to be
    trusted. Everything but the running offsets starts near 0. One pass scores all positions.

    Args:
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        num_items: Number of items; ids are 1..num_items, 0 is unknown.
        scale: The ratings of train, and the scores that mean them.
        encoder: Makes the encoder from ``embedding_dim``, and from ``num_users`` if it needs users, see
            :class:`matinee.contracts.Encoder`.
        embedding_dim: Width of the rows and of a representation, at least 1.
        dropout: Share of the entries of inputs and outputs of the encoder dropped while training, in [0, 1).
        init_std: Standard deviation of the initial rows of items.

    Raises:
        ValueError: If a size or ``dropout`` is out of range.
    """

    hidden = 16  # units that judge the running offsets
    carried: CarriedStates | None = None  # set by a service, which asks for growing histories

    def __init__(
        self,
        num_users: int,
        num_items: int,
        scale: ScoreScale,
        encoder: Callable[..., nn.Module],
        embedding_dim: int = 64,
        dropout: float = 0.6,
        init_std: float = 0.05,
    ) -> None:
        super().__init__()
        check_sizes(num_items=num_items)
        check_shares(dropout=dropout)
        self.scale = scale
        self.inputs = EmbeddingTable(num_items, embedding_dim, init_std)
        self.outputs = EmbeddingTable(num_items, embedding_dim, init_std)
        self.item_biases = EmbeddingTable(num_items, 1, 0.0)
        self.empty = nn.Parameter(torch.zeros(embedding_dim))
        self.gate = nn.Linear(3, embedding_dim)
        self.evidence = nn.Linear(3, embedding_dim, bias=False)
        self.dropout = nn.Dropout(dropout)
        made = getattr(encoder, "func", encoder)  # the class behind a partial
        self.needs_users = getattr(made, "needs_users", False)
        self.needs_times = getattr(made, "needs_times", False)
        sizes = (embedding_dim, num_users) if self.needs_users else (embedding_dim,)
        self.encoder = encoder(*sizes)
        self.level = nn.Linear(embedding_dim, 1)
        self.project = nn.Linear(embedding_dim, embedding_dim)
        self.trust = nn.Sequential(nn.Linear(4, self.hidden), nn.Tanh(), nn.Linear(self.hidden, 1))
        with torch.no_grad():
            for weight in self.trust[-1].parameters():
                weight.zero_()

    def embed(self, batch: RatedHistories) -> Tensor:
        """Make the inputs of the encoder, the empty history first: (batch, length + 1, embedding_dim)."""
        deviations = batch.ratings - self.scale.mean
        seen = [deviations, deviations - batch.offsets[..., 0], deviations - batch.offsets.sum(-1)]
        evidence = torch.stack(seen, -1) / self.scale.deviation  # (batch, length, 3)
        rows = self.inputs(batch.item_ids)
        inputs = rows + rows * self.gate(evidence) + self.evidence(evidence)
        return torch.cat((self.empty.expand(len(inputs), 1, -1), inputs), 1)

    def represent(self, batch: RatedHistories) -> Tensor:
        """Represent the empty history and every position: (batch, length + 1, embedding_dim)."""
        context: list[Any] = [batch.user_ids] if self.needs_users else []
        if self.needs_times:
            context.append(torch.cat((torch.zeros_like(batch.times[:, :1]), batch.times), 1))
        encoded = self.encoder(self.dropout(self.embed(batch)), *context)
        return self.dropout(encoded)  # type: ignore[no-any-return]

    def known(self, batch: RatedHistories) -> Tensor:
        """Represent what each prediction of a batch may see, (n, embedding_dim)."""
        length = batch.item_ids.shape[1]
        if self.carried is None or len(batch.item_ids) > 1 or bool((batch.known < length).any()):
            return self.represent(batch)[batch.rows, batch.known]
        columns = (batch.item_ids.unsqueeze(-1), batch.ratings.unsqueeze(-1), batch.offsets)
        read = torch.cat([column.double() for column in columns], -1)[0]  # (length, 4)

        def embed(number: int, first: int) -> Tensor:
            start = max(first - 1, 0)
            part = batch._replace(
                item_ids=batch.item_ids[:, start:],
                ratings=batch.ratings[:, start:],
                offsets=batch.offsets[:, start:],
            )
            return self.embed(part)[0, first - start :]

        users = batch.user_ids if self.needs_users else None
        history = torch.cat((read.new_zeros(1, 4), read))  # the empty history first
        return self.carried.last([history.numpy()], embed, users).expand(len(batch.rows), -1)

    def read(self, batch: RatedHistories) -> Tensor:
        """Score the targets of a batch, each from the beginning of its history, (n,)."""
        return self.rate(self.known(batch), batch)

    def rate(self, known: Tensor, batch: RatedHistories) -> Tensor:
        """Score the targets of a batch by what :meth:`known` returned, (n,)."""
        offsets, counts = batch.target_states.split(2, -1)
        state = torch.cat((offsets / self.scale.deviation, counts.log1p() / 3), -1)
        products = (self.project(known) * self.outputs(batch.target_ids)).sum(-1)
        others = self.item_biases(batch.target_ids) + self.level(known) + self.trust(state)
        correction = self.scale.deviation * (products + others.squeeze(-1))
        return self.scale.score(self.scale.mean + offsets.sum(-1) + correction)

    def looked_up(self, batch: RatedHistories) -> Rows:
        """Return the rows of the targets, (n, embedding_dim) and (n, 1)."""
        return self.outputs(batch.target_ids), self.item_biases(batch.target_ids)

    def tables(self) -> dict[str, Tensor]:
        """Return the rows that score the items, and those of the users if the encoder needs users."""
        users = self.encoder.tables() if self.needs_users else {}  # type: ignore[operator]
        return {"items": self.outputs.weight, **users}


class JointNetwork(ListeningNetwork):
    r"""Predict ratings and the next item from one representation of the history.

    Ratings are predicted as by :class:`ListeningNetwork`. As the next item, item :math:`i` has the score

    .. math:: s_i = c_i + q_i^\top U h_t

    with the rows :math:`q_i` that score ratings as well. The arguments are those of
    :class:`ListeningNetwork`.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        scale: ScoreScale,
        encoder: Callable[..., nn.Module],
        embedding_dim: int = 64,
        dropout: float = 0.6,
        init_std: float = 0.05,
    ) -> None:
        super().__init__(num_users, num_items, scale, encoder, embedding_dim, dropout, init_std)
        self.choice = nn.Linear(embedding_dim, embedding_dim, bias=False)
        self.choice_biases = EmbeddingTable(num_items, 1, 0.0)

    def choose(self, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what scores the next items.

        Args:
            known: What :meth:`known` returned, (n, embedding_dim).

        Returns:
            Representations (n, embedding_dim), the weights of the items (num_items + 1, embedding_dim) and
            their biases (num_items + 1,).
        """
        return self.choice(known), self.outputs.weight, self.choice_biases.weight.squeeze(-1)


class FoldedPairs(nn.Module):
    r"""Rate by a pair network whose user row is estimated again after each rating.

    In training, the pair network scores users and items by their rows as usual. Outside training, the user's
    row is the mean of its posterior given the ratings that a prediction sees, under the prior of
    :func:`matinee.training.tasks.folding.fold_in`. The score is taken as linear in the user's row around the
    unknown user,

    .. math:: s_i(p) \approx s_i(p_0) + g_i^\top (p - p_0), \qquad g_i = \nabla_p s_i(p_0)

    which is exact for factorizations, whose estimate is a ridge regression, and one Newton step for other
    networks. A rating costs :math:`O(d^2)` by recursive least squares (Plackett, Biometrika 37, 1950).

    Args:
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        num_items: Number of items; ids are 1..num_items, 0 is unknown.
        scale: The scores of ratings.
        pair: Makes the pair network from ``num_users``, ``num_items`` and ``initial_score``.

    Raises:
        ValueError: If scores are not ratings under the loss.
    """

    noise: Tensor
    trained: Tensor

    def __init__(
        self, num_users: int, num_items: int, scale: ScoreScale, pair: Callable[..., Any]
    ) -> None:
        super().__init__()
        if abs(scale.per_rating - 1) > 1e-6:
            raise ValueError(
                "pair has to be folded in by ratings, and the scores of this loss are no ratings; choose "
                "loss=mse, huber or mae."
            )
        self.pair = pair(num_users=num_users, num_items=num_items, initial_score=scale.mean)
        self.register_buffer("noise", torch.tensor(scale.deviation**2))
        self.register_buffer("trained", torch.zeros(num_users + 1, dtype=torch.bool))

    def read(self, batch: RatedHistories) -> Tensor:
        """Score the targets of a batch, (n,)."""
        if not self.training:
            return self._fold(batch)
        user_ids = batch.user_ids[batch.rows]
        scores: Tensor = self.pair(user_ids, batch.target_ids)
        self.trained[user_ids] = True
        error = (scores.detach() - batch.target_ratings).square().mean()
        self.noise.lerp_(error, 0.02)  # the mean squared error of the last fifty steps
        return scores

    def _fold(self, batch: RatedHistories) -> Tensor:
        scores, gradients = self._linear()
        variance = self._variance()
        mean = variance.new_zeros(len(batch.item_ids), len(variance))
        covariance = torch.diag(variance).repeat(len(mean), 1, 1)
        means = [mean]
        longest = batch.known.new_zeros(len(mean)).scatter_reduce(
            0, batch.rows, batch.known, "amax"
        )
        for place in range(batch.item_ids.shape[1]):
            items = batch.item_ids[:, place]
            gradient = gradients[items]  # (batch, dim)
            spread = (covariance @ gradient.unsqueeze(-1)).squeeze(-1)
            gain = spread / ((spread * gradient).sum(-1) + self.noise).unsqueeze(-1)
            gain = gain * (place < longest).unsqueeze(-1)
            error = batch.ratings[:, place] - scores[items] - (gradient * mean).sum(-1)
            mean = mean + gain * error.unsqueeze(-1)
            covariance = covariance - gain.unsqueeze(-1) * spread.unsqueeze(-2)
            means.append(mean)
        known = torch.stack(means, 1)[batch.rows, batch.known]  # (n, dim)
        return scores[batch.target_ids] + (gradients[batch.target_ids] * known).sum(-1)

    def _linear(self) -> tuple[Tensor, Tensor]:
        """Score all items for the unknown user, and take the gradient: (items,) and (items, dim)."""
        with torch.inference_mode(False), torch.enable_grad():
            items = torch.arange(len(self.pair.tables()["items"]), device=self.noise.device)
            user_rows, item_rows = self.pair.lookup(torch.zeros_like(items), items)
            user_rows = tuple(row.detach().requires_grad_() for row in user_rows)
            scores = self.pair.score(user_rows, tuple(row.detach() for row in item_rows))
            gradients = torch.autograd.grad(scores.sum(), user_rows)
        return scores.detach(), torch.cat(gradients, -1)

    def _variance(self) -> Tensor:
        """Return the mean square of the trained users' rows around the unknown row, (dim,)."""
        users = self.trained.nonzero().squeeze(-1)
        rows, _ = self.pair.lookup(users, torch.zeros_like(users))
        unknown, _ = self.pair.lookup(users[:1] * 0, users[:1] * 0)
        squares = [(row - start).square().mean(0) for row, start in zip(rows, unknown, strict=True)]
        return torch.nan_to_num(torch.cat(squares)).clamp_min(1e-8)

    def looked_up(self, batch: RatedHistories) -> Rows:
        """Return the rows of the users and of the items, (n, dim) each."""
        user_rows, item_rows = self.pair.lookup(batch.user_ids[batch.rows], batch.target_ids)
        return (*user_rows, *item_rows)

    def tables(self) -> dict[str, Tensor]:
        """Return the embeddings of users and items."""
        return self.pair.tables()  # type: ignore[no-any-return]
