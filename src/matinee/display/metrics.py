"""Which metrics are shown, and their names for people."""

from matinee.contracts import Headline

BESIDE = ("mae", "recall@10", "ndcg@10")  # shown beside the headline metric, if they are recorded
_STAGES = {"val": "validation"}
_WORDS = {"recall": "Recall", "coverage": "Coverage", "hit_rate": "Hit rate"}  # others are acronyms


def shown_metrics(headline: Headline) -> list[str]:
    """Return the names of the metrics that tables show, without the stage, the headline first."""
    return [headline.metric, *(name for name in BESIDE if name != headline.metric)]


def metric_title(name: str) -> str:
    """Write the name of a logged metric for people.

    >>> metric_title("val/rmse"), metric_title("test/recall@10")
    ('validation RMSE', 'test Recall@10')
    """
    stage, _, metric = name.partition("/")
    word, at, cutoff = metric.partition("@")
    return f"{_STAGES.get(stage, stage)} {_WORDS.get(word, word.upper())}{at}{cutoff}"
