"""Packed runs: a table replaces run folders without loss, in reports and in its content."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from matinee.cli import main
from matinee.errors import MatineeError
from matinee.verbs.report.comparison import compare
from matinee.verbs.report.output import report
from matinee.verbs.report.run_files import PACKED, TEXTS, find_run_files, pack, read_packed

LOGS = Path(__file__).resolve().parents[3] / "lightning_logs"


def remove_runs(folder: Path) -> None:
    for path in list(folder.rglob("result.json")):
        shutil.rmtree(path.parent)


def test_a_report_is_the_same_from_folders_and_from_their_table(write_run, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for seed in (0, 1):
        folder = write_run(f"runs/mf/{seed}", seed=seed, overrides=("model.note=ü",))
        (folder / "metrics.csv").write_text("epoch,val/rmse\n0,2.0\n1,1.0\n")
    write_run("runs/ncf/0", model="ncf", validation=0.5)
    before = report([runs], save=tmp_path / "before", html=tmp_path / "before/page.html")
    pack(find_run_files([runs]), runs)
    remove_runs(runs)
    assert report([runs], save=tmp_path / "after", html=tmp_path / "after/page.html") == before
    for name in ("report.csv", "page.html"):
        assert (tmp_path / "after" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()


def test_the_table_gives_back_texts_and_arrays(write_run, tmp_path: Path) -> None:
    write_run("a/ratings")
    ranked = write_run("a/ranks")
    (ranked / "overrides.yaml").unlink()
    arrays = {
        "user": np.array(["u", "ü", "v"]),
        "rank": np.array([1, 2.5, 3], np.float32),
        "history_length": np.array([0, 1, 2], np.int32),
        "popularity=low": np.array([True, False, True]),
    }
    np.savez(ranked / "per_user.npz", **arrays)
    folders = {run.folder: run for run in find_run_files([tmp_path / "a"])}
    packed = {run.folder: run for run in read_packed(pack(list(folders.values()), tmp_path / "a"))}
    assert packed.keys() == folders.keys()
    for folder, run in packed.items():
        assert all(run.text(name) == folders[folder].text(name) for name in TEXTS)
        found, wanted = run.per_user(), folders[folder].per_user()
        assert found.keys() == wanted.keys()
        for name, values in found.items():
            assert np.array_equal(values, wanted[name]), name
            assert values.dtype.kind == wanted[name].dtype.kind, name
            assert name == "user" or values.dtype == wanted[name].dtype
    assert packed[ranked].text("overrides.yaml") is None


def test_a_folder_counts_before_its_row_and_packing_again_replaces_it(
    write_run, tmp_path: Path
) -> None:
    first = write_run("runs/a", validation=3.0)
    write_run("runs/b", model="ncf")
    runs = tmp_path / "runs"
    pack(find_run_files([runs]), runs)
    shutil.rmtree(runs / "b")
    result = first / "result.json"
    result.write_text(result.read_text().replace('"val/rmse": 3.0', '"val/rmse": 7.0'))

    def validation() -> list[float]:
        (comparison,), remarks = compare([tmp_path])
        assert remarks == []
        return [experiment.mean("val/rmse") for experiment in comparison.groups]

    assert validation() == [7.0, 1.0]
    pack(find_run_files([first]), runs)
    shutil.rmtree(first)
    assert validation() == [7.0, 1.0]


def test_what_cannot_be_packed_or_read_is_refused(write_run, tmp_path: Path) -> None:
    folder = write_run("runs/a")
    other = write_run("runs/b")
    arrays = find_run_files([folder])[0].per_user()
    np.savez(other / "per_user.npz", **arrays | {"count": arrays["count"] + 0.5})
    runs = tmp_path / "runs"
    with pytest.raises(MatineeError, match="count has not the same type in all runs"):
        pack(find_run_files([runs]), runs)
    (other / "per_user.npz").unlink()
    with pytest.raises(MatineeError, match=r"b/per_user\.npz is missing"):
        pack(find_run_files([runs]), runs)
    assert not (runs / PACKED).exists()
    (runs / PACKED).write_bytes(b"PAR1 torn")
    with pytest.raises(MatineeError, match=r"runs\.parquet is not a table of packed runs"):
        report([runs])


def test_the_command_line_packs(write_run, tmp_path: Path, capsys) -> None:
    runs = write_run("runs/a").parent
    main(["report", str(runs), "--pack", str(tmp_path / "new")])
    assert capsys.readouterr().err == f"written: {tmp_path / 'new/runs.parquet'}\n"
    assert [run.folder.resolve() for run in read_packed(tmp_path / "new/runs.parquet")] == [
        runs / "a"
    ]
    with pytest.raises(SystemExit):
        main(["report", str(runs), "--by", "seed", "--pack", str(tmp_path)])
    assert "--by cannot be combined with other options" in capsys.readouterr().err


def test_each_committed_run_is_stored_once() -> None:
    reference = LOGS / "reference"
    folders = [path.parent for path in reference.rglob("result.json")]
    rows = [run.folder for path in reference.rglob(PACKED) for run in read_packed(path)]
    assert len(folders) == 3 and len(rows) == 73
    assert not set(folders) & set(rows)
    _, remarks = compare([reference])
    assert remarks == []
