import csv
import io
import shutil
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from matinee.cli import main
from matinee.config.composing import compose
from matinee.config.folders import config_dir
from matinee.display.markdown import as_markdown
from matinee.errors import MatineeError
from matinee.experiment.run_folder import read_result
from matinee.verbs.report import runs, significance
from matinee.verbs.report.comparison import compare, protocol_facts, published
from matinee.verbs.report.output import as_csv, report

REFERENCE = Path(__file__).resolve().parents[3] / "lightning_logs/reference/ml-100k"


def test_seeds_share_a_row_and_models_do_not(run, tmp_path: Path) -> None:
    results = [
        read_result(run(f"seed={seed}", "model=mf", "name=mf", folder=f"mf/{seed}"))["metrics"][
            "test/rmse"
        ]
        for seed in (0, 1)
    ]
    run("model=bias", "name=bias", folder="bias/0")
    text = report([tmp_path])
    figures = [line for line in text.split("Difference")[0].splitlines() if line.startswith("|")]
    rows = {line.split("|")[1].strip(): line for line in figures}
    mean = sum(results) / 2
    deviation = abs(results[0] - results[1]) / 2**0.5
    assert f"{mean:.4f} ± {deviation:.4f}" in rows["mf"]
    assert "±" not in rows["bias"]
    assert "All runs: trainer.max_epochs=2." in text  # what all rows share is said once


def test_a_seed_counts_once(run, tmp_path: Path) -> None:
    for folder in ("a/1", "a/2"):
        run("model=bias", "name=bias", folder=folder)
    (row,) = [line for line in report([tmp_path, tmp_path]).splitlines() if "bias" in line]
    assert "±" not in row


def test_overrides_are_part_of_the_label(run, tmp_path: Path) -> None:
    run("model=mf", "name=mf", folder="a")
    run("model=mf", "name=mf", "loss=huber", folder="b")
    assert "| mf loss=huber |" in report([tmp_path])
    assert "| mf trainer.max_epochs=2 loss=huber |" in report([tmp_path / "b"])  # a single row


def test_published_metrics_are_shown_for_the_same_data_and_protocol_only() -> None:
    every = OmegaConf.load(config_dir() / "published.yaml")["ml-100k"]
    protocol = {
        "dataset": {"sha256": every.sha256},
        "split": {"name": "chronological", "options": {"quantile": 0.8}},
    }
    assert published("ml-100k", protocol)["mf"] == {"val/rmse": 1.8}
    protocol["split"]["options"] = {"quantile": 0.5}
    assert published("ml-100k", protocol) == {}
    protocol["split"]["options"] = {"quantile": 0.8}
    options = {"validation_share": 0.1, "test_share": 0.2}
    protocol["split"] = {"name": "user_based", "options": options}
    protocol |= {"windows": {"length": 10, "stride": 10}, "filter_seen": False}
    assert published("ml-100k", protocol)["pooling"] == {"test/mrr": 0.0416}
    assert published("ml-100k", protocol | {"filter_seen": True}) == {}
    protocol["dataset"]["sha256"] = "other"
    assert published("ml-100k", protocol) == {}


def test_other_protocols_get_tables_of_their_own(run, tmp_path: Path) -> None:
    run("split=random", folder="a/0")
    run("split=chronological", folder="b/0")
    text = report([tmp_path])
    assert "random split" in text and "chronological split" in text
    assert text.count("| model") == 2


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(MatineeError, match="no finished run"):
        report([tmp_path])


def test_markdown_survives_bars_and_aligns() -> None:
    table = as_markdown(pd.DataFrame({"title": ["a|b", "c"], "rmse": ["1.25", "10.5"]}))
    lines = table.splitlines()
    assert lines[2] == "| a\\|b  | 1.25 |"
    assert len({len(line) for line in lines}) == 1


