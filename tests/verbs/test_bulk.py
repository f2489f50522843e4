"""Answers in bulk: the same as for one user and as in evaluation, streamed to files that appear whole."""

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from command_line import failed, matinee
from matinee.batches.queries import Queries
from matinee.errors import MatineeError
from matinee.experiment import building
from matinee.experiment.building import Experiment
from matinee.verbs import recommend as recommending
from matinee.verbs import similar as similarity
from matinee.verbs.id_files import as_column
from matinee.verbs.predict import predict_many, predict_ratings
from matinee.verbs.recommend import recommend, recommend_many
from matinee.verbs.shards import share_of

NEXT_ITEM = ("data=sequence", "task=next_item", "loss=softmax", "split=leave_last_out")
NEXT_ITEM = (*NEXT_ITEM, "data.eval_length=6", "data.eval_targets=last", "trainer.max_epochs=1")
RATED = ("model=mf_bias", "split=random", "trainer.max_epochs=2")
MODELS: dict[str, tuple[str, ...]] = {
    "gru": (*NEXT_ITEM, "model=gru", "model.embedding_dim=8"),
    "user_gru": (*NEXT_ITEM, "model=user_gru", "model.embedding_dim=8"),
    "hstu": (*NEXT_ITEM, "model=hstu", "model.embedding_dim=8"),
    "ease": (*NEXT_ITEM, "model=ease"),
    "mf_bias": RATED,
    "ncf": (*RATED, "model=ncf"),
    "bias": (*RATED, "model=bias"),
    "live": (*RATED, "data=live", "task=live", "model=listening", "split=chronological"),
}
Finished = Callable[..., Path]


@pytest.fixture(params=MODELS)
def loaded(request: pytest.FixtureRequest, finished: Finished) -> Experiment:
    return building.load_run(finished(*MODELS[request.param]))


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".jsonl":
        return pd.DataFrame([json.loads(line) for line in path.read_text().splitlines()])
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def agree(table: pd.DataFrame, alone: pd.DataFrame, name: str) -> None:
    assert table["rank"].tolist() == alone["rank"].tolist()
    assert table[name].to_numpy() == pytest.approx(alone[name].to_numpy(), abs=1e-5)
    for mine, other, gap in zip(table["item"], alone["item"], alone[name].diff(), strict=True):
        assert mine == other or abs(gap) < 1e-5  # nearly equal scores may change places


def test_all_users_get_what_one_user_gets(
    loaded: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommending, "USERS_AT_ONCE", 7)
    recommend_many(loaded, tmp_path / "top.parquet", users="all", top_k=5)
    table, name = read(tmp_path / "top.parquet"), loaded.task.score_name
    assert list(table) == ["user", "rank", "item", name]
    raw = loaded.datamodule.interactions.users["raw_id"].tolist()
    assert table["user"].drop_duplicates().tolist() == raw
    for user in raw[::9]:
        agree(table[table["user"] == user], recommend(loaded, user, top_k=5), name)


