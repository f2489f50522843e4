"""What may be asked of a finished run, and where the answer may be kept."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from matinee import cli
from matinee.errors import MatineeError
from matinee.experiment.run_folder import read_result
from matinee.training.tasks.next_item import NextItemTask
from matinee.training.tasks.rating import RatingTask
from matinee.verbs.evaluate import check_agreement, claim_output
from matinee.verbs.printing import print_evaluation

Run = Callable[..., Path]
ASKED = {"run": "a", "checkpoint": "best", "histories": "last_1", "segments": "None"}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Assert that nothing is measured but one sentence told, and return it."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["evaluate", *arguments])
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.strip().splitlines()[-1]


def test_an_answer_is_kept_and_nothing_else_is_lost(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = run("model=bias"), tmp_path / "kept"
    before = (folder / "per_user.npz").read_bytes()
    for again in ("", "/"):  # the same question, spelt in two ways
        cli.main(["evaluate", f"run={folder}{again}", f"output={output}"])
    printed = capsys.readouterr()
    recorded = read_result(folder)["metrics"]
    assert f"to the last bit, in all its {len(recorded)} metrics" in printed.out
    assert f"written: {output / 'evaluation.json'}" in printed.err

    cli.main(["evaluate", f"run={folder}", "segments=[popularity]"])
    assert f"in 6 of its {len(recorded)} metrics" in capsys.readouterr().out

    of_run = [f"run={folder}", "segments=[popularity]"]
    for arguments, sentence in (
        (
            [*of_run, f"output={output}"],
            "holds the evaluation of segments=None, not ['popularity']",
        ),
        ([*of_run, f"output={folder}"], "is a run folder"),
        ([*of_run, "output="], "output is ''; name a folder"),
        ([*of_run, "output=[a]"], "output is ['a']; give a text or null"),
        ([*of_run, f"output={folder / 'result.json'}"], "cannot be created"),
        ([*of_run, f"output={folder / 'result.json'}/x"], "cannot be created"),
        ([f"run={folder}", "segments=[5]"], "data.segments is [5]; give a list of names"),
        ([f"run={folder}", "segments=nonsense"], "data.segments is 'nonsense'; give a list"),
        ([f"run={folder}", "segments={a: 1}"], "data.segments is {'a': 1}; give a list"),
        (["run=null"], "null is no run folder"),
    ):
        assert sentence in refused(capsys, *arguments)
    assert (folder / "per_user.npz").read_bytes() == before

    result = folder / "result.json"
    content = json.loads(result.read_text())
    content["metrics"]["test/rmse"] = "low"
    result.write_text(json.dumps(content))
    assert "is no result of a run" in refused(capsys, f"run={folder}")
    result.unlink()
    other = tmp_path / "other"
    assert "holds no result.json" in refused(capsys, f"run={folder}", f"output={other}")
    assert not other.exists()


def test_another_kind_of_device_may_differ_a_little(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run("model=bias") / "result.json"
    recorded = json.loads(path.read_text())

    def evaluated(accelerator: str | None, metrics: dict[str, float], fails: bool) -> str:
        """Return the last line that was printed, and that of the error if it fails."""
        recorded["environment"]["accelerator"] = accelerator
        if accelerator is None:
            del recorded["environment"]["accelerator"]
        path.write_text(json.dumps({**recorded, "metrics": metrics}))
        capsys.readouterr()
        with pytest.raises(SystemExit) if fails else nullcontext() as ended:
            cli.main(["evaluate", f"run={path.parent}"])
        assert ended is None or ended.value.code == 1
        printed = capsys.readouterr()
        return "\n".join([printed.out.splitlines()[-1], *printed.err.splitlines()[-1:]])

    def moved(factor: float) -> dict[str, float]:
        metrics: dict[str, float] = recorded["metrics"]
        return {**metrics, "test/rmse": metrics["test/rmse"] * factor}

    here, there = "CPUAccelerator", "CUDAAccelerator"
    elsewhere = "recorded on CUDA, measured on CPU; "
    differs = "test/rmse differs most from the record, by +"
    same = f"{elsewhere}identical to the record, to the last bit, in all"
    assert evaluated(there, moved(1), False).startswith(same)
    assert evaluated(there, moved(1 - 5e-5), False).startswith(elsewhere + differs)
    said = evaluated(there, moved(1 - 2e-4), True)
    assert said.startswith(elsewhere + differs)
    assert said.endswith("by more than another kind of device explains (0.0001 of a value).")
    for accelerator in (here, None):
        said = evaluated(accelerator, moved(1 - 5e-5), True)
        assert said.startswith(differs)
        assert said.endswith("differ from those recorded in its result.json.")
    for accelerator in (here, there):
        said = evaluated(accelerator, {"test/other": 1.0}, True)
        assert "the record has none of these metrics" in said


@pytest.mark.parametrize(
    ("task", "now", "recorded", "agrees"),
    [
        (RatingTask, 0.9, 0.9 * (1 + 9e-5), True),
        (RatingTask, 0.9, 0.9 * (1 + 2e-4), False),
        (RatingTask, 1e-5, 2e-5, False),
        (NextItemTask, 0.07018, 0.0702, True),
        (NextItemTask, 0.07, 0.0709, True),  # less than 0.001
        (NextItemTask, 0.07, 0.0712, False),
        (NextItemTask, 0.5, 0.504, True),  # less than a hundredth
        (NextItemTask, 0.5, 0.506, False),
        (NextItemTask, np.nan, 0.5, False),
    ],
)
def test_tolerance_between_devices(
    task: type[RatingTask | NextItemTask], now: float, recorded: float, agrees: bool
) -> None:
    metrics = {"a": 0.5, "b": now}, {"b": recorded, "a": 0.5, "c": 1.0}
    with nullcontext() if agrees else pytest.raises(MatineeError, match="of folder differ"):
        check_agreement(Path("folder"), *metrics, *task.device_tolerance)
    with pytest.raises(MatineeError, match=r"result\.json\.$"):
        check_agreement(Path("folder"), *metrics, 0.0, 0.0)


def test_an_output_holds_the_answer_to_one_question(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "output"
    assert claim_output(str(folder), ASKED) == folder and folder.is_dir()
    (folder / "evaluation.json").write_text(json.dumps(ASKED))
    claim_output(str(folder), ASKED)
    for key, value in (("run", "b"), ("checkpoint", "last"), ("histories", "last_2")):
        with pytest.raises(
            MatineeError, match=f"of {key}={ASKED[key]}, not {value}; name another folder"
        ):
            claim_output(str(folder), ASKED | {key: value})
    (folder / "evaluation.json").write_text("[]")
    with pytest.raises(MatineeError, match="cannot be read; name another output"):
        claim_output(str(folder), ASKED)


def test_the_output_names_what_differs_from_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    recorded = {"val/mrr": 0.5, "test/mrr": 0.25, "test/mrr/warm": 0.5}
    now = {"val/mrr": 0.5, "test/mrr": 0.125}

    def said(metrics: dict[str, float], *asked: str) -> str:
        print_evaluation(metrics, recorded, *asked)
        return capsys.readouterr().out.splitlines()[-1]

    most = "test/mrr differs most from the record, by -0.12"
    assert said(now) == most
    assert said(now, "best", "shuffled") == f"the histories were changed (shuffled); {most}"
    assert said(now, "last") == f"this is the last checkpoint, not the best; {most}"
    same = "identical to the record, to the last bit, in"
    assert said({"val/mrr": 0.5}, "best") == f"{same} 1 of its 3 metrics"
    assert said(recorded) == f"{same} all its 3 metrics"
    assert said({"x": np.nan}) == "the record has none of these metrics"
