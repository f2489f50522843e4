"""Questions to a service: their form, and who and which items they name."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from matinee.verbs.serve.limits import MOST_ANSWERED, MOST_ITEMS, MOST_LISTED, Refused
from matinee.verbs.serve.sources import Asked, Ids, Source

RawId = StrictInt | Annotated[StrictStr, Field(max_length=1000)]
Listed = Annotated[list[RawId], Field(max_length=MOST_LISTED)]


class Rated(BaseModel):
    """A rating of an item."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    item: RawId
    rating: Annotated[float, Field(strict=True)]


class Someone(BaseModel):
    """Who asks: a user of the data, or a newcomer with a history or ratings, or without anything."""

    model_config = ConfigDict(extra="forbid")
    user: RawId | None = None
    history: Annotated[list[RawId], Field(max_length=MOST_ITEMS)] | None = None
    ratings: Annotated[list[Rated], Field(max_length=MOST_ITEMS)] | None = None


class RecommendQuestion(Someone):
    """Who asks for recommendations, and which items may be recommended."""

    allow: Listed | None = None
    deny: Listed | None = None
    top_k: Annotated[StrictInt, Field(ge=1, le=MOST_ANSWERED)] = 10
    repeat: StrictBool = False


class WhyQuestion(Someone):
    """Who asks why an item is recommended."""

    item: RawId


class PredictQuestion(BaseModel):
    """Pairs of users and items; unknown ids are predicted as unknown ones."""

    model_config = ConfigDict(extra="forbid")
    users: Listed
    items: Listed


class SimilarQuestion(BaseModel):
    """An item, to find others like it."""

    model_config = ConfigDict(extra="forbid")
    item: RawId
    top_k: Annotated[StrictInt, Field(ge=1, le=MOST_ANSWERED)] = 10


def asked_by(source: Source, question: Someone) -> Asked:
    """Find who asks, and what they have met.

    Raises:
        Refused: If an id is not in the data, or the model cannot use what is given.
    """
    given = [name for name in ("user", "history", "ratings") if getattr(question, name) is not None]
    if len(given) > 1:
        raise Refused(422, f"{' and '.join(given)} cannot be combined; give one of them.")
    if question.user is not None:
        user_id = source.users.get(str(question.user), 0)
        if user_id == 0:
            raise Refused(404, f"user {question.user!r} is not in the data.")
        return source.of_user(user_id)
    for name in given:
        if name != source.reads:
            usable = f"give {source.reads}" if source.reads else "give user"
            raise Refused(422, f"this model cannot use {name}; {usable}.")
    if question.history is not None:
        return Asked(0, items_named(source, question.history))
    if question.ratings is not None:
        item_ids = items_named(source, [rated.item for rated in question.ratings])
        if len(np.unique(item_ids)) < len(item_ids):
            raise Refused(422, "an item is rated twice; give one rating per item.")
        low, high = source.rating_scale or (-np.inf, np.inf)
        for rated in question.ratings:
            if not low <= rated.rating <= high:
                raise Refused(422, f"a rating is outside the scale {low:g} to {high:g}.")
        return Asked(0, item_ids, tuple(rated.rating for rated in question.ratings))
    return Asked()


def items_named(source: Source, raw_ids: Sequence[Any]) -> Ids:
    """Find items by their raw ids, (n,).

    Raises:
        Refused: If an item is not in the data.
    """
    item_ids = np.array([source.items.get(str(raw), 0) for raw in raw_ids], np.int64)
    if (unknown := np.flatnonzero(item_ids == 0)).size:
        raise Refused(404, f"item {raw_ids[int(unknown[0])]!r} is not in the data.")
    return item_ids