def headings(text: str) -> list[str]:
    return [line for line in text.splitlines() if " split" in line and not line.startswith("Data")]


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": {"ties": "average rank"}},
        {"protocol": {"filter_seen": True}},
        {"protocol": {"windows": {"length": 50, "stride": 1}}},
        {"protocol": {"averaging": "over users"}},
        {"protocol": {"candidates": "100 sampled items"}},
        {"protocol": {"prediction": "not clamped"}},
        {"protocol": {"dataset": {"sha256": "other", "rows": 9, "users": 3, "items": 4}}},
        {
            "protocol": {
                "split": {"name": "random", "options": {"test_share": 0.5}, "fingerprint": "x"}
            }
        },
        {"protocol": {"split": {"name": "user_tail", "options": {}, "fingerprint": "x"}}},
        {"dataset": {"name": "other data"}},
    ],
    ids=lambda other: next(iter(next(iter(other.values())))),
)
def test_no_column_mixes_protocols(write_run, tmp_path: Path, other: dict) -> None:
    write_run("a", model="mf")
    write_run("b", model="ncf", **other)
    text = report([tmp_path])
    assert text.count("| model") == 2 and "difference" not in text
    assert len(set(headings(text))) == 2, "headings tell the tables apart"
    assert "split.fingerprint" not in text
    rows = list(csv.DictReader(io.StringIO(as_csv(compare([tmp_path])[0]))))
    assert len({row["protocol"] for row in rows}) == 2


def test_draws_of_one_split_share_a_table_but_a_split_that_draws_nothing_is_one(
    write_run, tmp_path: Path
) -> None:
    write_run("a", seed=0, draw="first")
    write_run("b", seed=1, draw="second", protocol={"evaluated_windows": {"val": 3, "test": 4}})
    assert report([tmp_path]).count("| model") == 1
    write_run("c", seed=0, draw="third", split={"_target_": "no seed"})
    write_run("d", seed=1, draw="fourth", split={"_target_": "no seed"})
    text = report([tmp_path])
    assert text.count("| model") == 3
    assert len(set(headings(text))) == 3


def test_parts_of_the_data_are_counted_from_one(write_run, tmp_path: Path) -> None:
    for name, options in (
        ("a", {"fold": 2, "folds": 10, "min_item_count": 20}),
        ("b", {"fold": 2, "folds": 10, "min_item_count": 1}),
        ("c", {"fold": 0, "folds": 1, "min_item_count": 5}),
    ):
        source = {"_target_": "matinee.data.sources.movielens.load", "name": "toy"}
        dataset = {"_target_": "matinee.data.sources.subset.load", "source": source, **options}
        protocol = {"dataset": {"sha256": name, "rows": 9, "users": 3, "items": 4}}
        write_run(name, dataset=dataset, protocol=protocol, draw=name, split={"_target_": "x"})
    assert [comparison.heading for comparison in compare([tmp_path])[0]] == [
        "part 3 of 10 of toy, items of 20 rows and more, random split",
        "part 3 of 10 of toy, random split",
        "toy, items of 5 rows and more, random split",
    ]


def test_a_heading_names_data_by_their_hash_and_rows_only_if_hashes_are_equal(
    write_run, tmp_path: Path
) -> None:
    for name, data in (("a", "one"), ("b", "one"), ("c", "two")):
        protocol = {"dataset": {"sha256": data, "rows": 9, "users": 3, "items": 4}}
        write_run(name, protocol=protocol, draw=name, split={"_target_": "x"})
    assert [comparison.heading for comparison in compare([tmp_path])[0]] == [
        "toy, random split (dataset.sha256=one, split.fingerprint=a)",
        "toy, random split (dataset.sha256=one, split.fingerprint=b)",
        "toy, random split (dataset.sha256=two)",
    ]


def test_labels_tell_experiments_apart(write_run, tmp_path: Path) -> None:
    write_run("a", overrides=("model=mf", "seed=1", "trainer.max_epochs=5", "model.dim=32"))
    write_run("b", overrides=("model=mf",), trainer={"max_epochs": 5})
    write_run("c", overrides=("model=mf",), trainer={"max_epochs": 9})
    write_run("d", overrides=("split.seed=3",), split={"seed": 3})
    rows = [line.split("|")[1].strip() for line in report([tmp_path]).splitlines() if "|" in line]
    for label in (
        "mf trainer.max_epochs=5 model.dim=32",
        "mf trainer.max_epochs=5",
        "mf trainer.max_epochs=9",
        "mf split.seed=3",
    ):
        assert label in rows


