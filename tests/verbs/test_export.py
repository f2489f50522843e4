"""A run as programs: exported, compared with the run, and answering without matinee."""

import ast
import json
import subprocess
import venv
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from packaging.requirements import Requirement

from command_line import failed, matinee
from matinee.errors import MatineeError
from matinee.experiment import building
from matinee.verbs.export import artefact, command, parity, programs
from matinee.verbs.recommend import recommend

SEQUENCE = ("split=user_based", "data=sequence", "task=next_item", "loss=softmax")
SEQUENCE += ("data.eval_length=6", "data.length=8", "trainer.max_epochs=1")
RANKERS = ("popularity", "item_knn", "ease", "slit", "session_knn", "ials")
PAIRS = ("bias", "mf_bias", "ncf", "bayesian_mf")
RELATIVE = "attention model.encoder.relative_positions=true"
ENCODERS = ("cnn", "attention", "gru", "lstm", "dnc", "hstu", "ligr", "user_gru", "implicit_mf")


def overrides(model: str) -> tuple[str, ...]:
    name, *more = model.split()
    data = ("split=random",) if name in (*PAIRS, "mf") else SEQUENCE
    return (f"model={name}", *data, *more)


@pytest.fixture
def export(finished, tmp_path: Path):
    """Train a model, export it, and return the loaded run, the folder and the manifest."""

    def exported(model: str, *more: str, checks: int = 60, **options):
        run = finished(*overrides(model), *more)
        loaded = building.load_run(run)
        folder = tmp_path / "artefact"
        return loaded, folder, command.write_artefact(loaded, run, folder, checks, **options)

    return exported


def answers(folder: Path) -> dict[str, parity.Answer]:
    return {
        "torch": parity.torch_answer(folder / "model.pt2"),
        "onnx": parity.onnx_answer(folder / "model.onnx"),
    }


def marked(fast: tuple[str, ...], slow: tuple[str, ...]) -> list:
    return [*fast, *(pytest.param(model, marks=pytest.mark.slow) for model in slow)]


@pytest.mark.parametrize(
    "model", marked(("markov", "pooling", "blend", RELATIVE), (*RANKERS, *ENCODERS))
)
def test_best_items_are_those_of_recommend(export, model: str) -> None:
    """The arrays are made here as the documentation says, not by the code under test."""
    loaded, folder, manifest = export(model)
    assert manifest["parity"]["model.onnx"]["equal_top_20_but_ties"] == 1
    items = [json.loads(line) for line in (folder / "items.jsonl").read_text().splitlines()]
    raw_ids = np.array([0] + [item["raw_id"] for item in items])
    interactions = loaded.datamodule.interactions
    for user in ("u7", "u8"):
        user_id = int(interactions.encode_users([user])[0])
        stored = np.load(folder / "histories.npz")
        met = stored["item_ids"][slice(*stored["offsets"][user_id : user_id + 2])]
        newest = met[len(met) - min(len(met), manifest["newest_items"]) :]
        inputs = {
            "histories": np.array([[0, *newest]]),
            "lengths": np.array([1 + len(newest)]),
            "user_ids": np.array([user_id]),
        }
        if len(manifest["inputs"]) == 4:
            times = stored["times"][slice(*stored["offsets"][user_id : user_id + 2])]
            times = times[len(times) - len(newest) :]
            inputs["times"] = np.array([[0, *(times - times[0])]])
        expected = recommend(loaded, user, top_k=10)
        for answer in answers(folder).values():
            scores = answer(inputs)[0]
            assert scores[0] == -np.inf
            scores[met] = -np.inf
            best = np.argsort(-scores, kind="stable")[:10]
            np.testing.assert_allclose(scores[best], expected["score"], atol=1e-4, rtol=1e-4)
            for item, raw_id in zip(best, expected["item"], strict=True):
                other = int(interactions.encode_items([raw_id])[0])
                assert raw_ids[item] == raw_id or abs(scores[item] - scores[other]) < 1e-4


