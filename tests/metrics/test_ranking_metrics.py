"""Ranks and ranking metrics against hand-made cases, a loop and ir-measures."""

import math

import ir_measures
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, R, nDCG
from scipy.stats import rankdata

from matinee.errors import Diverged
from matinee.metrics import best_items, coverage, ranking, ranking_metrics, ranks


def slow_rank(scores: list[float], target: int, excluded: set[int]) -> float:
    candidates = [i for i in range(1, len(scores)) if i == target or i not in excluded]
    by_rank = rankdata([-scores[i] for i in candidates], method="average")
    return float(by_rank[candidates.index(target)])


@st.composite
def rankings(draw):
    num_rows, num_items = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    row = st.lists(st.integers(-2, 2), min_size=num_items + 1, max_size=num_items + 1)
    scores = draw(st.lists(row, min_size=num_rows, max_size=num_rows))
    item = st.integers(1, num_items)
    targets = draw(st.lists(item, min_size=num_rows, max_size=num_rows))
    excluded = draw(st.lists(st.tuples(st.integers(0, num_rows - 1), item), max_size=12))
    return scores, targets, excluded


@given(case=rankings(), at_once=st.sampled_from([1, 9, 2**22]))
def test_ranks_against_scipy(case, at_once):
    scores, targets, excluded = case
    expected = [
        slow_rank(row, target, {item for r, item in excluded if r == place})
        for place, (row, target) in enumerate(zip(scores, targets, strict=True))
    ]
    table, target_ids = torch.tensor(scores).float(), torch.tensor(targets, dtype=torch.int32)
    pairs = tuple(torch.tensor(excluded, dtype=torch.int64).reshape(-1, 2).T)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_COMPARED_AT_ONCE", at_once)
        found = ranks(table, target_ids, pairs)
        assert found.dtype == torch.float32
        assert found.tolist() == expected
    if not excluded:
        assert ranks(table, target_ids).tolist() == expected


@given(case=rankings(), top_k=st.integers(1, 9))
def test_best_items_against_a_sort(case, top_k):
    scores, _, excluded = case
    table = torch.tensor(scores).float()
    table[tuple(torch.tensor(excluded, dtype=torch.int64).reshape(-1, 2).T)] = -math.inf
    item_ids, values = best_items(table, top_k)
    for row, found, told in zip(table.tolist(), item_ids.tolist(), values.tolist(), strict=True):
        candidates = [item for item in range(1, len(row)) if row[item] > -math.inf]
        best = sorted(candidates, key=lambda item: (-row[item], item))[:top_k]
        assert [item for item in found if item] == best
        assert told[: len(best)] == [row[item] for item in best]
        assert found[len(best) :] == [0] * (len(found) - len(best))


def test_best_items_of_many_equal_scores():
    scores = torch.zeros(2, 1001)
    scores[1, [900, 30]] = 1
    item_ids, _ = best_items(scores, 4)
    assert item_ids.tolist() == [[1, 2, 3, 4], [30, 900, 1, 2]]
    with pytest.raises(Diverged):
        best_items(scores.index_fill(1, torch.tensor([7]), math.nan), 4)


def test_constant_scores_rank_in_the_middle():
    scores, targets = torch.zeros(3, 101), torch.tensor([1, 50, 100])
    assert ranks(scores, targets).tolist() == [50.5] * 3


def test_ties_count_half():
    scores = torch.tensor([[9.0, 5, 3, 3, 3, 1]])
    assert ranks(scores, torch.tensor([3])).tolist() == [3.0]
    excluded = (torch.tensor([0, 0]), torch.tensor([1, 2]))
    assert ranks(scores, torch.tensor([3]), excluded).tolist() == [1.5]


def test_the_padding_is_never_a_candidate():
    for padding in (-math.inf, 0.0, math.inf, math.nan):
        scores = torch.tensor([[padding, 1.0, 2.0]])
        assert ranks(scores, torch.tensor([1])).tolist() == [2.0]


def test_an_excluded_target_still_ranks():
    scores = torch.tensor([[0.0, 1.0, 3.0, 2.0]])
    excluded = (torch.tensor([0, 0, 0]), torch.tensor([1, 2, 1]))
    assert ranks(scores, torch.tensor([1]), excluded).tolist() == [2.0]


