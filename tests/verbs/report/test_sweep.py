"""The table of a sweep shows what its runs recorded, by value."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from command_line import failed, matinee
from matinee.cli import main
from matinee.display.plotting import sweep_curve
from matinee.errors import MatineeError
from matinee.experiment.run_folder import read_result
from matinee.verbs.report.sweep import sweep, sweep_table


def test_values_seeds_and_sizes_are_tabulated(run, tmp_path: Path) -> None:
    for size in (8, 2):
        for seed in (0, 1):
            overrides = (f"model.embedding_dim={size}", f"seed={seed}", "trainer.max_epochs=1")
            run(*overrides, folder=f"runs/{size}/{seed}")
    table = sweep_table([tmp_path / "runs"], ["model.embedding_dim"]).set_index(
        "model.embedding_dim"
    )
    assert table.index.tolist() == [2, 8]
    assert table["runs"].tolist() == [2, 2]
    recorded = [read_result(tmp_path / f"runs/8/{seed}")["metrics"]["test/rmse"] for seed in (0, 1)]
    assert table.loc[8, "test/rmse"] == pytest.approx(np.mean(recorded))
    assert table.loc[8, "test/rmse sd"] == pytest.approx(abs(recorded[0] - recorded[1]) / 2**0.5)
    users, items = 60 + 1, 40 + 1
    assert table["parameters"].tolist() == [(users + items) * (dim + 1) + 1 for dim in (2, 8)]

    markdown = sweep([tmp_path / "runs"], ["model.embedding_dim"])
    assert f"{np.mean(recorded):.4f} ± " in markdown
    assert (tmp_path / "runs/by_embedding_dim.md").read_text() == f"{markdown}\n"
    written = pd.read_csv(tmp_path / "runs/by_embedding_dim.csv")
    assert written["val/rmse"].tolist() == table["val/rmse"].tolist()
    assert (tmp_path / "runs/by_embedding_dim.png").read_bytes()[1:4] == b"PNG"


def test_runs_that_are_no_sweep_are_refused(run, tmp_path: Path) -> None:
    run("model=mf", "name=mf", "trainer.max_epochs=1", folder="mf")
    with pytest.raises(MatineeError, match=r"model\.depth of .* is None"):
        sweep_table([tmp_path], ["model.depth"])
    with pytest.raises(MatineeError, match="there is no folder"):
        sweep_table([tmp_path / "none"], ["seed"])
    run("model=mf_bias", "name=mf_bias", "trainer.max_epochs=1", folder="mf_bias")
    with pytest.raises(MatineeError, match="differ in"):
        sweep_table([tmp_path], ["model.embedding_dim"])


def test_by_without_a_folder_gets_a_sentence(tmp_path: Path) -> None:
    done = matinee("report", "--by", "model.embedding_dim", cwd=tmp_path)
    assert "there is no folder lightning_logs" in failed(done)


def test_several_keys_are_tabulated_best_first(write_run, tmp_path: Path) -> None:
    sizes, losses = (4, 8, 16), ("mse", "huber")
    for n, (size, loss) in enumerate((size, loss) for size in sizes for loss in losses):
        chosen = {"data": {"size": size}, "loss": {"name": loss}}
        for seed in (0, 1):
            write_run(f"{n}/{seed}", seed=seed, validation=1 - n / 100 + seed / 1000, **chosen)
    main(["report", str(tmp_path), "--by", "data.size,loss.name"])
    written = pd.read_csv(tmp_path / "by_size_name.csv")
    assert written["data.size"].tolist() == [16, 16, 8, 8, 4, 4]
    assert written["loss.name"].tolist() == ["huber", "mse"] * 3
    assert written["val/rmse"].is_monotonic_increasing and written["runs"].eq(2).all()
    with pytest.raises(MatineeError, match="name a key that all runs have"):
        sweep_table([tmp_path], ["data.size", "loss.other"])


@pytest.mark.parametrize(
    ("deviation", "step", "title", "least"),
    [
        (np.nan, 1e-4, "is unknown", 0.02),
        (0.01, 1e-4, "no difference is shown", 0.02),
        (1e-5, 1e-3, "Mean and standard deviation", 0),
    ],
)
def test_the_figure_shows_validation_at_the_swept_values_without_magnifying_noise(
    deviation: float, step: float, title: str, least: float
) -> None:
    means = 1 + step * np.arange(4)
    line = pd.DataFrame({"value": [2, 4, 8, 16], "mean": means, "parameters": [10, 20, 40, 80]})
    figure = sweep_curve("dim", {"": line.assign(deviation=deviation)}, "validation RMSE")
    upper, lower = figure.axes
    assert [tick.get_text() for tick in lower.get_xticklabels()] == ["2", "4", "8", "16"]
    assert lower.get_xscale() == "log" and upper.get_ylabel() == "validation RMSE"
    assert len(upper.lines) - 2 * len(upper.containers) <= 1  # no line of test
    assert title in upper.get_title(loc="left")
    assert np.ptp(upper.get_ylim()) >= least
