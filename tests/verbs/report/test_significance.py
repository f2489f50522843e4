"""Paired comparisons against other libraries, cases made by hand and simulations."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from matinee.errors import MatineeError
from matinee.verbs.report.comparison import compare
from matinee.verbs.report.run_files import find_run_files
from matinee.verbs.report.significance import (
    Difference,
    UserSums,
    bootstrap,
    differences,
    holm,
    paired,
    read_user_sums,
    signed_rank,
)
from matinee.verbs.report.tables import differences_title, metrics_table


def difference(ours, theirs) -> Difference:
    return paired({"ours": ours}, theirs)["ours"]


def user_sums(totals, counts=None, users=None, power=1) -> UserSums:
    totals = np.asarray(totals, dtype=np.float64)
    counts = np.ones(len(totals)) if counts is None else np.asarray(counts, dtype=np.float64)
    names = np.array([f"{i:05}" for i in range(len(totals))] if users is None else users)
    return UserSums(names, counts, totals, power)


def test_one_row_a_user_is_the_usual_paired_bootstrap() -> None:
    rng = np.random.default_rng(1)
    ours, theirs = rng.random(80), rng.random(80)
    found = difference({"d": [user_sums(ours)]}, {"d": [user_sums(theirs)]})
    assert found.value == pytest.approx(np.mean(ours - theirs))
    usual = stats.bootstrap(
        (ours - theirs,), np.mean, method="percentile", n_resamples=10_000, rng=rng
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((usual.low, usual.high), abs=0.006)
    assert found.p == stats.wilcoxon(ours, theirs).pvalue
    assert (found.users, found.draws) == (80, 1)


def test_reference_runs_against_scipy() -> None:
    """The biased factorization and the global mean, one seed, as a ratio of resampled sums."""
    folder = Path(__file__).resolve().parents[3] / "lightning_logs/reference/ml-100k/chronological"
    runs = {run.folder.parent.name: run.per_user() for run in find_run_files([folder])}
    arrays = [
        (run["count"].astype(float), run["count"] * run["rmse"] ** 2, run["user"])
        for run in (runs["global_mean"], runs["mf_bias"])
    ]
    (counts, ours, users), (_, theirs, _) = arrays

    def apart(a, b, n, axis):
        return np.sqrt(a.sum(axis) / n.sum(axis)) - np.sqrt(b.sum(axis) / n.sum(axis))

    sums = [user_sums(totals, counts, users, 2) for totals in (ours, theirs)]
    order = np.argsort(users)
    ordered = [
        UserSums(entry.users[order], entry.counts[order], entry.totals[order], 2) for entry in sums
    ]
    found = difference({"d": [ordered[0]]}, {"d": [ordered[1]]})
    usual = stats.bootstrap(
        (ours, theirs, counts), apart, paired=True, method="percentile", n_resamples=4000,
        rng=np.random.default_rng(7),
    ).confidence_interval  # fmt: skip
    assert found.value == pytest.approx(1.1182 - 1.0269, abs=1e-3)
    assert (found.low, found.high) == pytest.approx(tuple(usual), abs=0.0015)


def test_users_are_resampled_with_all_their_rows_in_all_draws(monkeypatch) -> None:
    """Against a loop over resamples that gathers the rows themselves, drawn by the same generator."""
    rng = np.random.default_rng(2)
    draws = {"first": ["a", "b", "c", "e"], "second": ["b", "c", "d"]}
    rows = {
        (model, draw, run, user): rng.random(counts)
        for draw, users in draws.items()
        for user, counts in zip(users, rng.integers(1, 5, len(users)), strict=True)
        for model in ("ours", "theirs")
        for run in range(2)
    }

    def model(name: str):
        return {
            draw: [
                user_sums(
                    [rows[name, draw, run, user].sum() for user in users],
                    [len(rows[name, draw, run, user]) for user in users],
                    users,
                    2,
                )
                for run in range(2)
            ]
            for draw, users in draws.items()
        }

    def metric(name: str, draw: str, users: list[str]) -> float:
        figures = []
        for run in range(2):
            errors = [rows[name, draw, run, user] for user in users if user in draws[draw]]
            figures.append(np.sqrt(np.concatenate(errors).mean()))
        return float(np.mean(figures))

    def by_hand(users: list[str]) -> float:
        held = [draw for draw in draws if set(users) & set(draws[draw])]
        return float(
            np.mean([metric("ours", draw, users) - metric("theirs", draw, users) for draw in held])
        )

    monkeypatch.setattr("matinee.verbs.report.significance.RESAMPLES", 500)
    found = difference(model("ours"), model("theirs"))
    assert found.value == pytest.approx(by_hand(list("abcde")))
    drawn = np.random.default_rng(0).integers(5, size=(500, 5))
    resampled = [by_hand(["abcde"[index] for index in row]) for row in drawn]
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(resampled, [2.5, 97.5])))


def test_equal_runs_differ_by_exactly_zero() -> None:
    """In every resample, although a matrix product may add its columns in different orders."""
    totals = np.random.default_rng(8).random((943, 3))
    drawn = np.random.default_rng(9).multinomial(943, np.full(943, 1 / 943), 400).astype(float)

    def difference(totals, counts, runs):
        return totals[:, :3] / counts - totals[:, 3:] / counts

    resamples = [(drawn, np.ones((1, 6)))]
    found = bootstrap(difference, [totals, totals.copy()], np.ones((943, 1)), resamples)
    assert not found.any()


def test_intervals_cover_the_truth_and_the_test_keeps_its_level(monkeypatch) -> None:
    """Users differ in their rows and in their errors; no model is better."""
    monkeypatch.setattr("matinee.verbs.report.significance.RESAMPLES", 1000)
    rng = np.random.default_rng(3)
    covered, rejected = [], []
    for _ in range(300):
        counts = rng.integers(1, 20, 60)
        own = rng.normal(0, 1, 60) + rng.normal(0, 1, 60) / np.sqrt(counts)
        found = difference(
            {"d": [user_sums(counts * own, counts)]},
            {"d": [user_sums(np.zeros(60), counts)]},
        )
        covered.append(found.low <= 0 <= found.high)
        rejected.append(found.p < 0.05)
    assert 0.90 <= np.mean(covered) <= 0.985
    assert np.mean(rejected) <= 0.08
    shifted = difference(
        {"d": [user_sums(counts * (own + 1), counts)]}, {"d": [user_sums(np.zeros(60), counts)]}
    )
    assert shifted.low > 0 and shifted.p < 0.001


def test_rows_of_one_user_are_not_independent() -> None:
    """Thirty users with a hundred equal rows each say no more than thirty users with one."""
    values = np.random.default_rng(4).normal(size=30)
    zeros = np.zeros(30)
    one = difference({"d": [user_sums(values)]}, {"d": [user_sums(zeros)]})
    hundred = np.full(30, 100)
    many = difference({"d": [user_sums(100 * values, hundred)]}, {"d": [user_sums(zeros, hundred)]})
    assert (many.low, many.high) == pytest.approx((one.low, one.high))
    assert many.p == one.p


def test_holm_by_hand() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])).tolist() == pytest.approx(
        [0.03, 0.06, 0.06, 0.02]
    )
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []


def test_signed_rank_by_hand() -> None:
    # all five positive: 2 of the 32 sign patterns are as extreme
    assert signed_rank(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 / 32)
    assert signed_rank(np.zeros(9)) == 1.0
    assert signed_rank(np.array([1.0, -1.0, 0.0])) == pytest.approx(1.0)


def test_zeros_are_ranked_but_take_no_side() -> None:
    """Pratt's rule by its formula: ranks of the rest have a sum of known mean and variance."""
    values = np.random.default_rng(6).normal(0.3, 1, 80).round(1)
    values[:30] = 0
    ranked = stats.rankdata(np.abs(values))
    rest = ranked[values != 0]
    score = (ranked[values > 0].sum() - rest.sum() / 2) / np.sqrt(np.sum(rest**2) / 4)
    assert signed_rank(values) == pytest.approx(2 * stats.norm.sf(abs(score)))


