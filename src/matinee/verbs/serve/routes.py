"""The paths of a service that answer questions."""

import asyncio
from typing import Annotated, Any

import numpy as np
import torch
from fastapi import APIRouter, Depends, Query, Request
from torch import Tensor

from matinee.metrics import best_items
from matinee.verbs.recommend import leave_candidates
from matinee.verbs.serve.batching import Batcher
from matinee.verbs.serve.limits import MOST_EXPLAINED, Refused
from matinee.verbs.serve.questions import (
    PredictQuestion,
    RecommendQuestion,
    SimilarQuestion,
    WhyQuestion,
    asked_by,
    items_named,
)
from matinee.verbs.serve.sources import Scores, Source

EXPLANATIONS = 5  # items of an explanation

router = APIRouter()


async def _served(request: Request) -> Batcher:
    batcher: Batcher = request.app.state.batcher  # one for the whole answer, also during a reload
    return batcher


Served = Annotated[Batcher, Depends(_served)]


@router.post("/recommend")
async def recommend(question: RecommendQuestion, batcher: Served) -> dict[str, Any]:
    """Recommend the best items to a user of the data or to a newcomer."""
    source = batcher.source
    asked = asked_by(source, question)
    every = slice(None)
    met = None if question.repeat else (every, asked.item_ids)
    allow = None if question.allow is None else (every, items_named(source, question.allow))
    deny = (every, items_named(source, question.deny or []))

    def best(scores: Scores) -> tuple[Tensor, Tensor]:
        candidates = torch.from_numpy(scores).unsqueeze(0)
        leave_candidates(candidates, met, allow, deny)
        return best_items(candidates, question.top_k)

    measure = "score" if source.ranks else "predicted_rating"
    return {"measure": measure, "items": _listed(source, await batcher.answer(asked, best))}


@router.post("/predict")
async def predict(question: PredictQuestion, batcher: Served) -> dict[str, Any]:
    """Predict ratings of pairs of users and items."""
    source = batcher.source
    if len(question.users) != len(question.items):
        raise Refused(422, "users and items have different lengths; give one of each per pair.")
    users = np.array([source.users.get(str(raw), 0) for raw in question.users], np.int64)
    items = np.array([source.items.get(str(raw), 0) for raw in question.items], np.int64)
    # no pairs ask for that of the unknown ids, so that a model that rates nothing refuses them, too
    asked = (np.append(users, 0), np.append(items, 0)) if len(users) == 0 else (users, items)
    ratings = (await batcher.call(source.rate, *asked))[: len(users)]
    return {"ratings": [float(rating) for rating in ratings]}


@router.post("/similar")
async def similar(question: SimilarQuestion, batcher: Served) -> dict[str, Any]:
    """Find the items that are most like an item."""
    source = batcher.source
    (item,) = items_named(source, [question.item])

    def best() -> tuple[str, tuple[Tensor, Tensor]]:
        measure, values = source.similarities(item)
        return measure, best_items(torch.from_numpy(values).unsqueeze(0), question.top_k)

    measure, found = await batcher.call(best)
    return {"measure": measure, "items": _listed(source, found)}


@router.post("/why")
async def why(question: WhyQuestion, batcher: Served) -> dict[str, Any]:
    """Say which of the newest items that were met contribute most to the score of an item."""
    source = batcher.source
    asked = asked_by(source, question)
    (item,) = items_named(source, [question.item])
    newest = asked.keep(np.arange(len(asked.item_ids))[-MOST_EXPLAINED:])
    shares = await batcher.call(source.shares, newest, item)
    order = np.argsort(-shares, kind="stable")[:EXPLANATIONS]
    best = newest.item_ids[order]
    return {
        "items": [
            {**_item(source, int(met)), "share": float(share)}
            for met, share in zip(best, shares[order], strict=True)
        ]
    }


@router.get("/items")
async def items(
    batcher: Served,
    query: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """Find items by words of their titles, the most popular first."""
    source = batcher.source
    found = await asyncio.to_thread(source.find_items, query, limit)
    return {"items": [_item(source, item) for item in found]}


@router.get("/health")
async def health(batcher: Served) -> dict[str, Any]:
    """Say what is served."""
    source = batcher.source
    return {
        "status": "ok",
        "model": source.name,
        "items": len(source.raw_items),
        "users": len(source.users),
        "reads": source.reads,
        "rating_scale": source.rating_scale,
    }


def _item(source: Source, item: int) -> dict[str, Any]:
    return {"item": source.raw_items[item - 1], "title": source.titles[item - 1]}


def _listed(source: Source, best: tuple[Tensor, Tensor]) -> list[dict[str, Any]]:
    item_ids, values = (column[0].tolist() for column in best)
    found = zip(item_ids, values, strict=True)
    return [{**_item(source, item), "value": value} for item, value in found if item > 0]
