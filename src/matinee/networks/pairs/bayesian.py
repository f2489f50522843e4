"""Bayesian matrix factorization: the mean prediction of many factorizations, drawn from their posterior."""

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn
from torch.distributions import Chi2, Gamma
from torch.nn import functional as F

from matinee.contracts import Rows
from matinee.networks.options import check_sizes

PRIOR_COUNT = 2.0  # weight of the prior mean, in rows


class BayesianMatrixFactorization(nn.Module):
    r"""Predict the mean of many factorizations with biases, drawn by Gibbs sampling.

    With the ratings :math:`y_{ui}` of train, standardized by their mean :math:`\mu` and standard deviation
    :math:`\sigma`, and with rows of :math:`k = d + 1` numbers, :math:`P_u = (p_u, b_u)` and
    :math:`Q_i = (q_i, b_i)`, the model is

    .. math::
        y_{ui} \sim \mathcal N(b_u + b_i + p_u^\top q_i, \alpha^{-1}), \quad
        P_u \sim \mathcal N(m_P, \Lambda_P^{-1}), \quad
        Q_i \sim \mathcal N(m_Q, \Lambda_Q^{-1})

    where each side has a prior :math:`\Lambda \sim \mathcal W(I, k)`,
    :math:`m \mid \Lambda \sim \mathcal N(0, (2 \Lambda)^{-1})` and
    :math:`\alpha \sim \mathrm{Gamma}(1/2, 1/2)` (Salakhutdinov & Mnih, Bayesian Probabilistic Matrix
    Factorization using Markov Chain Monte Carlo, ICML 2008, section 3; the biases and the draws of
    :math:`\alpha` are ours). How strongly rows are regularized is drawn with the rest, so it is not tuned.
    The score is the mean over the draws,

    .. math:: s_{ui} = \mu + \sigma \, \mathrm{mean}(b_u + b_i + p_u^\top q_i)

    whose second term is kept as ``embedding_dim`` factors, its best approximation of that rank. An id that
    is not in train has the mean of its side.

    The fit takes :math:`8 k^2` bytes for each user and item, and :math:`8 (k + 1)` for each of them and each
    kept draw.

    Args:
        num_users: Number of users; ids are 1..num_users, 0 is unknown.
        num_items: Number of items; ids are 1..num_items, 0 is unknown.
        initial_score: Score of every pair before :meth:`fit`.
        embedding_dim: Number of factors of the mean prediction, at least 1.
        sampled_dim: Number of factors :math:`d` of a draw, at least 1.
        burn_in: Number of first draws that are discarded, at least 0.
        draws: Number of draws that are averaged, at least 1.

    Raises:
        ValueError: If a number is out of range.
    """

    global_mean: Tensor
    user_factors: Tensor
    item_factors: Tensor

    def __init__(
        self,
        num_users: int,
        num_items: int,
        initial_score: float,
        embedding_dim: int = 64,
        sampled_dim: int = 10,
        burn_in: int = 20,
        draws: int = 100,
    ) -> None:
        super().__init__()
        check_sizes(embedding_dim=embedding_dim, sampled_dim=sampled_dim, draws=draws)
        check_sizes(0, burn_in=burn_in)
        self.sampled_dim = sampled_dim
        self.burn_in = burn_in
        self.draws = draws
        self.register_buffer("global_mean", torch.tensor(float(initial_score)))
        self.register_buffer("user_factors", torch.zeros(num_users + 1, embedding_dim))
        self.register_buffer("item_factors", torch.zeros(num_items + 1, embedding_dim))

    def fit(self, user_ids: Tensor, item_ids: Tensor, ratings: Tensor) -> None:
        """Draw factorizations and keep their mean prediction.

        Args:
            user_ids: User of each rating, shape (rows,).
            item_ids: Item of each rating, shape (rows,).
            ratings: The ratings, shape (rows,).
        """
        targets = ratings.double()
        mean, deviation = targets.mean(), targets.std(correction=0)
        deviation = torch.where(deviation > 0, deviation, 1.0)
        targets = (targets - mean) / deviation
        met = pair_matrix(user_ids, item_ids, torch.ones_like(targets), self._shape)
        sums = pair_matrix(user_ids, item_ids, targets, self._shape)
        users = _Side(met, sums, self.sampled_dim + 1)
        items = _Side(met.T.tocsr(), sums.T.tocsr(), self.sampled_dim + 1)
        noise_precision = torch.ones((), dtype=torch.float64)
        lefts, rights = [], []
        for draw in range(self.burn_in + self.draws):
            users.draw(items.rows, noise_precision)
            items.draw(users.rows, noise_precision)
            left = F.pad(users.rows, (0, 1), value=1.0)  # (p, b, 1)
            right = torch.cat((_design(items.rows), items.rows[:, -1:]), 1)  # (q, 1, b)
            errors = targets - (left[user_ids] * right[item_ids]).sum(1)
            noise_precision = Gamma((1 + len(errors)) / 2, (1 + errors.square().sum()) / 2).sample()
            if draw >= self.burn_in:
                lefts.append(left)
                rights.append(right * deviation / self.draws)
        self.global_mean.copy_(mean)
        dim = self.user_factors.shape[1]
        user_factors, item_factors = low_rank(torch.cat(lefts, 1), torch.cat(rights, 1), dim)
        self.user_factors.copy_(user_factors)
        self.item_factors.copy_(item_factors)

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.user_factors), len(self.item_factors)

    def lookup(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Rows, Rows]:
        """Look up the rows of users and items: ids (batch,) to rows (batch, dim)."""
        return (self.user_factors[user_ids],), (self.item_factors[item_ids],)

    def score(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score looked-up rows: (batch, dim) each to (batch,)."""
        return self.global_mean + (user_rows[0] * item_rows[0]).sum(-1)

    def score_all(self, user_rows: Rows, item_rows: Rows) -> Tensor:
        """Score all pairs of rows: (n, dim) and (m, dim) to (n, m)."""
        return torch.addmm(self.global_mean, user_rows[0], item_rows[0].T)

    def tables(self) -> dict[str, Tensor]:
        """Return the factors of users and items."""
        return {"users": self.user_factors, "items": self.item_factors}

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Score pairs of ids: (batch,) each to (batch,)."""
        return self.score(*self.lookup(user_ids, item_ids))


class _Side:
    """The users or the items: what they rated, and the rows drawn for them.

    Args:
        met: Number of ratings of each pair, (ids, other ids).
        sums: Sum of the standardized ratings of each pair, same shape.
        width: Numbers in a row, the last of which is the bias.
    """

    def __init__(
        self, met: scipy.sparse.csr_array, sums: scipy.sparse.csr_array, width: int
    ) -> None:
        self.met, self.sums = met, sums
        self.known = torch.from_numpy(np.diff(met.indptr) > 0)
        self.rows = 0.1 * torch.randn(len(self.known), width, dtype=torch.float64)

    def draw(self, others: Tensor, noise_precision: Tensor) -> None:
        """Draw the prior given the rows, then the rows given the prior and the rows of the other side."""
        center, precision = draw_prior(self.rows[self.known])
        width = others.shape[1]
        design, bias = _design(others), others[:, -1:]
        products = (design.unsqueeze(2) * design.unsqueeze(1)).flatten(1)
        left = torch.from_numpy(self.met @ products.numpy()).view(-1, width, width)
        right = torch.from_numpy(self.sums @ design.numpy() - self.met @ (design * bias).numpy())
        precisions = precision + noise_precision * left
        right = precision @ center + noise_precision * right
        self.rows = draw_normal(precisions, right)
        self.rows[~self.known] = center


def _design(others: Tensor) -> Tensor:
    """Return what the rows of one side are multiplied by, given those of the other: 1 for the bias."""
    return torch.cat((others[:, :-1], torch.ones_like(others[:, -1:])), 1)


def draw_prior(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Draw mean (dim,) and precision (dim, dim) of a normal prior, given rows (n, dim) drawn from it.

    The hyperprior is the one of :class:`BayesianMatrixFactorization`; equation 14 of the paper.
    """
    n, dim = rows.shape
    mean = rows.mean(0)
    deviations = rows - mean
    shrunk = PRIOR_COUNT * n / (PRIOR_COUNT + n) * torch.outer(mean, mean)
    scatter = torch.eye(dim, dtype=rows.dtype) + deviations.T @ deviations + shrunk
    precision = draw_wishart(scatter, dim + n)
    center = draw_normal((PRIOR_COUNT + n) * precision, precision @ (n * mean))
    return center, precision


def draw_wishart(inverse_scale: Tensor, freedom: int) -> Tensor:
    """Draw from a Wishart distribution by Bartlett's decomposition; (dim, dim) to (dim, dim)."""
    dim = len(inverse_scale)
    standard = torch.randn(dim, dim, dtype=inverse_scale.dtype).tril(-1)
    standard += Chi2(freedom - torch.arange(dim, dtype=inverse_scale.dtype)).sample().sqrt().diag()
    factor = torch.linalg.cholesky(inverse_scale)
    half = torch.linalg.solve_triangular(factor.T, standard, upper=True)
    drawn: Tensor = half @ half.T
    return drawn


def draw_normal(precisions: Tensor, weighted_means: Tensor) -> Tensor:
    """Draw from normal distributions with the given precisions (..., dim, dim).

    ``weighted_means`` (..., dim) are the means multiplied by the precisions.
    """
    factors = torch.linalg.cholesky(precisions)
    halves = torch.linalg.solve_triangular(factors, weighted_means.unsqueeze(-1), upper=False)
    halves += torch.randn_like(halves)
    drawn: Tensor = torch.linalg.solve_triangular(factors.mT, halves, upper=True)
    return drawn.squeeze(-1)


def low_rank(left: Tensor, right: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Approximate ``left @ right.T`` by factors of width ``dim``, with the least squared error."""
    (left, left_rest), (right, right_rest) = torch.linalg.qr(left), torch.linalg.qr(right)
    u, sizes, v = torch.linalg.svd(left_rest @ right_rest.T, full_matrices=False)
    roots = sizes[:dim].sqrt()
    padding = (0, dim - len(roots))
    return (
        F.pad(left @ (u[:, :dim] * roots), padding),
        F.pad(right @ (v.T[:, :dim] * roots), padding),
    )


def pair_matrix(
    user_ids: Tensor, item_ids: Tensor, values: Tensor, shape: tuple[int, int]
) -> scipy.sparse.csr_array:
    """Return a matrix of users and items; values of the same pair are summed."""
    places = (user_ids.numpy(), item_ids.numpy())
    return scipy.sparse.csr_array((values.numpy(), places), shape=shape)