def test_models_are_compared_with_the_best_on_validation(write_run, tmp_path: Path) -> None:
    write_run("a", model="better on test", validation=1.1, errors={"x": [0.1], "y": [0.2]})
    write_run("b", model="chosen", validation=1.0, errors={"x": [0.4], "y": [0.5]})
    (comparison,), _ = compare([tmp_path])
    found, problems = differences(comparison)
    assert list(found) == ["better on test"] and not problems
    assert found["better on test"].value == pytest.approx(np.sqrt(0.15) - np.sqrt(0.45))


def test_only_equal_draws_are_paired(write_run, tmp_path: Path) -> None:
    for seed in range(3):
        write_run(f"a{seed}", model="best", validation=0.9, seed=seed)
    write_run("b1", model="other", seed=1)
    write_run("b7", model="other", seed=7)
    write_run("c", model="alone", seed=9)
    (comparison,), _ = compare([tmp_path])
    assert "other" in comparison.remark and "alone" in comparison.remark
    found, problems = differences(comparison)
    assert found["other"].draws == 1 and "alone" not in found
    assert any(
        "alone is not compared" in problem and "same draw" in problem for problem in problems
    )


def test_models_that_cannot_be_compared_are_named(write_run, tmp_path: Path) -> None:
    write_run("best", model="best", validation=0.9)
    write_run("fine", model="fine")
    (write_run("gone", model="gone") / "per_user.npz").unlink()
    (write_run("torn", model="torn") / "per_user.npz").write_bytes(b"PK torn")
    write_run("odd", model="odd", errors={"ann": [1.0], "bob": [1.0], "zoe": [1.0]})
    swapped = write_run("swapped", model="swapped", errors={"ann": [9.0, 9.0], "bob": [9.0]})
    (swapped / "per_user.npz").write_bytes((tmp_path / "fine/per_user.npz").read_bytes())
    (comparison,), _ = compare([tmp_path])
    found, problems = differences(comparison)
    assert list(found) == ["fine"]
    told = " ".join(problems)
    for words in ("gone/per_user.npz is missing", "torn/per_user.npz cannot be read",
                  "odd is not compared: its per-user values are for other users",
                  "swapped/per_user.npz makes a test rmse"):  # fmt: skip
        assert words in told
    (tmp_path / "best/per_user.npz").unlink()
    assert differences(comparison)[1][0].startswith("Nothing is compared with best")