@pytest.mark.parametrize("model", marked(("mf_bias", "bayesian_mf"), ("bias", "ncf")))
def test_ratings_are_those_of_the_run(export, model: str) -> None:
    loaded, folder, manifest = export(model)
    assert [port["name"] for port in manifest["inputs"]] == ["user_ids", "item_ids"]
    users, items = torch.tensor([0, 1, 5, 60]), torch.tensor([3, 0, 7, 40])
    with torch.no_grad():
        expected = loaded.task(users, items).numpy()
    for answer in answers(folder).values():
        got = answer({"user_ids": users.numpy(), "item_ids": items.numpy()})
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_star_classification_is_exported(export) -> None:
    loaded, folder, _ = export("mf_bias", "loss=star_classification")
    with torch.no_grad():
        expected = loaded.task(torch.tensor([3]), torch.tensor([4])).numpy()
    for answer in answers(folder).values():
        got = answer({"user_ids": np.array([3]), "item_ids": np.array([4])})
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_manifest_names_everything(export) -> None:
    loaded, folder, manifest = export("popularity")
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    assert {*manifest["files"]} == {path.name for path in folder.iterdir()} - {"manifest.json"}
    for name, file in manifest["files"].items():
        assert file["sha256"] == artefact.sha256(folder / name)
        assert file["bytes"] == (folder / name).stat().st_size
    assert manifest["metrics"]["test/mrr"] > 0
    assert manifest["protocol"]["split"]["fingerprint"] == loaded.datamodule.split.fingerprint
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    for port, declared in zip(session.get_inputs(), manifest["inputs"], strict=True):
        assert port.name == declared["name"] and len(port.shape) == len(declared["shape"])
    assert session.get_outputs()[0].name == manifest["output"]["name"]


def test_weights_are_stored_once(export) -> None:
    """The tied table of a network reads histories and scores items: one copy in each program."""
    loaded, _, manifest = export("pooling", "model.embedding_dim=4096")
    weights = sum(tensor.nbytes for tensor in loaded.task.network.state_dict().values())
    for name in ("model.pt2", "model.onnx"):
        assert manifest["files"][name]["bytes"] < 1.3 * weights


@pytest.mark.parametrize(
    "model", ["pooling model.embedding_dim=1024", *marked((), ("ease", "mf", "user_gru", "blend"))]
)
def test_int8_tables_are_small_and_the_manifest_says_what_they_cost(
    export, tmp_path, model
) -> None:
    loaded, folder, manifest = export(model, weights="int8")
    before = {name: tensor.clone() for name, tensor in loaded.task.state_dict().items()}
    plain = command.write_artefact(loaded, folder, tmp_path / "float32", checks=1)
    assert all(torch.equal(before[name], now) for name, now in loaded.task.state_dict().items())
    costs = manifest["weights"]
    assert (costs["stored"], plain["weights"]) == ("int8", {"stored": "float32"})
    recorded = manifest["metrics"][costs["metric"]]
    assert costs["run"] == pytest.approx(recorded, rel=1e-5)
    for name in ("model.pt2", "model.onnx"):
        assert costs[name] == pytest.approx(recorded, rel=0.03)
        if "1024" in model:
            assert manifest["files"][name]["bytes"] < 0.45 * plain["files"][name]["bytes"]
    wide = parity.torch_answer(tmp_path / "float32" / "model.pt2")
    inputs = {port["name"]: np.array([3, 4]) for port in manifest["inputs"]}
    if "histories" in inputs:
        inputs["histories"] = np.array([[0, 5, 6], [0, 7, 0]])
        inputs["lengths"] = np.array([3, 2])
    for answer in answers(folder).values():
        scores, expected = answer(inputs), wide(inputs)
        finite = np.isfinite(expected)
        assert not np.array_equal(scores[finite], expected[finite])
        np.testing.assert_allclose(scores[finite], expected[finite], atol=0.05, rtol=0.05)


def test_int8_needs_a_table(export) -> None:
    with pytest.raises(
        Exception, match="Popularity has no table of items or users to store as int8"
    ):
        export("popularity", weights="int8")


def test_what_users_met_can_be_left_out(export) -> None:
    _, folder, manifest = export("popularity", histories=False)
    assert "histories.npz" not in manifest["files"] and not (folder / "histories.npz").exists()


def test_a_program_that_disagrees_is_refused(export, monkeypatch, tmp_path: Path) -> None:
    right = parity.onnx_answer
    monkeypatch.setattr(parity, "onnx_answer", lambda path: lambda x: right(path)(x) + 0.01)
    with pytest.raises(
        Exception, match=r"model\.onnx disagrees with the run: scores differ by up to 0\.01"
    ):
        export("pooling")
    assert not list(tmp_path.glob("*artefact*"))


