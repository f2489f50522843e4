"""Embeddings for TensorBoard's projector: vectors, labels, and a map of the items as a bookmark."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from matinee.contracts import DataModule, Network
from matinee.files import write_whole
from matinee.metrics import FloatArray
from matinee.texts import table_cell, visible

PROJECTED = 10_000  # rows; the projector grows slow beyond
MAPPED, FEWEST = 300, 100  # items on the map; 300 take a quarter of a second, fewer need no map
PERPLEXITY, STEPS = 15, 300  # neighbors are kept as well as with 1,000 steps
COLORS = 10  # that the projector tells apart


def write_projector(folder: Path, epoch: int, network: Network, datamodule: DataModule) -> None:
    """Write the embedding tables of a network where TensorBoard's projector looks for them.

    Args:
        folder: The run folder; gets ``projector_config.pbtxt`` and, in a folder named after the epoch, the
            vectors, the labels and the bookmark of each table.
        epoch: The epoch that the network is of.
        network: The network, which declares its tables.
        datamodule: What it was trained on.
    """
    from google.protobuf.text_format import MessageToString
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    config = ProjectorConfig()
    for name, (vectors, labels) in embeddings(network, datamodule).items():
        place = Path(f"{epoch:05d}") / name
        shutil.rmtree(folder / place, ignore_errors=True)  # a killed process may have left it
        (folder / place).mkdir(parents=True)
        entry = config.embeddings.add(
            tensor_name=f"{name}:{epoch:05d}",
            tensor_path=f"{place}/tensors.tsv",
            metadata_path=f"{place}/metadata.tsv",
        )
        if name == "items" and (found := item_map(vectors)):
            points, share = found
            color, values = _color(labels, len(points))
            color = _free(color, labels)
            labels[color] = values
            state = bookmark(points, vectors.shape[1], labels.columns[0], color, share)
            entry.bookmarks_path = f"{place}/bookmarks.json"
            _write_text(folder / entry.bookmarks_path, json.dumps([state]))
        lines = ["\t".join(row) for row in (labels.columns, *labels.to_numpy())]
        _write_text(folder / entry.metadata_path, "\n".join(lines) + "\n")
        write_whole(
            folder / entry.tensor_path,
            lambda file, rows=vectors: np.savetxt(file, rows, "%.6g", "\t"),  # type: ignore[misc]
        )
    if config.embeddings:
        _write_text(folder / "projector_config.pbtxt", MessageToString(config))


def _write_text(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()))


def embeddings(
    network: Network, datamodule: DataModule
) -> dict[str, tuple[FloatArray, pd.DataFrame]]:
    """Return the trained embeddings of items and users with their labels.

    TensorBoard opens the table of the most rows, then the first by name. Users are therefore at most as
    many as items, which have the map.

    Args:
        network: The network, which declares its tables.
        datamodule: What it was trained on.

    Returns:
        For each table of more than one dimension: the vectors (n, dim) of the at most 10,000 ids that
        are most frequent in train, and the labels of each: the columns of the item or user table, and
        how often train holds the id.
    """
    table, train = datamodule.interactions, datamodule.split.train
    sides = {"items": (table.items, table.item_ids), "users": (table.users, table.user_ids)}
    most = min(PROJECTED, len(table.items))
    found = {}
    for name, weights in network.tables().items():
        if weights.shape[1] > 1:
            described, ids = sides[name]
            counts = np.bincount(ids[train], minlength=len(described) + 1)
            chosen = 1 + np.argsort(-counts[1:], kind="stable")[:most]
            found[name] = _rows(weights, chosen), _labels(described, chosen, counts)
    return found


def _rows(weights: Tensor, chosen: Any) -> FloatArray:
    vectors: FloatArray = weights.detach().float().cpu().numpy()[chosen]
    return vectors


def _labels(described: pd.DataFrame, chosen: Any, counts: Any) -> pd.DataFrame:
    short = {} if "id" in described else {"raw_id": "id"}
    labels: pd.DataFrame = described.loc[chosen].rename(columns=short)
    labels = labels[sorted(labels, key=lambda column: column != "title")]
    labels = labels.astype("string").fillna("").replace(r"\s+", " ", regex=True)
    labels = labels.map(lambda text: table_cell(visible(text)))
    labels.columns = [table_cell(visible(str(name))) for name in labels]
    labels[_free("in train", labels)] = counts[chosen].astype(str)
    return labels


def _free(name: str, labels: pd.DataFrame) -> str:
    """Return a name for a computed label that no column of the table has."""
    while name in labels:
        name = f"{name} (computed)"
    return name


def item_map(vectors: FloatArray) -> tuple[FloatArray, float] | None:
    """Lay out the first 300 rows in two dimensions by t-SNE [1].

    Rows are centered and scaled to length 1, as the projector's *Spherize data* does it, so that directions
    count, as in its list of neighbors. The result depends on the rows alone: one thread, a fixed seed.

    [1] van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008.

    Args:
        vectors: Embeddings (n, dim), the most frequent first.

    Returns:
        The points (at most 300, 2), and the share of the variance of all rows that the first three principal
        components have, in [0, 1]. None if values are not finite, or fewer than 100 directions differ.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if not np.isfinite(vectors).all():
        return None
    with threadpool_limits(1):
        rows = vectors - vectors.mean(0, dtype=np.float64)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.where(lengths > 0, lengths, 1)
        mapped = rows[:MAPPED]
        if len(np.unique(mapped.round(5), axis=0)) < FEWEST:
            return None
        variances = np.linalg.eigvalsh(rows.T @ rows)
        layout = TSNE(perplexity=PERPLEXITY, max_iter=STEPS, angle=0.8, random_state=0, n_jobs=1)
        points: FloatArray = layout.fit_transform(mapped)
    return points, float(variances[-3:].sum() / variances.sum())