def test_one_block_of_scores_is_held_at_a_time(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = building.load_run(finished(*MODELS["gru"]))
    score, held = loaded.task.score_items, []

    def watched(*arguments: Any) -> torch.Tensor:
        assert not any(block() is not None for block in held)
        scores = score(*arguments)
        held.append(weakref.ref(scores))
        return scores

    loaded.task.score_items = watched
    for module in (recommending, similarity):
        monkeypatch.setattr(module, "USERS_AT_ONCE", 7)
    queries = Queries.of_users(loaded.datamodule.interactions, np.arange(1, 30))
    for _ in recommending.ranked(loaded, queries):
        pass
    for _ in similarity.Comparison(loaded, "score").neighbours(np.arange(1, 30), 3):
        pass
    assert len(held) == 10


@pytest.mark.parametrize("model", ["gru", "user_gru", "hstu", "ease"])
def test_a_list_has_the_ranks_of_evaluation(finished: Finished, model: str) -> None:
    loaded = building.load_run(finished(*MODELS[model]))
    histories, windows, _ = loaded.datamodule.evaluation("test")
    places, users = windows.starts + windows.lengths - 1, windows.user_ids.long()
    before = [
        histories.item_ids[histories.offsets[user] : end]
        for user, end in zip(users.tolist(), places.tolist(), strict=True)
    ]
    queries = Queries.of_histories(before, user_ids=users.tolist())
    if loaded.datamodule.carries_times:
        seen = Queries.of_users(loaded.datamodule.interactions, users.numpy(), times=True)
        last = seen.offsets[1:] - 1  # the target is the newest item of all
        kept = torch.ones(len(seen.item_ids), dtype=torch.bool).index_fill(0, last, False)
        queries = Queries(users, queries.offsets, seen.item_ids[kept], times=seen.times[kept])
    ((_, item_ids, _),) = recommending.ranked(loaded, queries, top_k=1000, repeat=True)
    with torch.no_grad():
        ranks = [
            loaded.task.rank(batch, best=0)["ranks"]
            for batch in loaded.datamodule.evaluation_dataloader("test")
        ]
    _, _, targets = loaded.datamodule.evaluation("test")
    found = (item_ids == targets.unsqueeze(1)).nonzero()[:, 1] + 1
    assert (found - torch.cat(ranks)).abs().max() <= (
        0 if model != "ease" else 3
    )  # tied with others


@pytest.mark.parametrize("model", ["mf_bias", "ncf", "bias"])
def test_ratings_of_a_list_are_those_of_evaluation(finished: Finished, model: str) -> None:
    loaded = building.load_run(finished(*MODELS[model]))
    table = recommend(loaded, "u7", top_k=1000, repeat=True)
    expected = predict_ratings(loaded, ["u7"] * len(table), table["item"].tolist())
    assert table["predicted_rating"].to_numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_every_format_holds_the_same(finished: Finished, tmp_path: Path, ending: str) -> None:
    loaded = building.load_run(finished(*MODELS["gru"]))
    for name in ("one.parquet", f"other{ending}"):
        recommend_many(loaded, tmp_path / name, users="all", top_k=3)
    one, other = read(tmp_path / "one.parquet"), read(tmp_path / f"other{ending}")
    assert one.drop(columns="score").equals(other.drop(columns="score"))
    assert one["score"].to_numpy() == pytest.approx(other["score"].to_numpy(), abs=1e-6)


def test_histories_of_newcomers(finished: Finished, tmp_path: Path, capsys: Any) -> None:
    loaded = building.load_run(finished(*MODELS["gru"]))
    file = tmp_path / "new.csv"
    file.write_text("user,item,rating\nzoe,103,1\nadam,101,2\nzoe,999,2\nzoe,105,5\n")
    recommend_many(loaded, tmp_path / "top.csv", histories=str(file), top_k=4)
    assert "the data do not know 1 of 4 items" in capsys.readouterr().err
    table = read(tmp_path / "top.csv")
    assert table["user"].drop_duplicates().tolist() == ["zoe", "adam"]
    agree(table[table["user"] == "adam"], recommend(loaded, history=[101], top_k=4), "score")
    items = loaded.datamodule.interactions.encode_items([103, 999, 105]).tolist()
    assert items[1] == 0
    ((_, best, _),) = recommending.ranked(loaded, Queries.of_histories([items]), top_k=4)
    raw = loaded.datamodule.interactions.items["raw_id"].loc[best[0].numpy()].tolist()
    assert table.loc[table["user"] == "zoe", "item"].tolist() == raw


def test_a_timestamp_orders_histories(finished: Finished, tmp_path: Path) -> None:
    loaded = building.load_run(finished(*MODELS["gru"]))
    (tmp_path / "a.csv").write_text("user,item\nz,101\nz,102\nz,103\n")
    (tmp_path / "b.csv").write_text("timestamp,user,item\n30,z,103\n10,z,101\n20,z,102\n")
    for name in "ab":
        recommend_many(
            loaded, tmp_path / f"{name}.parquet", histories=str(tmp_path / f"{name}.csv")
        )
    assert read(tmp_path / "a.parquet").equals(read(tmp_path / "b.parquet"))


def test_blanks_around_ids_do_not_count(finished: Finished, tmp_path: Path) -> None:
    """One user, one list, and the same items denied, however the id is written."""
    loaded = building.load_run(finished(*MODELS["gru"]))
    (tmp_path / "deny.csv").write_text("user,item\n u3,120\nzoe , 121\n")
    tables = []
    for name, user, other in (("plain", "u3", "zoe"), ("blank", " u3 ", " zoe")):
        file = tmp_path / f"{name}.csv"
        file.write_text(f"user,item\nu3,101\nzoe,102\n{user}, 103\n{other},104 \n")
        out = tmp_path / f"{name}.parquet"
        deny = str(tmp_path / "deny.csv")
        recommend_many(loaded, out, histories=str(file), deny=deny, top_k=99)
        tables.append(read(out))
    assert tables[0].equals(tables[1])
    assert tables[0]["user"].drop_duplicates().tolist() == ["u3", "zoe"]
    assert not {("u3", 120), ("zoe", 121)} & set(
        zip(tables[0]["user"], tables[0]["item"], strict=True)
    )


def test_times_of_histories_reach_a_model_that_reads_times(
    finished: Finished, tmp_path: Path
) -> None:
    loaded = building.load_run(finished(*MODELS["hstu"]))
    data = loaded.datamodule.interactions
    assert data.timestamps is not None
    frame = pd.DataFrame(
        {
            "user": data.users["raw_id"].loc[data.user_ids].to_numpy(),
            "item": data.items["raw_id"].loc[data.item_ids].to_numpy(),
            "timestamp": data.timestamps,
        }
    )
    frame.to_parquet(tmp_path / "all.parquet")
    answers = []
    for given in ({"users": "all"}, {"histories": str(tmp_path / "all.parquet")}):
        recommend_many(loaded, tmp_path / "top.parquet", top_k=9, **given)
        answers.append(read(tmp_path / "top.parquet").sort_values(["user", "rank"]))
    for user, rows in answers[0].groupby("user"):
        agree(answers[1][answers[1]["user"] == user], rows, "score")
    frame.drop(columns="timestamp").to_parquet(tmp_path / "all.parquet")
    recommend_many(
        loaded, tmp_path / "top.parquet", top_k=9, histories=str(tmp_path / "all.parquet")
    )
    timeless = read(tmp_path / "top.parquet").sort_values(["user", "rank"])
    assert abs(timeless["score"].to_numpy() - answers[0]["score"].to_numpy()).max() > 1e-4


@pytest.mark.parametrize("verb", ["recommend", "predict", "similar", "embeddings"])
def test_data_and_run_folders_are_never_replaced(
    finished: Finished, tmp_path: Path, verb: str
) -> None:
    folder = finished(*MODELS["mf_bias"])
    data = Path(building.load_run(folder).config.dataset.path)
    before = data.read_bytes()
    (tmp_path / "pairs.csv").write_text("user,item\nu1,101\n")
    questions = {
        "recommend": ["users=all"],
        "predict": [f"pairs={tmp_path / 'pairs.csv'}"],
        "similar": ["items=all"],
        "embeddings": ["table=items"],
    }[verb]
    ending = ".parquet" if verb == "embeddings" else data.suffix
    for output, sentence in (
        (data, "is part of the run's data"),
        (folder / "checkpoints" / f"x{ending}", "lies in a run folder"),
    ):
        if verb == "embeddings" and output == data:
            continue  # it writes no text
        done = matinee(verb, f"run={folder}", *questions, f"output={output}")
        assert sentence in failed(done)
        assert data.read_bytes() == before and not (folder / "checkpoints" / f"x{ending}").exists()


def test_a_pair_of_unknown_ids_has_the_rating_it_has_beside_others(
    finished: Finished, tmp_path: Path
) -> None:
    loaded = building.load_run(finished(*MODELS["mf_bias"]))
    ratings = []
    for number, text in enumerate(("u1,zz\n", "u1,101\nu1,zz\n")):
        (tmp_path / "pairs.csv").write_text("user,item\n" + text)
        out = tmp_path / f"{number}.csv"
        predict_many(loaded, str(tmp_path / "pairs.csv"), out)
        ratings.append(read(out)["predicted_rating"].tolist())
    assert ratings[0] == ratings[1][1:]


def test_ratings_of_a_joint_run_are_called_ratings(finished: Finished, tmp_path: Path) -> None:
    joint = ("data=live", "task=joint", "model=joint", "split=chronological", "task.headline=mrr")
    loaded = building.load_run(finished(*joint, "trainer.max_epochs=1"))
    assert loaded.task.score_name == "score"
    (tmp_path / "pairs.csv").write_text("user,item\nu1,101\n")
    predict_many(loaded, str(tmp_path / "pairs.csv"), tmp_path / "out.csv")
    (rating,) = read(tmp_path / "out.csv")["predicted_rating"]
    assert 1 <= rating <= 5


def test_a_shard_of_one_answer_is_refused(finished: Finished) -> None:
    folder = finished(*MODELS["gru"])
    for question in (("recommend", "user=u1"), ("similar", "item=101")):
        done = matinee(question[0], f"run={folder}", question[1], "shard=1/2")
        assert "shard=... takes the" in failed(done)


def test_rated_histories_are_folded_in(finished: Finished, tmp_path: Path) -> None:
    loaded = building.load_run(finished(*MODELS["mf_bias"]))
    (tmp_path / "new.csv").write_text("user,item,rating\nz,101,5\ny,101,1\nz,102,4.5\n")
    recommend_many(loaded, tmp_path / "top.csv", histories=str(tmp_path / "new.csv"), top_k=6)
    table = read(tmp_path / "top.csv")
    one = recommend(loaded, ratings={101: 5, 102: 4.5}, top_k=6)
    agree(table[table["user"] == "z"], one, "predicted_rating")


@pytest.mark.parametrize("model", ["mf_bias", "live"])
def test_rated_histories_are_all_that_counts(
    finished: Finished, tmp_path: Path, model: str
) -> None:
    """A user of the data gets what a newcomer of the same ratings gets."""
    loaded = building.load_run(finished(*MODELS[model]))
    (tmp_path / "new.csv").write_text("user,item,rating\nu7,101,5\nzoe,101,5\n")
    recommend_many(loaded, tmp_path / "top.csv", histories=str(tmp_path / "new.csv"))
    table = read(tmp_path / "top.csv")
    agree(table[:10], table[10:], "predicted_rating")


def test_allow_and_deny(finished: Finished, tmp_path: Path) -> None:
    loaded = building.load_run(finished(*MODELS["gru"]))
    (tmp_path / "stock.csv").write_text("item\n101\n104\n105\n106\n")
    allowed = recommend(loaded, allow=str(tmp_path / "stock.csv"), deny=[104], top_k=9)
    assert sorted(allowed["item"]) == [101, 105, 106]
    (tmp_path / "own.csv").write_text("user,item\nu1,101\nu3,120\nu3,121\nnobody,130\n")
    out = tmp_path / "top.csv"
    recommend_many(loaded, out, users="all", allow=str(tmp_path / "own.csv"), repeat=True)
    assert sorted(zip(*(read(out)[name] for name in ("user", "item")), strict=True)) == [
        ("u1", 101), ("u3", 120), ("u3", 121),
    ]  # fmt: skip
    recommend_many(loaded, out, users="all", top_k=99, deny=str(tmp_path / "own.csv"), repeat=True)
    table = read(out)
    counts = table.groupby("user")["item"].count()
    num_items = loaded.datamodule.interactions.num_items
    assert (counts["u1"], counts["u2"], counts["u3"]) == (num_items - 1, num_items, num_items - 2)
    with pytest.raises(MatineeError, match="remove its column 'user'"):
        recommend(loaded, deny=str(tmp_path / "own.csv"))


def test_shards_make_the_whole(finished: Finished, tmp_path: Path) -> None:
    loaded = building.load_run(finished(*MODELS["bias"]))
    recommend_many(loaded, tmp_path / "all.parquet", users="all")
    for number in (1, 2, 3):
        path = tmp_path / f"{number}.parquet"
        recommend_many(loaded, path, users="all", shard=f"{number}/3")
    parts = [read(tmp_path / f"{number}.parquet") for number in (1, 2, 3)]
    assert pd.concat(parts, ignore_index=True).equals(read(tmp_path / "all.parquet"))
    for shard in ("0/3", "4/3", "1", "1/0", "1.5/2", "x"):
        with pytest.raises(MatineeError, match="write i/n"):
            share_of(10, shard)


def test_predicted_pairs(finished: Finished, tmp_path: Path) -> None:
    folder = finished(*MODELS["mf_bias"])
    pairs, out = tmp_path / "pairs.tsv", tmp_path / "out.csv"
    pairs.write_text("item\tuser\n101\tu3\n 102 \tu4\n7\tnobody\n101\tu3\n")
    done = matinee("predict", f"run={folder}", f"pairs={pairs}", f"output={out}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out)
    assert "do not know 1 of 3 users" in done.stderr and "1 of 3 items" in done.stderr
    loaded = building.load_run(folder)
    users, items = ["u3", "u4", "nobody", "u3"], [101, 102, 7, 101]
    assert read(out)["user"].tolist() == users
    found = read(out)["predicted_rating"].to_numpy()
    assert found == pytest.approx(predict_ratings(loaded, users, items), abs=1e-6)


@pytest.mark.parametrize(
    ("raw", "dtype", "expected"),
    [
        (["7", "-42"], "int64", [7, -42]),
        (["7", "guest"], "int64", ["7", "guest"]),
        (["7", "007"], "int64", ["7", "007"]),
        (["7", str(2**63 - 1)], "int64", [7, 2**63 - 1]),
        (["7", str(2**63)], "int64", ["7", str(2**63)]),
        (["7", str(2**64 - 1)], "uint64", [7, 2**64 - 1]),
        (["7", "-42"], "uint64", ["7", "-42"]),
        (["7", "42"], "str", ["7", "42"]),
        ([], "int64", []),
    ],
)
def test_columns_of_ids_have_the_type_of_the_data_if_each_id_fits(
    raw: list[str], dtype: str, expected: list[Any]
) -> None:
    assert as_column(raw, pd.Series([1, 2], dtype=dtype)).to_pylist() == expected


def test_similar_items(finished: Finished, tmp_path: Path) -> None:
    folder = finished(*MODELS["gru"])
    loaded = building.load_run(folder)
    out = tmp_path / "similar.parquet"
    for by in ("cosine", "score"):
        done = matinee(
            "similar", f"run={folder}", "items=all", f"output={out}", f"by={by}", "top_k=3"
        )
        assert done.returncode == 0, done.stderr
        table = read(out)
        assert list(table) == ["item", "rank", "similar", by]
        assert (table["item"] != table["similar"]).all()
    history = recommend(loaded, history=[101], top_k=3)
    agree(table[table["item"] == 101].drop(columns="item").rename(columns={"similar": "item"}),
          history, "score")  # fmt: skip
    done = matinee("embeddings", f"run={folder}", f"output={tmp_path / 'e.parquet'}")
    assert done.returncode == 0, done.stderr
    vectors = np.stack(read(tmp_path / "e.parquet")["embedding"].to_numpy())
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit[1]
    shown = matinee("similar", f"run={folder}", "item=101", "top_k=1").stdout.splitlines()[-1]
    assert shown.split("|")[2].strip() == str(100 + int(np.argsort(-cosines)[1]))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("user,item\nz,101\nz\n", "line 3: the row has 1 instead of 2 fields"),
        ("user,item\nz,\n", "line 2, column 'item': the value is missing"),
        ("user,thing\nz,101\n", "has no column 'item'"),
        ("user,item\nz,7\n", "line 2, column 'item': the data know no item"),
        ("user,item\n", "has no rows"),
        ("", "is empty"),
    ],
)
def test_bad_histories(finished: Finished, tmp_path: Path, text: str, sentence: str) -> None:
    folder, file = finished(*MODELS["gru"]), tmp_path / "new.csv"
    file.write_text(text)
    out = tmp_path / "top.csv"
    done = matinee("recommend", f"run={folder}", f"histories={file}", f"output={out}")
    assert sentence in failed(done)
    assert "bad_rows" not in done.stderr
    assert [path.name for path in tmp_path.iterdir() if "top" in path.name] == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("user,item,rating\nz,101,9\n", "line 2, column 'rating': the rating 9 is outside"),
        ("user,item,rating\nz,101,x\n", "line 2, column 'rating': 'x' is not a number"),
        ("user,item,rating\nz,101,3\ny,101,3\nz,101,4\n", "line 4, column 'item': the user has rated"),
        ("user,item,rating\nz,101,3\nz,no,3\nz,no,4\n", "line 4, column 'item': the user has rated"),
        ("user,item\nz,101\n", "has no column 'rating'"),
    ],
)  # fmt: skip
def test_bad_rated_histories(finished: Finished, tmp_path: Path, text: str, sentence: str) -> None:
    folder, file = finished(*MODELS["mf_bias"]), tmp_path / "new.csv"
    file.write_text(text)
    out = tmp_path / "top.csv"
    done = matinee("recommend", f"run={folder}", f"histories={file}", f"output={out}")
    assert sentence in failed(done)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["users=all"], "users=... needs output=FILE"),
        (["output=x.csv"], "output=... takes the lists"),
        (["users=all", "user=u1", "output=x.csv"], "users and user cannot be combined"),
        (["users=all", "output=x.txt"], "name a file that ends in .parquet, .csv or .jsonl"),
        (["users=all", "output={run}/metrics.csv"], "lies in a run folder"),
        (["users=all", "output=none/x.csv"], "none is no folder"),
        (["users={here}/u.csv", "output={here}/u.csv"], "would replace a file that is read"),
        (["users={here}/u.csv", "output=x.csv"], "line 3, column 'user': user 'nobody' is not"),
        (["users={here}/v.csv", "output=x.csv"], "line 3, column 'user': the user stands above"),
        (["users={here}/w.csv", "output=x.csv"], "w.csv is no file"),
        (["users=all", "output=x.csv", "top_k=0"], "top_k is 0"),
        (["users=all", "output=x.csv", "allow=[7]"], "item '7' is not in the data"),
        (["users=all", "output=x.csv", "deny=[101"], "write 'deny=FILE|[ITEM, ...]'"),
        (["users=all", "output=x.csv", "shard=3/2"], "shard is '3/2'"),
    ],
)  # fmt: skip
def test_questions_that_make_no_sense(
    finished: Finished, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    folder = finished(*MODELS["bias"])
    (tmp_path / "u.csv").write_text("user\nu1\nnobody\n")
    (tmp_path / "v.csv").write_text("user\nu1\nu1\n")
    places = {"run": str(folder), "here": str(tmp_path)}
    given = [argument.format(**places) if "{" in argument else argument for argument in arguments]
    assert sentence in failed(matinee("recommend", f"run={folder}", *given, cwd=tmp_path))
    assert not (tmp_path / "x.csv").exists()


def test_what_a_model_cannot_do(finished: Finished, tmp_path: Path) -> None:
    folder = finished(*MODELS["bias"])
    run, out = f"run={folder}", f"output={tmp_path / 'x.parquet'}"
    assert "it cannot say which items are alike" in failed(matinee("similar", run, "item=101"))
    assert "no item embeddings" in failed(matinee("similar", run, "item=101", "by=cosine"))
    assert "no embeddings of users" in failed(matinee("embeddings", run, out, "table=users"))
    assert "give one of item=" in failed(matinee("similar", run))
    assert "holds no vector" in failed(matinee("embeddings", run, "output=x.csv"))


def test_a_ranker_rates_nothing(finished: Finished, tmp_path: Path) -> None:
    folder = finished(*MODELS["ease"])
    done = matinee("predict", f"run={folder}", "pairs=none.csv", f"output={tmp_path / 'x.csv'}")
    assert "ranks items and rates none" in failed(done)
    assert "no item embeddings" in failed(
        matinee("similar", f"run={folder}", "item=101", "by=cosine")
    )


def test_an_earlier_file_survives_a_failure(finished: Finished, tmp_path: Path) -> None:
    loaded = building.load_run(finished(*MODELS["bias"]))
    (tmp_path / "top.csv").write_text("earlier")

    def broken(*arguments: Any) -> None:
        raise MatineeError("broken.")

    loaded.task.score_items = broken
    with pytest.raises(MatineeError, match="broken"):
        recommend_many(loaded, tmp_path / "top.csv", users="all")
    assert (tmp_path / "top.csv").read_text() == "earlier"
    assert not list(tmp_path.glob(".top*"))
