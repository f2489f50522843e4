"""Every bad input gets one right sentence and a status that is not 0."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bad_inputs
from command_line import failed, matinee

QUICK = ["trainer.max_epochs=2", "logger=none", "callbacks.inspection=null"]
LINES = [
    "experiment=counting/gru", "dataset.num_rows=40", "dataset.length=6", "model.embedding_dim=8",
    "trainer.accelerator=cpu",
]  # fmt: skip
CASES = [
    *((f"train {words}", sentence) for words, sentence in bad_inputs.TRAIN + bad_inputs.DATA),
    *bad_inputs.VERBS,
]


@pytest.fixture(scope="session")
def places(
    table_overrides: list[str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[str]]:
    """Return what the words of the list stand for."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "files").mkdir()
    for name, content in bad_inputs.FILES.items():
        (folder / "files" / name).write_bytes(content)
    good = [f"dataset.path={folder / 'files' / 'good.csv'}", "dataset.user=a", "dataset.item=b"]
    words = {"TABLE": [*table_overrides, *QUICK], "LINES": [*LINES, *QUICK]}
    for name, overrides in (("run", words["TABLE"]), ("seq", words["LINES"])):
        done = matinee("train", *overrides, f"run_folder={folder / name}")
        assert done.returncode == 0, done.stderr
    return words | {
        "GOOD": ["dataset=table", *good],
        "RUN": [str(folder / "run")],
        "SEQ": [str(folder / "seq")],
        "FILES": [str(folder / "files")],
    }


@pytest.mark.slow
@pytest.mark.parametrize(("words", "sentence"), CASES, ids=[words for words, _ in CASES])
def test_a_bad_input_gets_one_sentence(
    words: str, sentence: str, places: dict[str, list[str]], tmp_path: Path
) -> None:
    arguments: list[str] = []
    for word in words.split(" "):
        if word in ("TABLE", "LINES", "GOOD"):
            arguments += places[word]
        else:
            for name in ("RUN", "SEQ", "FILES"):
                word = word.replace(name, places[name][0])
            arguments.append(word)
    before = tree(places)
    assert sentence in failed(matinee(*arguments, cwd=tmp_path))
    assert tree(places) == before, "no run is changed"
    assert not list(tmp_path.rglob("*.ckpt")), "nothing was trained"


def tree(places: dict[str, list[str]]) -> set[tuple[str, int]]:
    folder = Path(places["FILES"][0]).parent
    return {(str(path), path.stat().st_mtime_ns) for path in folder.rglob("*")}


