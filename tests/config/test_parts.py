"""Parts are made from plain values, innermost first, and each error names the config path of its part."""

import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from matinee.config.composing import compose
from matinee.config.parts import Part, blame, make, make_part
from matinee.errors import Diverged, MatineeError
from matinee.experiment.building import build

SEQUENCES = [
    "experiment=user_based/gru", "dataset=markov", "dataset.num_users=60", "dataset.num_items=20",
    "dataset.num_interactions=900",
]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ("model.dropout=2", "model.dropout is 2; give a share"),
        ("model.encoder.dropout=2", "model.encoder.dropout is 2; give a share"),
        ("model=user_lstm model.encoder.user_dropout=2", "model.encoder.user_dropout is 2; give"),
        (
            "model=user_lstm model.encoder.encoder.dropout=2",
            "model.encoder.encoder.dropout is 2; give",
        ),
        (
            "model=attention model.encoder.num_heads=3",
            "model.encoder.num_heads is 3; give a divisor",
        ),
        ("model.encoder.num_layers=0", "model.encoder.num_layers is 0; give"),
        ("data.length=1", "data.length is 1"),
        ("task.unknown_users=2", "task.unknown_users is 2; give a share"),
        ("loss.chunk_size=0", "loss.chunk_size is 0; give"),
        ("loss=bpr sampler=popularity sampler.alpha=-1", "sampler.alpha is -1; give"),
        ("split.test_share=2", "split.test_share is 2; give a share"),
        ("dataset.num_items=0", "dataset.num_items is 0; give"),
        ("optimizer.lr=-1", "optimizer cannot be built: Invalid learning rate"),
    ],
)
def test_the_error_of_a_part_names_its_place(overrides: str, sentence: str) -> None:
    config = compose(*SEQUENCES, *overrides.split())
    with pytest.raises(MatineeError, match=f"^{re.escape(sentence)}"):
        build(config)


def test_the_error_of_a_part_within_a_dataset_names_its_place(ratings_csv: Path) -> None:
    table = {"path": str(ratings_csv), "user": "who", "item": "what", "duplicates": "all"}
    node = {
        "_target_": "matinee.data.sources.subset.load",
        "source": {"_target_": "matinee.data.sources.table.load", **table},
    }
    with pytest.raises(MatineeError, match=r"^dataset\.source\.duplicates='all' is unknown"):
        make(node, "dataset")


def refuse(dropout: float, note: str = "") -> None:
    if note == "diverged":
        raise Diverged("dropout is too much; lower it.")
    if note == "user":
        raise MatineeError("user 'x' is not in the data.")
    if note == "silent":
        raise ArithmeticError
    if note == "defect":
        raise KeyError("dropout is 2")
    raise ValueError(f"dropout is {dropout}; give less.")


@pytest.mark.parametrize(
    ("note", "kind", "sentence"),
    [
        ("", MatineeError, "model.tower.dropout is 2; give less."),
        ("diverged", Diverged, "model.tower.dropout is too much; lower it."),
        ("user", MatineeError, "user 'x' is not in the data."),
        ("silent", MatineeError, "model.tower cannot be built: ArithmeticError"),
        ("defect", KeyError, "'dropout is 2'"),
    ],
)
def test_a_message_gets_the_path_if_it_begins_with_a_parameter(
    note: str, kind: type[Exception], sentence: str
) -> None:
    part = Part(refuse, 2)
    part.path = "model.tower"
    with (
        pytest.raises(kind) as caught,
        blame("model", ["dropout", "model"]),
    ):  # as in a part around it
        part(note=note)
    assert (type(caught.value), str(caught.value)) == (kind, sentence)


def test_values_are_plain_and_a_partial_takes_the_rest() -> None:
    config = OmegaConf.create(
        {
            "model": {
                "_target_": "matinee.networks.pairs.ncf.NeuMF",
                "_partial_": True,
                "hidden_dims": [8, 4],
            },
            "empty": {},
        }
    )
    part = make_part(config, "model")
    assert type(part.keywords["hidden_dims"]) is list
    network: Any = part(num_users=3, num_items=4, initial_score=3.0)
    assert type(network).__name__ == "NeuMF"
    assert make_part(config, "empty") is None
    assert make_part(config, "absent") is None
