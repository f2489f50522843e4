"""Segments: named subsets of what is evaluated, each with metrics of its own.

``warmth``
    ``warm`` where train holds the user and the item of a rating, or the item that is to be ranked
    next; else ``cold``.
``popularity``
    ``popularity=low``, ``middle`` and ``high``: the items of train in thirds by how often train holds
    them. Items of one count stay together, and items that train never held are ``low``.
``history``
    ``history=0``, ``1-9``, ``10-49``, ``50-199`` and ``200+``: how many rows of the user come before:
    those of train for a rating, all that precede the target for a next item.
``known``
    ``known=0``, ``1``, ``2``, ``3-4``, ``5-9``, ``10-19``, ``20-49``, ``50-99`` and ``100+``: the same,
    finer where a model gets to know a user.
``item.COLUMN`` and ``user.COLUMN``
    By any column of the item or user table, such as ``item.genres`` and ``user.gender``. A text with
    bars ``|`` lies in several segments; numbers of more than ten values are cut into thirds of the
    table, so that a name means the same in every stage.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from matinee.data.interactions import Interactions
from matinee.errors import MatineeError

Masks = dict[str, NDArray[np.bool_]]

HISTORY = {"0": (0, 0), "1-9": (1, 9), "10-49": (10, 49), "50-199": (50, 199), "200+": (200, None)}
KNOWN = {
    "0": (0, 0), "1": (1, 1), "2": (2, 2), "3-4": (3, 4), "5-9": (5, 9), "10-19": (10, 19),
    "20-49": (20, 49), "50-99": (50, 99), "100+": (100, None),
}  # fmt: skip
MOST_VALUES = 10  # of a column of numbers that is not cut into thirds


class Evaluated(NamedTuple):
    """What a stage evaluates, in the order of its predictions, (n,) each.

    Attributes:
        user_ids: Whose rating or next item it is.
        item_ids: The rated or next item.
        history_lengths: Rows of the user that came before it.
        warm: Whether train holds what the prediction is about.
    """

    user_ids: NDArray[np.integer]
    item_ids: NDArray[np.integer]
    history_lengths: NDArray[np.int64]
    warm: NDArray[np.bool_]


def check_segments(names: Sequence[str], interactions: Interactions) -> Sequence[str]:
    """Return the names as they are, if these data have all of them.

    Raises:
        MatineeError: If they are no list of texts, or a name is no kind and no column.
    """
    listed = isinstance(names, Sequence) and not isinstance(names, str)
    if not listed or not all(isinstance(name, str) for name in names):
        raise MatineeError(
            f"data.segments is {names!r}; give a list of names, such as [popularity,item.genres]."
        )
    nothing = np.zeros(0, dtype=np.int64)
    nobody = Evaluated(nothing, nothing, nothing, nothing.astype(np.bool_))
    segment_masks(names, nobody, interactions, np.arange(len(interactions)))
    return names


def segment_masks(
    names: Sequence[str], evaluated: Evaluated, interactions: Interactions, train: NDArray[np.int64]
) -> Masks:
    """Mark which rows of a stage lie in which segment.

    Args:
        names: Kinds of segments, see the module; none of them makes no segment.
        evaluated: What the stage evaluates, n rows.
        interactions: The whole table.
        train: Row positions of train.

    Returns:
        A mask (n,) by the segment's name. Segments of one kind may overlap only for texts with bars.

    Raises:
        MatineeError: If a name is no kind and no column.
    """
    masks: Masks = {}
    for name in names:
        if name == "warmth":
            masks |= {"warm": evaluated.warm, "cold": ~evaluated.warm}
        elif name == "popularity":
            counts = np.bincount(interactions.item_ids[train], minlength=interactions.num_items + 1)
            masks |= _thirds("popularity", counts[evaluated.item_ids], counts[counts > 0])
        elif name in ("history", "known"):
            lengths = evaluated.history_lengths
            for label, (least, most) in (HISTORY if name == "history" else KNOWN).items():
                mask = lengths >= least
                masks[f"{name}={label}"] = mask if most is None else mask & (lengths <= most)
        elif name.startswith("item."):
            masks |= _by_column(name, interactions.items, evaluated.item_ids)
        elif name.startswith("user."):
            masks |= _by_column(name, interactions.users, evaluated.user_ids)
        else:
            raise MatineeError(
                f"data.segments holds {name!r}; choose of warmth, popularity, history, known, item.COLUMN "
                "and user.COLUMN."
            )
    return masks


def _by_column(name: str, table: pd.DataFrame, ids: NDArray[np.integer]) -> Masks:
    kind, _, column = name.partition(".")
    if column not in table or column == "raw_id":
        known = ", ".join(f"{kind}.{known}" for known in table if known != "raw_id") or "none"
        raise MatineeError(
            f"data.segments holds {name!r}, but the columns of these data are: {known}."
        )
    values = table[column].reindex(ids)
    whole = table[column].dropna()
    if pd.api.types.is_numeric_dtype(whole) and whole.nunique() > MOST_VALUES:
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        return _thirds(column, numbers, whole.to_numpy(dtype=np.float64))
    texts = values.astype("string").fillna("")
    parts = texts.str.split("|", regex=False).explode()
    places = np.repeat(np.arange(len(texts)), texts.str.count(r"\|").to_numpy(dtype=np.int64) + 1)
    masks = {}
    for value in sorted(set(parts) - {""}):
        masks[f"{column}={value}"] = mask = np.zeros(len(texts), dtype=np.bool_)
        mask[places[(parts == value).to_numpy(dtype=np.bool_)]] = True
    return masks


def _thirds(
    name: str, values: NDArray[np.int64] | NDArray[np.float64], reference: NDArray[np.number]
) -> Masks:
    """Cut values at the thirds of a reference; a value that is no number lies in none."""
    first, second = np.quantile(reference, [1 / 3, 2 / 3], method="inverted_cdf")
    return {
        f"{name}=low": values <= first,
        f"{name}=middle": (values > first) & (values <= second),
        f"{name}=high": values > second,
    }