def test_infinite_scores_rank():
    scores = torch.tensor([[0.0, -math.inf, math.inf, 0.0, -math.inf]])
    assert ranks(scores, torch.tensor([1])).tolist() == [3.5]


def test_one_item_and_no_rows():
    assert ranks(torch.zeros(1, 2), torch.tensor([1])).tolist() == [1.0]
    assert ranks(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_ranks_do_not_change_the_scores():
    scores = torch.randn(4, 6)
    before = scores.clone()
    ranks(scores, torch.tensor([1, 2, 3, 4]), (torch.tensor([1, 0]), torch.tensor([2, 1])))
    assert torch.equal(scores, before)


def test_nan_is_an_error():
    scores = torch.zeros(2, 4)
    scores[1, 3] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        ranks(scores, torch.tensor([1, 1]))


@pytest.mark.parametrize("target", [0, 4, -1])
def test_a_target_that_is_no_item_is_an_error(target):
    with pytest.raises(ValueError, match=r"give ids in 1\.\.3"):
        ranks(torch.zeros(1, 4), torch.tensor([target]))


def test_ranking_metrics_against_ir_measures():
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(31.0), (40, 1)), axis=1)  # no ties
    targets = rng.integers(1, 31, 40)
    qrels = {f"q{q}": {f"d{target}": 1} for q, target in enumerate(targets)}
    run = {
        f"q{q}": {f"d{item}": float(row[item]) for item in range(1, 31)}
        for q, row in enumerate(scores)
    }
    measures = {"mrr": RR}
    for k in (1, 5, 20):
        measures |= {f"mrr@{k}": RR @ k, f"recall@{k}": R @ k, f"ndcg@{k}": nDCG @ k}
    oracle = ir_measures.calc_aggregate(measures.values(), qrels, run)
    found = ranks(torch.from_numpy(scores), torch.from_numpy(targets))
    computed = ranking_metrics(found.numpy(), top_k=(1, 5, 20))
    for name, measure in measures.items():
        assert computed[name] == pytest.approx(oracle[measure], rel=1e-6), name
    assert computed["hit_rate@5"] == computed["recall@5"]


def test_ranking_metrics_by_hand():
    found = ranking_metrics(np.array([1, 2, 10.5], dtype=np.float32), top_k=(1, 10))
    assert found == {
        "mrr": pytest.approx((1 + 1 / 2 + 1 / 10.5) / 3),
        "mrr@1": pytest.approx(1 / 3),
        "recall@1": pytest.approx(1 / 3),
        "hit_rate@1": pytest.approx(1 / 3),
        "ndcg@1": pytest.approx(1 / 3),
        "mrr@10": pytest.approx(1.5 / 3),
        "recall@10": pytest.approx(2 / 3),
        "hit_rate@10": pytest.approx(2 / 3),
        "ndcg@10": pytest.approx((1 + 1 / math.log2(3)) / 3),
    }


def test_sums_are_taken_in_double_precision():
    found = ranking_metrics(np.full(1000, 3, dtype=np.float32), top_k=())
    assert found["mrr"] == pytest.approx(1 / 3, rel=1e-12)


def test_segments_average_over_their_own_rankings():
    popular = np.array([True, False, True])
    segments = {"popular": popular, "rare": ~popular, "none": np.zeros(3, bool)}
    found = ranking_metrics(np.array([1.0, 2.0, 4.0]), top_k=(2,), segments=segments)
    assert found["mrr/popular"] == pytest.approx(0.625)
    assert found["recall@2/rare"] == 1
    assert found["mrr"] == pytest.approx(1.75 / 3)
    assert not any(name.endswith("/none") for name in found)


def test_metrics_of_nothing():
    nothing = np.zeros(0)
    assert ranking_metrics(nothing) == {}
    assert coverage(np.zeros((0, 10), int), num_items=5) == {"coverage@10": 0.0}


def test_coverage_counts_items_once_and_padding_never():
    recommended = np.array([[1, 2, 0], [2, 3, 0]])
    assert coverage(recommended, 6, (1, 2, 10)) == {
        "coverage@1": pytest.approx(2 / 6),
        "coverage@2": pytest.approx(3 / 6),
        "coverage@10": pytest.approx(3 / 6),
    }