def test_labels_name_epochs_but_no_key_that_cannot_change_a_result(
    write_run, tmp_path: Path
) -> None:
    epochs = ("trainer.max_epochs=1", "trainer.devices=1", "trainer.precision=bf16-mixed")
    write_run("a", overrides=("experiment=chronological/mf", *epochs))
    quiet = ("dataset@dataset.source=ml-100k", "~callbacks.inspection", "++data.segments=[history]")
    write_run("b", model="ncf", overrides=(*quiet, "trainer.accelerator=cpu", "logger=none"))
    (comparison,), _ = compare([tmp_path])
    assert {experiment.label for experiment in comparison.groups} == {
        "mf trainer.max_epochs=1 trainer.precision=bf16-mixed",
        "ncf",
    }


@pytest.mark.parametrize("name", ["chronological/mf_bias", "user_based/gru"])
def test_a_run_of_this_version_replaces_that_of_an_earlier_one(tmp_path: Path, name: str) -> None:
    shutil.copytree(REFERENCE / name, tmp_path / "then")
    for folder in sorted(path.parent for path in (tmp_path / "then").rglob("result.json")):
        overrides = OmegaConf.load(folder / "overrides.yaml")
        copied = shutil.copytree(folder, tmp_path / "now" / folder.name)
        config = compose(*overrides, "trainer=cpu", "data.segments=[history]", "log_dir=elsewhere")
        (copied / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    (comparison,), remarks = compare([tmp_path])
    assert [experiment.label for experiment in comparison.groups] == [Path(name).name]
    assert len(comparison.groups[0].runs) == 1
    assert remarks == ["1 run that a later one of the same seed replaces"]


def test_published_metrics_stay_with_a_model_whose_options_have_changed(tmp_path: Path) -> None:
    for index, rate in enumerate((0.001, 0.002)):
        copied = shutil.copytree(REFERENCE / "chronological/mf_bias", tmp_path / str(index))
        for path in copied.rglob("config.yaml"):
            config = OmegaConf.load(path)
            config.optimizer.lr = rate
            path.write_text(OmegaConf.to_yaml(config))
    (comparison,), _ = compare([tmp_path])
    labels = [f"mf_bias optimizer.lr={rate}" for rate in (0.001, 0.002)]
    assert [experiment.label for experiment in comparison.groups] == labels
    assert report([tmp_path]).count("1.5070") == 2


def test_the_best_on_validation_is_last_whatever_its_digits(write_run, tmp_path: Path) -> None:
    for folder, validation in (("a", 9.5), ("b", 10.25), ("c", 0.875)):
        write_run(folder, model=folder, validation=validation)
    (comparison,), _ = compare([tmp_path])
    assert [experiment.label for experiment in comparison.groups] == ["b", "a", "c"]


def test_runs_that_are_left_out_are_named(write_run, tmp_path: Path) -> None:
    write_run("a", errors={"u": [4.0], "v": [4.0]})
    write_run("b", errors={"u": [1.0], "v": [1.0]})
    stopped = write_run("c", model="ncf")
    (stopped / "result.json").rename(stopped / "protocol.json")
    (write_run("d") / "result.json").unlink()  # a range test, say, which is no run
    text = report([tmp_path, tmp_path / "a"])
    assert (
        "Left out: 1 run that a later one of the same seed replaces; 1 run not finished"
        in " ".join(text.split())
    )
    assert "| 1.0000 |" in " ".join(text.split()) and "2.0000" not in text


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "result.json",
            '{"metrics": {}, "protocol": {}, "environment": {}}',
            "is no result of a run .headline is missing",
        ),
        ("result.json", "[", "is no JSON"),
        ("config.yaml", "seed: 1", "is no whole config"),
        ("config.yaml", "{", "cannot be read"),
        ("overrides.yaml", "{", "cannot be read"),
    ],
)
def test_broken_runs_are_named(
    write_run, tmp_path: Path, name: str, content: str, sentence: str
) -> None:
    (write_run("a") / name).write_text(content)
    with pytest.raises(MatineeError, match=sentence) as raised:
        report([tmp_path])
    assert str(tmp_path / "a" / name) in str(raised.value)