def test_models_of_rated_histories_say_what_no_program_computes(export) -> None:
    live = ("data=live", "task=live", "split=chronological")
    with pytest.raises(Exception, match="RunningBias cannot be exported: it reads running offsets"):
        export("bias", *live, "model=online_bias")


def test_an_operation_without_counterpart_is_named(export, monkeypatch, tmp_path: Path) -> None:
    forward = programs.NextItemProgram.forward

    def unknown(self, histories, lengths, user_ids):
        return torch.special.bessel_j0(forward(self, histories, lengths, user_ids))

    monkeypatch.setattr(programs.NextItemProgram, "forward", unknown)
    with pytest.raises(Exception, match=r"Popularity cannot be exported to ONNX: .*bessel_j0"):
        export("popularity")
    assert not list(tmp_path.glob("*artefact*"))


def test_sums_that_onnx_runtime_would_lose_are_refused() -> None:
    """Its ScatterND adds in parallel without a lock; scatter_add becomes ScatterElements."""

    class Add(torch.nn.Module):
        def __init__(self, method: str) -> None:
            super().__init__()
            self.method = method

        def forward(self, places, values):
            return getattr(values.new_zeros(9), self.method)(0, places, values)

    size = {0: torch.export.Dim("n", min=2)}
    inputs = torch.tensor([2, 0, 2]), torch.ones(3)
    for method in ("index_add", "scatter_add"):
        network = Add(method)
        traced = torch.export.export(network, inputs, dynamic_shapes=(size, size))
        if method == "index_add":
            with pytest.raises(MatineeError, match="Add cannot be exported to ONNX: it adds to"):
                programs.onnx_program(traced, network, "sums")
        else:
            programs.onnx_program(traced, network, "sums")


def test_repeated_places_take_memory_for_the_answer_alone(tmp_path: Path) -> None:
    """The exporter's own translation asks for tens of GB here."""

    class Repeat(torch.nn.Module):
        def forward(self, counts):
            return torch.repeat_interleave(counts)

    sizes = ({0: torch.export.Dim("n", min=1)},)
    traced = torch.export.export(Repeat(), (torch.tensor([2, 0]),), dynamic_shapes=sizes)
    programs.onnx_program(traced, Repeat(), "places").save(tmp_path / "repeat.onnx")
    answer = parity.onnx_answer(tmp_path / "repeat.onnx")
    many = np.random.default_rng(0).integers(0, 200, 20_000)
    for counts in (many, np.array([0, 0, 1, 0]), np.array([0])):
        places = answer({"counts": counts})
        np.testing.assert_array_equal(places, np.repeat(np.arange(len(counts)), counts))


def test_the_command_prints_what_it_compared(finished, tmp_path: Path) -> None:
    run = finished(*overrides("popularity"))
    done = matinee("export", f"run={run}", f"output={tmp_path / 'a'}", "checks=20")
    assert done.returncode == 0, done.stderr
    assert "model.onnx" in done.stdout and "100.00%" in done.stdout
    assert done.stdout.splitlines()[-1] == str(tmp_path / "a")
    again = matinee("export", f"run={run}", f"output={tmp_path / 'a'}")
    assert "is taken; name a new folder" in failed(again)


def test_options_out_of_range(finished, tmp_path: Path) -> None:
    run = finished(*overrides("popularity"))
    for option, sentence in (
        ("checks=0", "checks is 0"),
        ("tolerance=1", "tolerance is 1"),
        ("weights=int4", "weights is 'int4'; choose float32 or int8"),
    ):
        done = matinee("export", f"run={run}", f"output={tmp_path / 'a'}", option)
        assert sentence in failed(done)


