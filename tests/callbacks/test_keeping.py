"""What is kept of a fit lets it end as it would have ended."""

from pathlib import Path

from matinee import experiment
from matinee.run_folder import read_result


def test_a_run_that_had_stopped_early_is_not_trained_on(run) -> None:
    folder: Path = run(
        "model=mf", "optimizer.lr=0", "trainer.max_epochs=9", "callbacks.early_stopping.patience=2",
        "callbacks.inspection=null",
    )  # fmt: skip
    finished = read_result(folder)
    assert finished["fit"]["epochs"] == 3, "nothing gets better after the first"
    table = (folder / "metrics.csv").read_bytes()
    (folder / "result.json").unlink()  # killed while it was measured
    experiment.resume(folder)
    assert read_result(folder)["fit"] == finished["fit"]
    assert read_result(folder)["metrics"] == finished["metrics"]
    assert (folder / "metrics.csv").read_bytes() == table