def test_saved_metrics_are_long_and_tidy(write_run, tmp_path: Path) -> None:
    for seed, error in ((0, 1.0), (1, 4.0)):
        write_run(f"runs/{seed}", seed=seed, errors={"u": [error], "v": [error]})
    text = report([tmp_path / "runs"], save=tmp_path / "new/report")
    assert (tmp_path / "new/report/report.md").read_text() == f"{text}\n"
    table = pd.read_csv(tmp_path / "new/report/report.csv").set_index("metric")
    assert table.index.tolist() == ["val/rmse", "test/rmse"]
    row = table.loc["test/rmse"]
    assert (row["mean"], row["std"], row["n"], row["seeds"]) == (
        1.5,
        np.std([1, 2], ddof=1),
        2,
        "0 1",
    )
    assert sorted(path.name for path in (tmp_path / "new/report").iterdir()) == [
        "report.csv",
        "report.md",
    ]


def test_places_that_cannot_be_written(write_run, tmp_path: Path) -> None:
    write_run("runs/a")
    (tmp_path / "file").write_text("")
    with pytest.raises(MatineeError, match="cannot be created"):
        report([tmp_path / "runs"], save=tmp_path / "file")
    with pytest.raises(MatineeError, match="is a folder"):
        report([tmp_path / "runs"], html=tmp_path)


HOSTILE = 'Amélie, "the <script>alert(1)</script>" | *one*\t_two_\nthree\\'


