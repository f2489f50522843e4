"""Ranking metrics: rank targets among all items and compute metrics from the ranks.

Sums are computed in float64 on the CPU, so a metric does not depend on batch size or accelerator.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matinee.errors import Diverged
from matinee.metrics.masks import FloatArray, Masks, named_masks

_COMPARED_AT_ONCE = 2**22  # scores per block, so that their masks fit the cache of a processor

IndexPairs = tuple[Tensor, Tensor]  # (row, item id), integers, (pairs,) each


def ranks(scores: Tensor, target_ids: Tensor, excluded: IndexPairs | None = None) -> Tensor:
    """Rank the target of each row among the items 1..num_items; the best rank is 1.

    The rank is 1 plus the number of candidates with a higher score plus half the number of other
    candidates with the same score. Ties thus get their average rank, and the target of a row of
    constant scores ranks in the middle.

    Args:
        scores: Scores of all items, (n, num_items + 1). Column 0, the padding, is not a candidate.
        target_ids: Item to rank in each row, integers in 1..num_items, (n,).
        excluded: Items that are not candidates, for example those already seen, as pairs (row, item
            id) in any order; repeated pairs are allowed. The target of a row always remains a
            candidate.

    Returns:
        Ranks, float32, (n,), on the device of the scores; exact for fewer than 2^22 items.

    Raises:
        Diverged: If a score is NaN.
        ValueError: If a target is not in 1..num_items.

    >>> ranks(torch.tensor([[9.0, 3.0, 2.0, 2.0, 1.0]]), torch.tensor([2]))
    tensor([2.5000])
    """
    num_rows, width = scores.shape
    target_ids = target_ids.long()
    if num_rows == 0:
        return torch.zeros(0, device=scores.device)
    if bool(((target_ids < 1) | (target_ids >= width)).any()):
        raise ValueError(
            f"target ids range from {int(target_ids.min())} to {int(target_ids.max())}; "
            f"give ids in 1..{width - 1}."
        )
    pairs = None if excluded is None else _ordered(excluded)
    block = max(1, _COMPARED_AT_ONCE // width)
    parts = [
        _ranks(scores[start:stop], target_ids[start:stop], _between(pairs, start, stop))
        for start in range(0, num_rows, block)
        for stop in (min(start + block, num_rows),)
    ]
    return torch.cat(parts)


def best_items(scores: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Find the candidates of highest score in each row; of equal scores the lower id comes first.

    Args:
        scores: Scores of all items, (n, num_items + 1). Column 0, the padding, and items of score minus
            infinity are no candidates.
        top_k: Largest number of items, at least 1.

    Returns:
        Item ids, int64, and their scores, (n, k) each with k = min(top_k, num_items), best first; where there
        are fewer candidates, the id is 0 and the score minus infinity.

    Raises:
        Diverged: If a score is NaN.

    >>> best_items(torch.tensor([[9.0, 3.0, 2.0, 4.0, 2.0]]), 3)[0]
    tensor([[3, 1, 2]])
    """
    candidates = scores[:, 1:]
    k = min(top_k, candidates.shape[1])
    # topk returns any of the items that share the score of place k; one more place shows whether it matters
    values, item_ids = candidates.topk(min(k + 1, candidates.shape[1]), dim=1)
    if bool(values[:, :1].isnan().any()):  # NaN is the highest value of all
        raise Diverged("a score is NaN because training diverged; lower the learning rate.")
    last = values[:, k - 1]
    if values.shape[1] > k:
        cut = (values[:, k] == last) & (last > float("-inf"))
        values, item_ids = values[:, :k], item_ids[:, :k]
        if bool(cut.any()):
            rows = cut.nonzero().squeeze(1)
            tied, lowest = candidates[rows], last[rows].unsqueeze(1)
            above, equal = tied > lowest, tied == lowest
            room = k - above.sum(1, keepdim=True)
            kept = above | (equal & (equal.cumsum(1, dtype=torch.int32) <= room))
            item_ids[rows] = kept.nonzero()[:, 1].view(-1, k)
            values[rows] = tied.gather(1, item_ids[rows])
    item_ids, order = item_ids.sort(1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    item_ids = item_ids.gather(1, order) + 1
    return item_ids.masked_fill_(values == float("-inf"), 0), values


def _ranks(scores: Tensor, target_ids: Tensor, excluded: IndexPairs | None) -> Tensor:
    # a NaN makes the maximum NaN; the score of the padding is ignored
    if bool(scores[:, 1:].amax(1).isnan().any()):
        raise Diverged("a score is NaN because training diverged; lower the learning rate.")
    target_ids = target_ids.unsqueeze(1)
    target_scores = scores.gather(1, target_ids)
    flags = torch.empty_like(scores, dtype=torch.float32)  # floats are the fastest to sum

    def count(compare: Callable[..., Tensor]) -> Tensor:
        compare(scores, target_scores, out=flags)
        flags[:, 0] = 0
        if excluded is not None:
            flags[excluded] = 0
        return flags.scatter_(1, target_ids, 1).sum(1)  # always count the target itself

    return (count(torch.gt) + count(torch.ge)) / 2  # mean of the best and the worst tied rank


def _ordered(excluded: IndexPairs) -> IndexPairs:
    rows, item_ids = excluded
    if bool((rows[1:] < rows[:-1]).any()):
        rows, order = rows.sort()
        item_ids = item_ids[order]
    return rows.contiguous(), item_ids


def _between(pairs: IndexPairs | None, start: int, stop: int) -> IndexPairs | None:
    """Select the pairs of rows start..stop-1, with rows counted from start."""
    if pairs is None:
        return None
    rows, item_ids = pairs
    bounds = torch.searchsorted(rows, torch.tensor([start, stop], device=rows.device)).tolist()
    return rows[slice(*bounds)].long() - start, item_ids[slice(*bounds)].long()


def ranking_metrics(
    target_ranks: FloatArray,
    top_k: Sequence[int] = (1, 10, 20),
    segments: Masks | None = None,
) -> dict[str, float]:
    r"""Compute MRR, recall, hit rate and NDCG of rankings with one relevant item each.

    For a target of rank :math:`r` (which may end in .5 after a tie), the values are

    .. math::
        \mathrm{MRR} = \tfrac1r, \quad \mathrm{MRR@}k = \tfrac{[r \le k]}{r}, \quad
        \mathrm{Recall@}k = [r \le k], \quad
        \mathrm{NDCG@}k = \tfrac{[r \le k]}{\log_2(1 + r)}

    Each metric is the mean of its value over the rankings. With one relevant item, the ideal gain is
    1 and the hit rate (whether a relevant item is in the top k) equals the recall (the share of
    relevant items in the top k).

    Args:
        target_ranks: Ranks, at least 1, shape (rankings,); see :func:`ranks`.
        top_k: Cut-offs k, each at least 1.
        segments: Named subsets of the rankings as masks of shape (rankings,), such as ``popular``.

    Returns:
        ``mrr``, and for each k ``mrr@k``, ``recall@k``, ``hit_rate@k`` and ``ndcg@k``, averaged
        over all rankings. Each segment with rankings adds the same metrics with the suffix
        ``/NAME``. Without rankings, there are no metrics.

    >>> ranking_metrics(np.array([1.0, 4.0]), top_k=[3])
    {'mrr': 0.625, 'mrr@3': 0.5, 'recall@3': 0.5, 'hit_rate@3': 0.5, 'ndcg@3': 0.5}
    """
    target_ranks = np.asarray(target_ranks, dtype=np.float64)
    values = {"mrr": 1 / target_ranks}
    for k in top_k:
        within = (target_ranks <= k).astype(np.float64)
        values[f"mrr@{k}"] = within / target_ranks
        values[f"recall@{k}"] = values[f"hit_rate@{k}"] = within
        values[f"ndcg@{k}"] = within / np.log2(1 + target_ranks)
    metrics: dict[str, float] = {}
    for suffix, mask in named_masks(segments, len(target_ranks)).items():
        if mask.any():
            metrics |= {f"{name}{suffix}": float(np.mean(v[mask])) for name, v in values.items()}
    return metrics


def coverage(
    recommended_ids: npt.NDArray[np.integer], num_items: int, top_k: Sequence[int] = (10,)
) -> dict[str, float]:
    """Compute the share of the catalogue that is recommended to at least one user.

    Args:
        recommended_ids: Best items of each user or history, best first, (n, columns). If there are
            fewer than ``max(top_k)`` columns, each row is the complete list. 0 stands for no item.
        num_items: Size of the catalogue, at least 1.
        top_k: Cut-offs k, each at least 1.

    Returns:
        ``coverage@k`` for each k, in [0, 1].

    >>> coverage(np.array([[1, 2], [1, 3]]), num_items=4, top_k=[1, 2])
    {'coverage@1': 0.25, 'coverage@2': 0.75}
    """
    recommended = {k: np.unique(recommended_ids[:, :k]) for k in top_k}
    return {
        f"coverage@{k}": int(np.count_nonzero(item_ids)) / num_items
        for k, item_ids in recommended.items()
    }
