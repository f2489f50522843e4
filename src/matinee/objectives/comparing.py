"""Comparing: score targets and their negatives for a loss."""

from torch import Tensor

from matinee.contracts import NegativeSampler, RankingScores, SequenceNetwork


def compare(
    network: SequenceNetwork, sampler: NegativeSampler, representations: Tensor, target_ids: Tensor
) -> RankingScores:
    """Draw negatives for some targets and score both.

    If the sampler excludes the target and its draws are shared, the negatives of a target are those of
    the draw that are other items. Their distribution is the same as in a draw that excludes the target;
    only their number differs between targets.

    Args:
        network: Scores the items.
        sampler: Draws the negatives; fitted.
        representations: Representation of the history of each target, (n, dim).
        target_ids: Items in 1..num_items, (n,).
    """
    negatives = sampler.sample(target_ids)  # (n, k) or (1, k)
    scores = RankingScores(
        positive=network.score(representations, target_ids),
        negative=network.score(representations, negatives),
        positive_log_q=sampler.log_probability(target_ids),
        negative_log_q=sampler.log_probability(negatives),
    )
    if len(negatives) != 1 or not sampler.exclude_target:
        return scores
    hits = negatives == target_ids.unsqueeze(1)  # (n, k)
    return scores._replace(
        negative=scores.negative.masked_fill(hits, float("-inf")),
        counted=(negatives.shape[1] - hits.sum(1)).to(scores.negative.dtype),
    )