def test_any_text_survives(write_run, tmp_path: Path) -> None:
    write_run("a", overrides=(f"model.title={HOSTILE}",), dataset={"name": HOSTILE})
    write_run("b", model="best", validation=0.5, dataset={"name": HOSTILE})
    report([tmp_path], save=tmp_path / "saved")
    with (tmp_path / "saved/report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["model"] == f"mf model.title={HOSTILE}" and rows[0]["dataset"] == HOSTILE
    lines = (tmp_path / "saved/report.md").read_text().splitlines()
    assert not any("<script>" in line for line in lines)
    tables = [line for line in lines if line.startswith("| mf ")]
    assert len(tables) == 2
    assert all(
        "&lt;script>" in line and "\\| \\*one" in line and "Amélie" in line for line in tables
    )
    assert all(
        len(line) == len(next(x for x in lines if x.startswith("| model"))) for line in tables[:1]
    )


def test_facts_describe_the_protocol(write_run, tmp_path: Path) -> None:
    for seed, rows in ((0, 1000), (1, 1200)):
        split = {
            "name": "random", "options": {"test_share": 0.2}, "fingerprint": f"{seed}",
            "rows": {"validation": 7, "test": rows},
            "cold": {"validation": {}, "test": {"users": 0, "items": 3, "rows": 4 + seed}},
        }  # fmt: skip
        write_run(f"{seed}", seed=seed, protocol={"split": split})
    told = protocol_facts(compare([tmp_path])[0][0])
    assert (
        told["test"]
        == "1,000 to 1,200 rows, 0 users not in train, 3 items not in train, 4 to 5 rows of either"
    )
    assert told["split"] == "random, test_share 0.2; 2 draws"
    assert "SHA-256 abc" in told["data"] and told["ties"] == "none"


def test_facts_name_the_targets_that_have_no_stride(run, tmp_path: Path) -> None:
    for kind, facts in (
        ("last", "one target of each user (last)"),
        ("all", "all rows are targets"),
    ):
        run("experiment=global_timeline/popularity", f"data.eval_targets={kind}", folder=kind)
        assert f"Windows: at most 51 items, {facts}." in report([tmp_path / kind])


def test_of_a_hundred_runs_every_file_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, path in enumerate([*(REFERENCE / "random").rglob("result.json")] * 102):
        folder = tmp_path / f"{index:03}"
        shutil.copytree(path.parent, folder)
        overrides = folder / "overrides.yaml"
        overrides.write_text(overrides.read_text() + f"- model.note={index}\n")
    read: Counter[tuple[str, str]] = Counter()

    def counting(module: ModuleType, name: str) -> None:
        original = getattr(module, name)

        def counted(of: Any, *rest: Any) -> Any:
            read[name, str(getattr(of, "folder", of))] += 1
            return original(of, *rest)

        monkeypatch.setattr(module, name, counted)

    counting(runs, "read_config")
    counting(runs, "read_result")
    counting(significance, "read_user_sums")
    text = report([tmp_path])
    assert len(read) == 3 * 102 and set(read.values()) == {1}
    assert (
        text.count("| mf_bias model.note=") == 2 * 102 - 1
    )  # the best is not compared with itself


def write_protocol(
    write_run, split: str, test: dict[str, float], validation: dict[str, float]
) -> None:
    """Write one run for each model, with these values of RMSE."""
    made = {"name": split, "options": {}, "fingerprint": split}
    for model, error in test.items():
        errors = {user: [error**2] for user in "abc"}
        options: dict[str, Any] = {"errors": errors, "protocol": {"split": made}}
        write_run(f"{split}/{model}", model, validation=validation.get(model, error), **options)


def agreement(text: str) -> dict[str, str]:
    head, _, row = [line for line in text.splitlines() if line.startswith("|")][-3:]
    names, values = ([cell.strip() for cell in line.strip("|").split("|")] for line in (head, row))
    return dict(zip(names, values, strict=True))


def test_two_protocols_agree_on_some_pairs_of_models(write_run, tmp_path: Path) -> None:
    first = {"bias": 1.0, "mf": 0.9, "ncf": 0.8, "knn": 0.8, "left_out": 0.1}
    second = {"bias": 1.0, "mf": 0.7, "ncf": 0.8, "knn": 0.9}
    write_protocol(write_run, "random", first, validation={"mf": 0.2})
    write_protocol(write_run, "timeline", second, validation={})
    text = report([tmp_path], tmp_path / "saved", tmp_path / "page.html", agreement=True)
    # bias is last in both (3 pairs); mf against ncf and knn turns; ncf and knn are tied in the first
    assert agreement(text) == {
        "protocols": "toy, random split; toy, timeline split",
        "ranked by": "test RMSE",
        "models": "4",
        "tau": f"{(3 - 2) / np.sqrt(5 * 6):.2f}",
        "pairs in the same order": "3",
        "in opposite orders": "2",
        "tied": "1",
        "best on validation": "mf; mf",
        "best on test": "ncf = knn; mf",
    }
    assert "Kendall's tau-b" in text and text in (tmp_path / "saved/report.md").read_text()
    assert "Agreement of the protocols" in (tmp_path / "page.html").read_text()
    assert "Agreement" not in report([tmp_path])


def test_rankings_need_three_models_and_one_metric(write_run, tmp_path: Path) -> None:
    write_protocol(write_run, "random", {"bias": 1.0, "mf": 0.9, "ncf": 0.8}, validation={})
    write_protocol(write_run, "timeline", {"bias": 1.0, "mf": 0.9}, validation={})
    with pytest.raises(MatineeError, match="no two protocols have 3 models in common"):
        report([tmp_path], agreement=True)
    write_protocol(write_run, "last", {"bias": 1.0, "mf": 1.0, "ncf": 1.0}, validation={})
    assert agreement(report([tmp_path], agreement=True))["tau"] == "undefined"
    for path in (tmp_path / "last").rglob("result.json"):
        path.write_text(path.read_text().replace("rmse", "mae"))
    with pytest.raises(MatineeError, match="no two protocols"):
        report([tmp_path], agreement=True)


def asked(*arguments: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", *arguments])
    assert ended.value.code == 1


def test_the_command_line_takes_options_in_any_order(write_run, tmp_path: Path, capsys) -> None:
    runs = write_run("runs/a").parent
    main(
        ["report", "--save", str(tmp_path / "saved"), str(runs), f"--html={tmp_path / 'page.html'}"]
    )
    printed = capsys.readouterr()
    assert "toy, random split" in printed.out
    assert printed.err.splitlines()[-1] == f"written: {tmp_path / 'page.html'}"
    assert (tmp_path / "saved/report.csv").is_file() and (tmp_path / "page.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--sve", "x"], "unknown option --sve; did you mean --save?"),
        (["--verbose"], "unknown option --verbose; see 'matinee report --help'."),
        (["--save"], "argument --save: expected one argument; see 'matinee report --help'."),
        (
            ["--by", "seed", "--agreement"],
            "--by cannot be combined with other options; leave them out.",
        ),
        (["nowhere"], "there is no folder nowhere; name folders that hold runs."),
        (["run=here"], "there is no folder run=here; name folders that hold runs."),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(
    arguments: list[str], sentence: str, capsys
) -> None:
    asked(*arguments)
    assert capsys.readouterr().err == f"matinee: {sentence}\n"
