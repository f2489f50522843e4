"""Ranking metrics: ranks of targets among all items, and what is computed from them.

Sums are taken in float64 on the host, so a metric does not depend on batch size or accelerator.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matinee.errors import Diverged
from matinee.metrics.masks import FloatArray, Masks, named_masks

_COMPARED_AT_ONCE = 2**22  # scores, so that their masks stay in a processor's cache

IndexPairs = tuple[Tensor, Tensor]  # (row, item id), integers, (pairs,) each


def ranks(scores: Tensor, target_ids: Tensor, excluded: IndexPairs | None = None) -> Tensor:
    """Rank each target among the items 1..num_items; the best rank is 1.

    The rank is 1 plus the number of candidates that score higher plus half the number of others
    that score the same: ties get their average rank, so constant scores rank in the middle.

    Args:
        scores: Scores of all items, (n, num_items + 1); column 0, the padding, is no candidate.
        target_ids: The item to rank in each row, integers in 1..num_items, (n,).
        excluded: Items that are no candidates, such as those already met, as pairs (row, item id)
            in any order, repeats allowed; see :func:`matinee.batches.met_before`. A row's
            target stays a candidate even if it is among them.

    Returns:
        Ranks, float32, (n,), on the scores' device. Halves are exact for less than 2^22 items.

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
        raise ValueError(f"a target is not an item: ids go from 1 to {width - 1}")
    pairs = None if excluded is None else _ordered(excluded)
    block = max(1, _COMPARED_AT_ONCE // width)
    parts = [
        _ranks(scores[start:stop], target_ids[start:stop], _between(pairs, start, stop))
        for start in range(0, num_rows, block)
        for stop in (min(start + block, num_rows),)
    ]
    return torch.cat(parts)


def _ranks(scores: Tensor, target_ids: Tensor, excluded: IndexPairs | None) -> Tensor:
    # a NaN makes the maximum NaN; the padding's score may be anything
    if bool(scores[:, 1:].amax(1).isnan().any()):
        raise Diverged("a score is NaN: the network has diverged or its input is broken.")
    target_ids = target_ids.unsqueeze(1)
    target_scores = scores.gather(1, target_ids)
    flags = torch.empty_like(scores, dtype=torch.float32)  # sums of floats are the fastest

    def count(compare: Callable[..., Tensor]) -> Tensor:
        compare(scores, target_scores, out=flags)
        flags[:, 0] = 0
        if excluded is not None:
            flags[excluded] = 0
        return flags.scatter_(1, target_ids, 1).sum(1)  # the target always counts itself

    return (count(torch.gt) + count(torch.ge)) / 2  # between the best and the worst of the ties


def _ordered(excluded: IndexPairs) -> IndexPairs:
    rows, item_ids = excluded
    if bool((rows[1:] < rows[:-1]).any()):
        rows, order = rows.sort()
        item_ids = item_ids[order]
    return rows.contiguous(), item_ids


def _between(pairs: IndexPairs | None, start: int, stop: int) -> IndexPairs | None:
    """Take the pairs of rows start..stop-1 and count their rows from start."""
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
    r"""Metrics of rankings with one relevant item each, averaged over the rankings.

    With the target's rank :math:`r` (a tie's average may be a half), each ranking counts as

    .. math::
        \mathrm{MRR} = \tfrac1r, \quad \mathrm{MRR@}k = \tfrac{[r \le k]}{r}, \quad
        \mathrm{Recall@}k = [r \le k], \quad
        \mathrm{NDCG@}k = \tfrac{[r \le k]}{\log_2(1 + r)}

    Because one item is relevant, its discounted gain is at most 1 and the hit rate (is any relevant
    item in the top k?) equals the recall (what share of them is?); both names are in use.

    Args:
        target_ranks: Ranks from 1, shape (rankings,), see :func:`ranks`.
        top_k: The cut-offs, each at least 1.
        segments: Named subsets as masks of shape (rankings,), such as ``popular``.

    Returns:
        ``mrr``, and for each k ``mrr@k``, ``recall@k``, ``hit_rate@k`` and ``ndcg@k``, averaged
        over all rankings; and the same with ``/NAME`` for every segment that has rankings. A mean
        over nothing is no number and is left out.

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
    """Share of the catalogue that is recommended to anybody.

    Args:
        recommended_ids: The best items of each user or sequence, best first, at least
            ``max(top_k)`` columns or else the whole list, (n, columns); 0 stands for no item.
        num_items: Size of the catalogue, at least 1.
        top_k: The cut-offs, each at least 1.

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