def _color(labels: pd.DataFrame, mapped: int) -> tuple[str, list[str]]:
    """Return the name and the values of a label whose colors tell something.

    Genres, if the table has any: the 9 of most mapped items and "other"; the rarest of an item decides.
    Else popularity: the percentile among the mapped items, empty for others.
    """
    source = next((name for name in ("genre", "genres") if name in labels), None)
    texts = labels[source] if source else [""] * len(labels)
    genres = [[table_cell(genre.strip()) for genre in text.split("|")] for text in texts]
    counts = Counter(genre for of_item in genres[:mapped] for genre in of_item if genre)
    if not counts:
        percentiles = np.linspace(100, 0, mapped).round(1).astype(str)
        return "popularity", [*percentiles, *[""] * (len(labels) - mapped)]
    shown = [genre for genre, _ in counts.most_common(COLORS - 1)][::-1]
    return "genre", [next((g for g in shown if g in of_item), "other") for of_item in genres]


def bookmark(points: FloatArray, dim: int, label: str, color: str, share: float) -> dict[str, Any]:
    """Return a view of the projector that shows the first rows of a table at given points.

    A view of the kind t-SNE goes on computing; the smallest rate that the projector has keeps the points.

    Args:
        points: Coordinates (n, 2).
        dim: Dimensions of the table.
        label: The label of a point that the mouse is on.
        color: The label that colors the points.
        share: What PCA in three dimensions shows of the variance, in [0, 1].
    """
    unused = {
        "pcaComponentDimensions": [0, 1, 2],
        "umapIs3d": False,
        "umapNeighbors": 15,
        "umapMinDist": 0.1,
        **{f"custom{side}Text": "" for side in ("XLeft", "XRight", "YUp", "YDown")},
    }  # the projector reads them from every view
    return unused | {
        "label": f"t-SNE of the {len(points)} most frequent items, colored by {color}. "
        f"PCA in 3D shows {share:.0%} of the variance.",
        "dataSetDimensions": [len(points), dim],
        "filteredPoints": list(range(len(points))),
        "selectedPoints": [],
        "selectedColorOptionName": color,
        "selectedLabelOption": label,
        "selectedProjection": "tsne",
        "projections": [
            {"tsne-0": x, "tsne-1": y} for x, y in points.astype(np.float64).round(3).tolist()
        ],
        "tSNEis3d": False,
        "tSNEIteration": STEPS,
        "tSNEPerplexity": PERPLEXITY,
        "tSNELearningRate": -3,  # a power of ten
    }