def test_one_user_is_no_sample(write_run, tmp_path: Path) -> None:
    write_run("a", model="a", validation=0.5, errors={"u": [1.0, 2.0]})
    write_run("b", model="b", errors={"u": [1.0, 3.0]})
    found, (problem,) = differences(compare([tmp_path])[0][0])
    assert not found and "two users or more" in problem


def test_equal_runs_alone_and_together() -> None:
    """A model's interval does not depend on which others are compared; equal models differ by 0."""
    rng = np.random.default_rng(5)
    best, other = [user_sums(rng.random(9))], [user_sums(rng.random(9))]
    together = paired({"other": {"d": other}, "same": {"d": best}}, {"d": best})
    assert together["other"] == difference({"d": other}, {"d": best})
    assert together["same"] == Difference(0.0, 0.0, 0.0, 1.0, 9, 1)


def test_windows_are_averaged_by_user(write_run, tmp_path: Path) -> None:
    folder = write_run("run")
    windows = {"user": ["u", "u", "v"], "history_length": [0, 1, 0], "mrr": [1.0, 0.25, 0.5]}
    np.savez(
        folder / "per_user.npz", **{name: np.array(values) for name, values in windows.items()}
    )
    result = json.loads((folder / "result.json").read_text())
    result["metrics"]["test/mrr"] = (1 + 0.25 + 0.5) / 3
    result["headline"] = {"metric": "mrr", "higher_is_better": True}
    (folder / "result.json").write_text(json.dumps(result))
    (comparison,), _ = compare([tmp_path])
    sums = read_user_sums(comparison.groups[0].runs[0])
    assert sums.users.tolist() == ["u", "v"]
    assert sums.totals.tolist() == [1.25, 0.5] and sums.counts.tolist() == [2, 1]


def test_a_metric_that_no_report_knows_is_compared_by_its_own_rule(
    write_run, tmp_path: Path
) -> None:
    """Root mean cubes, higher is better: order, metrics and differences come from the record alone."""
    for name, values in {"low": [1.0, 2.0], "high": [2.0, 3.0]}.items():
        folder = write_run(name, model=name)
        path = folder / "result.json"
        result = json.loads(path.read_text())
        figure = (sum(value**3 for value in values) / 2) ** (1 / 3)
        result["metrics"] = {"val/strength": figure, "test/strength": figure}
        result["headline"] = {"metric": "strength", "higher_is_better": True, "power": 3}
        path.write_text(json.dumps(result))
        np.savez(folder / "per_user.npz", user=np.array(["u", "v"]), strength=np.array(values))
    (comparison,), _ = compare([tmp_path])
    assert [experiment.label for experiment in comparison.groups] == ["low", "high"]
    found, problems = differences(comparison)
    assert not problems
    assert found["low"].value == pytest.approx((9 / 2) ** (1 / 3) - (35 / 2) ** (1 / 3))
    assert "below 0 is worse" in differences_title(comparison)
    assert "test STRENGTH" in metrics_table(comparison)


def test_runs_with_other_headlines_are_not_compared(write_run, tmp_path: Path) -> None:
    write_run("a")
    path = write_run("b") / "result.json"
    result = json.loads(path.read_text())
    result["headline"] = {"metric": "mae", "higher_is_better": False}
    path.write_text(json.dumps(result))
    assert len(compare([tmp_path])[0]) == 2
    del result["headline"]
    path.write_text(json.dumps(result))
    with pytest.raises(MatineeError, match="headline is missing"):
        compare([tmp_path])
