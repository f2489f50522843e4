"""Metrics of recommended lists besides accuracy.

Lists are item ids, best first, (n, k); 0 stands for no item and counts nowhere. Metrics of single lists
have the shape (n,), NaN for a list without items.
"""

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


def novelty(lists: Ids, item_counts: Ids) -> Floats:
    r"""Average the self-information of the items, in bits.

    .. math:: \frac1{|L|} \sum_{i \in L} -\log_2 \frac{\max(c_i, 1)}{\sum_j c_j}

    (Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, PNAS 2010, with
    interactions in place of users.) An item that train does not contain counts as if it occurred once.

    Args:
        lists: Recommended items, (n, k).
        item_counts: Interactions of each item in train, (num_items + 1,); entry 0 is ignored.

    >>> novelty(np.array([[1, 2]]), np.array([0, 4, 2, 2]))
    array([1.5])
    """
    counts = np.asarray(item_counts, dtype=np.float64)
    return _mean_over_list(-np.log2(np.maximum(counts, 1) / counts[1:].sum()), lists)


def popularity(lists: Ids, item_counts: Ids) -> Floats:
    r"""Average how often the items occur in train, :math:`\frac1{|L|} \sum_{i \in L} c_i`.

    The average recommendation popularity of Yin et al. (Challenging the long tail recommendation, VLDB
    2012).

    Args:
        lists: Recommended items, (n, k).
        item_counts: Interactions of each item in train, (num_items + 1,).

    >>> popularity(np.array([[1, 2], [2, 0]]), np.array([0, 4, 2, 2]))
    array([3., 2.])
    """
    return _mean_over_list(np.asarray(item_counts, dtype=np.float64), lists)


def diversity(lists: Ids, vectors: npt.NDArray[np.floating]) -> Floats:
    r"""Average the dissimilarity of all pairs of items in a list.

    .. math:: \frac{2}{|L| (|L| - 1)} \sum_{i < j \in L} 1 - \cos(v_i, v_j)

    (Intra-list similarity of Ziegler et al., Improving recommendation lists through topic
    diversification, WWW 2005, as a distance.) An item whose vector is 0 is similar to no other item. NaN for
    a list with fewer than two items.

    Args:
        lists: Recommended items, (n, k).
        vectors: A vector for each item, such as its genres or its embedding, (num_items + 1, dim).

    >>> diversity(np.array([[1, 2, 3]]), np.array([[0, 0], [1, 0], [2, 0], [0, 1]])).round(3)
    array([0.667])
    """
    vectors = np.asarray(vectors, dtype=np.float64).copy()
    vectors[0] = 0
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    has_norm = norms[:, 0] > 0
    found = np.full(len(lists), np.nan)
    for number, items in enumerate(lists):  # the sum over pairs, from the norm of the sum
        present = items[items > 0]
        count = len(present)
        if count > 1:
            total = unit[present].sum(0)
            similar = (total @ total - np.count_nonzero(has_norm[present])) / (count * (count - 1))
            found[number] = 1 - similar
    return found


def serendipity(lists: Ids, target_ids: Ids, item_counts: Ids) -> Floats:
    r"""Mark the lists that contain the target while a list of the most popular items does not.

    .. math:: [t \in L] \cdot [t \notin P_k]

    (Unexpectedness against a primitive recommender, Ge, Delgado-Battenfeld & Jannach, Beyond accuracy,
    RecSys 2010.) Of equally popular items at the end of :math:`P_k`, those with lower ids count as popular.

    Args:
        lists: Recommended items, (n, k).
        target_ids: The relevant item of each list, (n,).
        item_counts: Interactions of each item in train, (num_items + 1,).

    >>> serendipity(np.array([[2], [1]]), np.array([2, 1]), np.array([0, 4, 2]))
    array([1., 0.])
    """
    counts = np.asarray(item_counts, dtype=np.float64)[1:]
    popular = np.argsort(-counts, kind="stable")[: lists.shape[1]] + 1
    hit = (lists == np.asarray(target_ids)[:, None]).any(1)
    marks: Floats = (hit & ~np.isin(target_ids, popular)).astype(np.float64)
    return marks


def gini(lists: Ids, num_items: int) -> float:
    r"""Compute how unequally the items of the catalogue are recommended: 0 equally, near 1 one item alone.

    .. math:: G = \frac{1}{m} \sum_{j=1}^{m} (2j - m - 1) \frac{f_{(j)}}{\bar f m}

    with the frequencies :math:`f_{(1)} \le \dots \le f_{(m)}` of the m items in all lists (Fleder &
    Hosanagar, Blockbuster culture's next rise or fall, Management Science 2009).

    Args:
        lists: Recommended items, (n, k).
        num_items: Size of the catalogue, at least 1.

    Returns:
        The index, in [0, 1 - 1 / num_items]; NaN if nothing is recommended.

    >>> gini(np.array([[1], [2], [3], [4]]), 4), gini(np.array([[1], [1]]), 4)
    (0.0, 0.75)
    """
    frequencies = np.sort(np.bincount(lists.ravel(), minlength=num_items + 1)[1:])
    total = int(frequencies.sum())
    if total == 0:
        return float("nan")
    places = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float(places @ frequencies / (num_items * total))


def miscalibration(
    lists: Ids, profiles: npt.NDArray[np.floating], labels: npt.NDArray[np.floating]
) -> Floats:
    r"""Compare the labels of a list with those of the user's history, by the Kullback-Leibler divergence.

    .. math::
        \sum_g p(g) \log_2 \frac{p(g)}{\tilde q(g)}, \qquad \tilde q = (1 - \alpha) q + \alpha p, \quad
        \alpha = 0.01

    (Steck, Calibrated recommendations, RecSys 2018, equations 2 to 6, all items weighted equally.) p is the
    distribution of the labels in the history, q in the list; an item with several labels shares its weight
    among them. 0 is perfectly calibrated. NaN where the history or the list has no label.

    Args:
        lists: Recommended items, (n, k).
        profiles: Weight of each label in the history of each list, (n, labels), not negative.
        labels: Weight of each label for each item, (num_items + 1, labels); rows sum to 1, or to 0 without a
            label.

    >>> miscalibration(np.array([[1], [2]]), np.array([[1, 0], [1, 0]]), np.eye(3)[:, 1:]).round(2)
    array([0.  , 6.64])
    """
    labels = np.asarray(labels, dtype=np.float64).copy()
    labels[0] = 0
    p, q = _normalized(np.asarray(profiles, dtype=np.float64)), _normalized(labels[lists].sum(1))
    smoothed = 0.99 * q + 0.01 * p
    ratio = np.divide(p, smoothed, out=np.ones_like(p), where=p > 0)
    divergences: Floats = (p * np.log2(ratio)).sum(1)
    divergences[np.isnan(q).any(1)] = np.nan
    return divergences


def _normalized(weights: Floats) -> Floats:
    """Divide each row by its sum; NaN where that is 0."""
    totals = weights.sum(1, keepdims=True)
    shares = np.full_like(weights, np.nan)
    np.divide(weights, totals, out=shares, where=totals > 0)
    return shares


def _mean_over_list(values: Floats, lists: Ids) -> Floats:
    present = lists > 0
    counts = present.sum(1)
    sums = np.where(present, values[lists], 0).sum(1)
    means: Floats = np.full(len(lists), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means
