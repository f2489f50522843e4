"""Every shipped config is sound, and every mistake in one gets an answer."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from matinee.config.checking import check_config
from matinee.config.composing import compose
from matinee.config.folders import config_dir
from matinee.errors import MatineeError
from matinee.experiment import running


def choices(group: str) -> list[str]:
    folder = config_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


@pytest.mark.parametrize("choice", choices("experiment"))
def test_every_experiment_trains_two_batches(compose_train, tmp_path: Path, choice: str) -> None:
    config = compose_train(
        f"experiment={choice}", "+trainer.limit_train_batches=2", "trainer.max_epochs=1",
        f"run_folder={tmp_path / 'run'}",
    )  # fmt: skip
    folder = running.train(config, [])
    assert (folder / "result.json").exists()


SOLVED = ["bias", "global_mean", "item_mean", "bayesian_mf"]


@pytest.mark.parametrize("model", [*SOLVED, "mf", "mf_bias", "ncf"])
@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "star_classification"])
def test_every_rating_model_takes_every_rating_loss(
    compose_train, tmp_path: Path, model: str, loss: str
) -> None:
    """But what is solved predicts ratings, which are not the scores of a classification."""
    config = compose_train(
        f"model={model}",
        f"loss={loss}",
        "trainer.max_epochs=1",
        f"run_folder={tmp_path / 'run'}",
        "logger=none",
    )
    if model in SOLVED and loss == "star_classification":
        with pytest.raises(MatineeError, match=r"predicts ratings and StarClassification takes"):
            running.train(config, [])
        return
    assert (running.train(config, []) / "result.json").exists()


@pytest.mark.parametrize(
    ("group", "choice"),
    [(group, choice) for group in ("optimizer", "scheduler", "split") for choice in choices(group)],
)
def test_every_choice_passes_the_check(compose_train, group: str, choice: str) -> None:
    check_config(compose_train(f"{group}={choice}"), "train")


@pytest.mark.parametrize("path", sorted(config_dir().rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_says_what_it_is(path: Path) -> None:
    first = path.read_text().removeprefix("# @package _global_\n").splitlines()[0]
    assert first.startswith("# ")
    assert len(first) > 15


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("+optimizer.lrr=1", r"unknown key 'optimizer\.lrr'; did you mean 'optimizer\.lr'"),
        ("+modle=mf", r"unknown key 'modle'; did you mean 'model'"),
        (
            "+callbacks.early_stoping.patience=3",
            r"'callbacks\.early_stoping'; did you mean 'callbacks\.early_stopping'",
        ),
        ("model._target_=os.system", r"model\._target_=os\.system is not allowed"),
        ("model._target_=matinee.data.sources.fetch.os.system", "not allowed"),
        ("model._target_=matinee.networks.nothing", "not allowed there; did you mean"),
        ("optimizer._target_=torch.optim.adam.torch.hub.load", "not allowed"),
        ("callbacks.metrics._target_=builtins.exec", "not allowed"),
    ],
)
def test_unknown_keys_and_foreign_targets_are_refused(
    compose_train, override: str, sentence: str
) -> None:
    with pytest.raises(MatineeError, match=sentence):
        check_config(compose_train(override), "train")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("optimizer.lr=true", r"optimizer\.lr is True; give a number"),
        ("data.batch_size=true", r"data\.batch_size is True; give a whole number"),
        ("split.seed=true", r"split\.seed is True; give a whole number"),
    ],
)
def test_true_is_no_number(compose_train, override: str, sentence: str) -> None:
    with pytest.raises(MatineeError, match=sentence):
        check_config(compose_train("split=random", override), "train")


def test_a_parameter_of_the_target_may_be_added(compose_train) -> None:
    check_config(compose_train("+trainer.gradient_clip_val=1.0", "+optimizer.eps=1e-7"), "train")


def test_a_callback_may_be_switched_off(compose_train) -> None:
    check_config(compose_train("callbacks.early_stopping=null"), "train")


def test_a_misspelt_key_in_an_experiment_file_is_found(
    compose_train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "experiment" / "mine.yaml"
    path.parent.mkdir()
    path.write_text("# @package _global_\noptimizer:\n  learning_rate: 0.1\n")
    with pytest.raises(MatineeError, match=r"unknown key 'optimizer\.learning_rate'"):
        check_config(
            compose_train("experiment=mine", f"hydra.searchpath=[file://{tmp_path}]"), "train"
        )


def test_sizes_never_stand_in_a_config() -> None:
    for path in config_dir().rglob("*.yaml"):
        assert "num_items" not in str(OmegaConf.load(path).get("model", "")), path


def test_composing_in_python_names_and_checks_as_the_command_line_does() -> None:
    assert compose().name == "ml-100k/chronological/mf_bias"
    assert compose("experiment=random/mf", "model=ncf").name == "ml-100k/random/ncf"
    assert compose("split=random", "seed=3").split.seed == 3
    assert "hydra" not in compose()
    with pytest.raises(MatineeError, match=r"no model=mff; did you mean 'mf'"):
        compose("model=mff")
    with pytest.raises(MatineeError, match=r"unknown key 'sede'; did you mean 'seed'"):
        compose("sede=1")
    with pytest.raises(MatineeError, match=r"did you mean 'optimizer\.lr'"):
        compose("+optimizer.lrr=1")
