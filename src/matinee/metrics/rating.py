"""Rating metrics: RMSE and MAE over all rows, by segment and by user.

Sums are computed in float64 on the CPU, so a metric does not depend on batch size or accelerator.
"""

import numpy as np
import numpy.typing as npt

from matinee.metrics.masks import FloatArray, Masks, named_masks


def rating_metrics(
    predictions: FloatArray,
    ratings: FloatArray,
    segments: Masks | None = None,
) -> dict[str, float]:
    r"""Compute root mean squared error and mean absolute error over all rows and by segment.

    .. math::
        \mathrm{RMSE} = \sqrt{\tfrac1n \sum (\hat r - r)^2}, \qquad
        \mathrm{MAE} = \tfrac1n \sum |\hat r - r|

    Args:
        predictions: Predicted ratings, in rating units, shape (rows,).
        ratings: True ratings, shape (rows,).
        segments: Named subsets of the rows as masks of shape (rows,), such as ``warm`` and ``cold``.

    Returns:
        ``rmse`` and ``mae`` over all rows, and ``rmse/NAME`` and ``mae/NAME`` for each segment with
        rows. Without rows, there are no metrics.

    >>> rating_metrics(np.array([3.0, 5.0]), np.array([4.0, 2.0]))
    {'rmse': 2.23606797749979, 'mae': 2.0}
    """
    errors = np.asarray(predictions, dtype=np.float64) - np.asarray(ratings, dtype=np.float64)
    metrics = {}
    for suffix, mask in named_masks(segments, len(errors)).items():
        part = errors[mask]
        if len(part):
            metrics[f"rmse{suffix}"] = float(np.sqrt(np.mean(part**2)))
            metrics[f"mae{suffix}"] = float(np.mean(np.abs(part)))
    return metrics


def rating_metrics_per_user(
    predictions: FloatArray, ratings: FloatArray, user_ids: npt.NDArray[np.int32]
) -> dict[str, npt.NDArray[np.int32] | npt.NDArray[np.float64]]:
    """Compute RMSE and MAE of each user with rows, for example for paired tests of two models.

    Args:
        predictions: Predicted ratings, in rating units, shape (rows,).
        ratings: True ratings, shape (rows,).
        user_ids: User of each row, shape (rows,).

    Returns:
        Arrays of shape (users,), by ascending user id: ``user_id``, ``count`` (number of rows),
        ``rmse`` and ``mae``.
    """
    errors = np.asarray(predictions, dtype=np.float64) - np.asarray(ratings, dtype=np.float64)
    users, rows, counts = np.unique(user_ids, return_inverse=True, return_counts=True)
    squared = np.bincount(rows, weights=errors**2, minlength=len(users))
    absolute = np.bincount(rows, weights=np.abs(errors), minlength=len(users))
    return {
        "user_id": users.astype(np.int32),
        "count": counts.astype(np.int32),
        "rmse": np.sqrt(squared / counts),
        "mae": absolute / counts,
    }