def result(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "result.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps(change(content) or content))

    return damage


def put(value: Any, *keys: str) -> Callable[[Path], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return result(change)


def drop(*keys: str) -> Callable[[Path], None]:
    def change(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return result(change)


def written(name: str, content: str | bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)

    return damage


def config(old: str, new: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "config.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return damage


def checkpoint(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change a checkpoint of a run that was killed after its last epoch."""

    def damage(folder: Path) -> None:
        path = folder / "checkpoints" / f"{name}.ckpt"
        content = torch.load(path, weights_only=True)
        change(content)
        torch.save(content, path)
        if name == "last":
            (folder / "result.json").unlink()

    return damage


def state(name: str, key: str, value: Any) -> Callable[[Any], None]:
    """Return a change of the state of a callback."""

    def change(content: Any) -> None:
        (of,) = (known for known in content["callbacks"] if name in known)
        content["callbacks"][of][key] = value

    return change


def weights(value: float) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for tensor in content["state_dict"].values():
            if tensor.is_floating_point():
                tensor.fill_(value)

    return change


def unreadable(folder: Path) -> None:
    (folder / "result.json").unlink()
    (folder / "result.json").mkdir()


ANY = ("evaluate", "report")
DAMAGES = [
    (ANY, put("good", "metrics", "test/rmse"), "metrics: test/rmse is 'good', not a finite number"),
    (ANY, put(float("nan"), "metrics", "test/rmse"), "metrics: test/rmse is nan"),
    (ANY, put(float("inf"), "metrics", "val/mae"), "metrics: val/mae is inf"),
    (ANY, put(True, "metrics", "val/mae"), "metrics: val/mae is True"),
    (ANY, put({}, "metrics"), "it holds no metrics"),
    (ANY, put([1], "metrics"), "metrics is not a mapping"),
    (ANY, put(1.0, "metrics", "rmse"), "a name is not STAGE/METRIC"),
    (ANY, drop("headline"), "headline is missing"),
    (ANY, put(0, "headline", "power"), "headline: power is 0"),
    (ANY, put(3, "headline", "metric"), "headline: metric is 3, not a text"),
    (ANY, put(3, "fit"), "fit is not a mapping"),
    (ANY, put("two", "fit", "epochs"), "fit: epochs is 'two'"),
    (ANY, drop("protocol"), "protocol is missing"),
    (ANY, put("many", "protocol", "dataset", "rows"), "rows is 'many'"),
    (ANY, put(3, "protocol", "split", "name"), "name is 3, not a text"),
    (ANY, put(3, "protocol", "split", "options"), "options is not a mapping"),
    (ANY, put({"test": 3}, "protocol", "split", "cold"), "cold: test is not a mapping"),
    (ANY, put({"val": "x"}, "protocol", "evaluated_windows"), "val is 'x'"),
    (ANY, put({"length": 0}, "protocol", "windows"), "length is 0"),
    (ANY, drop("environment", "seconds"), "seconds is missing"),
    (ANY, put("x", "environment", "seconds", "fit"), "fit is 'x'"),
    (ANY, put(3, "environment", "finished"), "finished is 3"),
    (ANY, result(lambda content: [content]), "it is not a mapping"),
    (ANY, written("result.json", ""), "is no JSON"),
    (ANY, written("result.json", "[" * 100_000), "result.json"),
    (ANY, written("result.json", b"\xff\xfe"), "result.json"),
    (ANY, unreadable, "result.json"),
    (("evaluate",), written("config.yaml", ""), "is empty, because the run was killed before it began"),
    (ANY, written("config.yaml", "[1, 2]"), "is no config"),
    (ANY, written("config.yaml", b"\xff\xfe"), "config.yaml cannot be read"),
    (ANY, config("seed: 0", "seed: '${oc.env:HOME}'"), "only plain values"),
    (("report",), config("\nseed: 0", "\nseed: many"), "seed is 'many'"),
    (("report",), config("name: ", "nam: "), "is no whole config"),
    (("report",), written("overrides.yaml", "{a: 1}"), "overrides.yaml is no list"),
    (("report --html x.html",), written("metrics.csv", "val/rmse\n1\nnan\n"), "is not finite"),
    (("report --html x.html",), written("metrics.csv", "val/rmse\n1\nx\n"), "metrics.csv"),
    (("evaluate",), written("protocol.json", "[]"), "protocol.json is missing or broken"),
    (("evaluate",), config("seed: 0", "seed: many"), "is 'many'"),
    (("evaluate",), checkpoint("best", weights(float("nan"))), "not finite"),
    (("recommend",), checkpoint("best", weights(float("inf"))), "not finite"),
    (("evaluate",), checkpoint("best", lambda c: c.update(state_dict={"a": 3})), "does not fit"),
    (("evaluate",), checkpoint("best", lambda c: c.update(state_dict=3)), "is no checkpoint"),
    (("evaluate",), checkpoint("best", lambda c: c.pop("state_dict")), "is no checkpoint"),
    (("resume",), checkpoint("last", lambda c: c.update(callbacks=3)), "lacks the state of"),
    (("resume",), checkpoint("last", lambda c: c.update(callbacks={})), "lacks the state of"),
    (("resume",), checkpoint("last", lambda c: c.pop("callbacks")), "lacks the state of"),
    (("resume",), checkpoint("last", lambda c: c.pop("loops")), "holds weights alone"),
    (("resume",), checkpoint("last", lambda c: c.update(loops=3)), "train again"),
    (("resume",), checkpoint("last", lambda c: c.pop("optimizer_states")), "train again"),
    (("resume",), checkpoint("last", lambda c: c.update(optimizer_states=3)), "train again"),
    (("resume",), checkpoint("last", lambda c: c.update(lr_schedulers=3)), "train again"),
    (("resume",), checkpoint("last", lambda c: c.update(train_sums=3)), "train again"),
    (("resume",), checkpoint("last", lambda c: c.update({"pytorch-lightning_version": "x"})), "again"),
    (("resume",), checkpoint("last", state("Checkpoints", "best_score", "x")), "train again"),
    (("resume",), checkpoint("last", state("EpochTable", "rows", 3)), "train again"),
    (("resume",), checkpoint("last", state("EpochTable", "rows", [{}])), "train again"),
    (("resume",), checkpoint("last", weights(float("nan"))), "not finite"),
]  # fmt: skip
DAMAGED = [(verb, *rest) for verbs, *rest in DAMAGES for verb in verbs]


@pytest.mark.parametrize(("verb", "damage", "sentence"), DAMAGED)
def test_a_damaged_run_gets_one_sentence(
    verb: str,
    damage: Callable[[Path], None],
    sentence: str,
    finished: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder = finished("model=mf_bias", "logger=none")
    damage(folder)
    arguments = {
        "evaluate": ["evaluate", "run=run"],
        "recommend": ["recommend", "run=run", "user=u1"],
        "resume": ["train", "resume=run"],
    }.get(verb, [*verb.split(" "), "run"])
    assert sentence in failed(matinee(*arguments, cwd=tmp_path))


ARRAYS: list[tuple[str, Any]] = [
    ("rmse", lambda values: values.astype(str)),
    ("rmse", lambda values: values * float("nan")),
    ("rmse", lambda values: values * float("inf")),
    ("rmse", lambda values: values[1:]),
    ("rmse", lambda values: values[:, None]),
    ("rmse", lambda values: values.astype(complex)),
    ("rmse", lambda values: None),
    ("count", lambda values: values * 0),
    ("count", lambda values: values.astype(str)),
    ("count", lambda values: values * 1e300),
    ("user", lambda values: np.arange(len(values))),
    ("user", lambda values: values[:0]),
    ("user", lambda values: None),
]


@pytest.mark.parametrize(("name", "change"), ARRAYS)
def test_broken_values_of_users_are_remarked_on(
    name: str, change: Any, write_run: Callable[..., Path], tmp_path: Path
) -> None:
    write_run("a", "mf")
    path = write_run("b", "mf_bias", validation=2.0) / "per_user.npz"
    with np.load(path) as arrays:
        kept = {key: change(arrays[key]) if key == name else arrays[key] for key in arrays.files}
    np.savez(path, **{key: value for key, value in kept.items() if value is not None})
    done = matinee("report", "a", "b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "mf_bias is not compared: " in done.stdout
    assert "per_user.npz" in done.stdout
