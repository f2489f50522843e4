"""Which metrics tables show, and their titles."""

from matinee.contracts import Headline

BESIDE = ("mae", "recall@10", "ndcg@10")  # shown beside the headline metric, if recorded
_STAGES = {"val": "validation"}
_WORDS = {"recall": "Recall", "coverage": "Coverage", "hit_rate": "Hit rate"}  # others are acronyms


def shown_metrics(headline: Headline) -> list[str]:
    """Return the metrics that tables show, without the stage, the headline metric first."""
    return [headline.metric, *(name for name in BESIDE if name != headline.metric)]


def metric_title(name: str) -> str:
    """Return the title of a logged metric in tables and figures.

    >>> metric_title("val/rmse"), metric_title("test/recall@10")
    ('validation RMSE', 'test Recall@10')
    """
    stage, _, metric = name.partition("/")
    word, at, cutoff = metric.partition("@")
    return f"{_STAGES.get(stage, stage)} {_WORDS.get(word, word.upper())}{at}{cutoff}"