def test_cases_hold_empty_longest_and_unknown() -> None:
    cases = list(parity.histories(300, 7, 50, 9, needs_times=True))
    lengths = np.concatenate([case["lengths"] for case in cases])
    assert len(lengths) == 300 and lengths.min() == 1 and lengths.max() == 8
    assert {1, 2} <= {len(case["lengths"]) for case in cases}
    unknown = repeated = 0
    for case in cases:
        ids, rows = case["histories"], np.arange(case["histories"].shape[1])
        assert (ids[rows >= case["lengths"][:, None]] == 0).all() and (ids[:, 0] == 0).all()
        assert (np.diff(case["times"], axis=1) >= 0).all() and (case["times"][:, :1] == 0).all()
        for history, length in zip(ids, case["lengths"], strict=True):
            items = history[1:length]
            unknown += int((items == 0).any())
            repeated += int(len(np.unique(items)) < len(items))
    assert unknown > 10 and repeated > 10


def test_lists_that_differ_by_more_than_ties_are_counted() -> None:
    ours = np.array([[3.0, 2.0, 1.0], [1.0, 1.0, 0.0]])
    swapped = np.array([[2.0, 3.0, 1.0], [1.0, 1.0 + 1e-6, 0.0]])
    agreement = parity.Agreement()
    agreement.add(ours, swapped, 1e-5)
    assert (agreement.equal_top, agreement.equal_top_but_ties, agreement.rows) == (0, 1, 2)
    agreement.add(ours, np.full_like(ours, np.nan), 1e-5)
    assert agreement.largest_difference == np.inf


def example(name: str) -> str:
    """Return a program of the documentation."""
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "to-production.md").read_text()
    return text.partition(f'```python title="{name}"\n')[2].partition("```")[0]


def environment(folder: Path, *packages: str) -> Path:
    """Make an environment of some packages and what they declare to need; return its interpreter.

    Its packages are links to those of this environment, so that it costs no download.
    """
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    needed, waiting = set(), [*packages]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        installed = distribution(name)
        for requirement in map(Requirement, installed.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
        for top in {file.parts[0] for file in installed.files or [] if file.parts[0] != ".."}:
            if top != "__pycache__" and not (site / top).exists():
                (site / top).symlink_to(installed.locate_file(top))
    return folder / "bin" / "python"


def alone(python: Path, code: str, *arguments: str) -> list[tuple[Any, str, float]]:
    """Run a program of the documentation in an environment without matinee; return its rows."""
    absent = "matinee", "lightning", "omegaconf", "pandas", "scipy"
    check = f"import importlib.util as i; assert not any(map(i.find_spec, {absent}))"
    for program in (check, code):
        done = subprocess.run(
            [python, "-I", "-c", program, *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    return [ast.literal_eval(line) for line in done.stdout.splitlines()]


HISTORY = ("103", "110", "121", "103")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["markov", "gru"])
def test_examples_answer_without_matinee(export, tmp_path: Path, model: str) -> None:
    loaded, folder, _ = export(model)
    code = example("answer_onnx.py")
    assert len(code.splitlines()) <= 30
    python = environment(tmp_path / "onnx", "onnxruntime", "numpy")
    found = alone(python, code, str(folder), *HISTORY)
    imports, _, loading, scoring = example("answer_torch.py").splitlines()
    code = code.replace("import onnxruntime", imports)
    code = code.replace('session = onnxruntime.InferenceSession(folder / "model.onnx")', loading)
    code = code.replace("scores = session.run(None, inputs)[0][0]", scoring)
    assert "onnx" not in code
    python = environment(tmp_path / "torch", "torch", "numpy")
    again = alone(python, code, str(folder), *HISTORY)
    expected = recommend(loaded, history=HISTORY, top_k=10)
    for rows in (found, again):
        assert len(rows) == 10
        np.testing.assert_allclose([row[2] for row in rows], expected["score"], atol=1e-3)
    if model == "gru":  # no ties
        assert [row[0] for row in found] == [row[0] for row in again] == expected["item"].tolist()


@pytest.mark.slow
@pytest.mark.network
def test_example_answers_where_pip_has_installed_its_two_packages(export, tmp_path: Path) -> None:
    loaded, folder, _ = export("markov")
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pins = Path(__file__).parents[2] / "requirements" / "constraints.txt"
    install = [python, "-m", "pip", "install", "-qq", "-c", pins, "onnxruntime", "numpy"]
    subprocess.run(install, check=True)
    rows = alone(python, example("answer_onnx.py"), str(folder), *HISTORY)
    expected = recommend(loaded, history=HISTORY, top_k=10)
    np.testing.assert_allclose([row[2] for row in rows], expected["score"], atol=1e-3)
