"""``import matinee`` offers what people use, and takes no time."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import matinee
from matinee.experiment.run_folder import read_result


def test_every_name_is_there_and_documented() -> None:
    assert sorted(matinee.__all__) == matinee.__all__
    for name in matinee.__all__:
        assert getattr(matinee, name).__doc__
        assert f"``{name}``" in (matinee.__doc__ or "")
    assert set(matinee.__all__) <= set(dir(matinee))
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        matinee.trian  # noqa: B018
    with pytest.raises(ImportError):
        from matinee import nothing  # noqa: F401


def test_importing_it_imports_nothing_heavy() -> None:
    program = (
        "import sys, matinee\n"
        "heavy = {'torch', 'lightning', 'hydra', 'pandas', 'numpy', 'omegaconf', 'yaml'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "matinee.MatineeError\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture(scope="module")
def trained(table_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> matinee.Run:
    folder = tmp_path_factory.mktemp("face") / "run"
    return matinee.train(
        *table_overrides,
        "trainer.max_epochs=2",
        "callbacks.inspection=null",
        f"run_folder={folder}",
    )


def test_a_run_is_its_folder_and_its_tables(trained: matinee.Run) -> None:
    assert (trained.folder / "result.json").is_file()
    assert repr(trained) == f"Run({str(trained.folder)!r})"
    assert repr(matinee.Run(str(trained.folder))) == repr(matinee.Run(trained)) == repr(trained)
    recorded = read_result(trained.folder)["metrics"]
    metrics = trained.metrics()
    assert list(metrics.index) == ["train", "val", "test"]
    assert metrics.loc["test", "rmse"] == recorded["test/rmse"]
    assert metrics.loc["test", "rmse/warm"] == recorded["test/rmse/warm"]
    history = trained.history()
    assert history["epoch"].tolist() == [0, 1]
    assert history["val/rmse"].min() == pytest.approx(recorded["val/rmse"])
    users = trained.per_user()
    overall = ((users["rmse"] ** 2 * users["count"]).sum() / users["count"].sum()) ** 0.5
    assert overall == pytest.approx(recorded["test/rmse"])
    assert users["user"].str.startswith("u").all()


def test_a_loaded_run_is_evaluated_and_answers(trained: matinee.Run) -> None:
    model = matinee.load_run(trained)
    pd.testing.assert_frame_equal(matinee.evaluate(model), trained.metrics())
    assert list(matinee.evaluate(model, ["val"]).index) == ["val"]
    assert len(matinee.recommend(model, user="u3", top_k=4)) == 4
    assert matinee.predict_ratings(model, ["u3"], [100]).shape == (1,)
    assert "rmse" in matinee.report([trained]).lower()
    assert matinee.resume(trained).folder == trained.folder


def test_what_is_no_run_or_broken_gets_one_sentence(trained: matinee.Run, tmp_path: Path) -> None:
    with pytest.raises(matinee.MatineeError, match="nowhere is no run folder"):
        matinee.Run("nowhere")
    with pytest.raises(matinee.MatineeError, match=r"did you mean 'optimizer\.lr'"):
        matinee.train("optimizer.lrr=1")
    copied = tmp_path / "run"
    copied.mkdir()
    (copied / "config.yaml").write_bytes((trained.folder / "config.yaml").read_bytes())
    run = matinee.Run(copied)
    for name, read in (("metrics.csv", run.history), ("per_user.npz", run.per_user)):
        with pytest.raises(matinee.MatineeError, match=f"{name} (cannot be read|is missing)"):
            read()
        (copied / name).write_bytes(b"\x00" if name.endswith("npz") else b"")
        with pytest.raises(matinee.MatineeError, match=f"{name} cannot be read"):
            read()
    with pytest.raises(matinee.MatineeError, match="holds no result"):
        run.metrics()
