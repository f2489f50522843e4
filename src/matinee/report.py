"""Reports: what runs have shown, as tables beside published figures."""

import csv
import hashlib
import io
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from matinee.comparison import DECIMALS, HEADLINES, Comparison, Experiment, compare, facts
from matinee.errors import MatineeError
from matinee.run_folder import read_result, write_whole
from matinee.significance import Difference, differences

COLUMNS = {
    "val/rmse": "validation RMSE",
    "test/rmse": "test RMSE",
    "test/mae": "test MAE",
    "val/mrr": "validation MRR",
    "test/mrr": "test MRR",
    "test/recall@10": "test Recall@10",
    "test/ndcg@10": "test NDCG@10",
}
EXPLANATION = """\
Differences are of the figures above, over the draws of the split that both models ran on. The interval
is the middle 95 % of 10,000 resamples of the test users, each with all rows or windows of theirs: those
of one user are not independent. p is of Wilcoxon's signed-rank test on every user's own difference (of
the mean squared error or mean reciprocal rank; zeros by Pratt), times the number of comparisons by
Holm's rule. Neither says how much another seed would change."""


def print_table(table: pd.DataFrame) -> None:
    """Print a table with aligned columns, numbers to the right."""
    print(as_markdown(table))


REPEATED = re.compile(r"hit_rate@|(mrr|ndcg|recall)@1\b")  # with one relevant item they say no more


def print_run(folder: Path) -> None:
    """Print the figures of a finished run; the last line is its folder."""
    metrics = read_result(folder)["metrics"]
    stages = list(dict.fromkeys(name.split("/")[0] for name in metrics))
    told = dict.fromkeys(name.split("/", 1)[1] for name in metrics)
    names = [name for name in told if not REPEATED.match(name)]
    rows = [
        {"metric": name, **{stage: _number(metrics.get(f"{stage}/{name}")) for stage in stages}}
        for name in names
    ]
    print_table(pd.DataFrame(rows))
    print(folder)


def print_evaluation(metrics: Mapping[str, float], recorded: Mapping[str, float]) -> bool:
    """Print figures beside the recorded ones.

    Returns:
        Whether they are the very same.
    """
    rows = [
        {
            "metric": name,
            "now": f"{value:.6f}",
            "recorded": f"{recorded[name]:.6f}" if name in recorded else "",
        }
        for name, value in metrics.items()
    ]
    print_table(pd.DataFrame(rows))
    same = all(metrics[name] == recorded[name] for name in metrics.keys() & recorded)
    if same:
        print("identical to the record, to the last bit")
    else:
        apart = {name: abs(metrics[name] - recorded[name]) for name in metrics.keys() & recorded}
        name = max(apart, key=apart.__getitem__)
        print(f"not the record of the best checkpoint; {name} differs most, by {apart[name]:.2g}")
    return same


def report(folders: Sequence[Path], save: Path | None = None, html: Path | None = None) -> str:
    """Tabulate all finished runs below some folders, seeds of one experiment together.

    Args:
        folders: Where to look, at any depth.
        save: A folder for the text as ``report.md`` and the figures as ``report.csv``.
        html: A file for the whole as one page with figures.

    Returns:
        Markdown: for each protocol (data, split and what the figures mean) a heading, the protocol,
        a table of figures and one of differences from the best.

    Raises:
        MatineeError: If a folder is missing, no run is found or a file cannot be written.
    """
    if html is not None and html.is_dir():
        raise MatineeError(f"{html} is a folder; name a file such as {html / 'report.html'}.")
    comparisons, left_out = compare(folders)
    tested = [differences(comparison) for comparison in comparisons]
    sections = [_section(c, *results) for c, results in zip(comparisons, tested, strict=True)]
    if any(found for found, _ in tested):
        sections.append(EXPLANATION)
    if left_out:
        sections.append(f"Left out: {'; '.join(left_out)}.")
    text = "\n\n".join(sections)
    if save is not None:
        make_folder(save)
        write_whole(save / "report.md", lambda file: file.write(_bytes(f"{text}\n")))
        write_whole(save / "report.csv", lambda file: file.write(_bytes(as_csv(comparisons))))
    if html is not None:
        from matinee.html_report import page  # figures take a second to import

        make_folder(html.parent)
        whole = _bytes(page(comparisons, tested, left_out))
        write_whole(html, lambda file: file.write(whole))
    return text


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """Write every figure as a row of CSV: one an experiment and metric.

    Columns: ``protocol`` (equal only where figures may be compared), ``dataset``, ``split``,
    ``model``, ``metric``, ``mean``, ``std`` (of a sample; empty for one run), ``n`` runs and their
    ``seeds``.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("protocol", "dataset", "split", "model", "metric", "mean", "std", "n", "seeds"))
    for comparison in comparisons:
        described = json.dumps([comparison.dataset, comparison.protocol], sort_keys=True).encode()
        key = hashlib.sha256(described).hexdigest()[:12]
        first = (key, comparison.dataset, comparison.protocol["split"]["name"])
        for experiment in comparison.experiments:
            for metric in dict.fromkeys(
                m for run in experiment.runs for m in run.result["metrics"]
            ):
                values = experiment.values(metric)
                deviation = float(np.std(values, ddof=1)) if len(values) > 1 else ""
                runs = [run for run in experiment.runs if metric in run.result["metrics"]]
                seeds = " ".join(str(run.config["seed"]) for run in runs)
                figures = (float(np.mean(values)), deviation, len(values), seeds)
                rows.writerow((*first, experiment.label, metric, *figures))
    return text.getvalue()


def figures_table(comparison: Comparison) -> pd.DataFrame:
    """Make the table of figures of one protocol, as text."""
    rows = pd.DataFrame([_row(entry, comparison.published) for entry in comparison.experiments])
    last = [*(name for name in rows.columns if name.startswith("published")), "seeds", "fit s"]
    return rows[[*(name for name in rows.columns if name not in last), *last]].fillna("")


def differences_table(found: Mapping[str, Difference]) -> pd.DataFrame:
    """Make the table of differences from the best, as text."""
    return pd.DataFrame(
        {
            "model": label,
            "difference": f"{entry.value:+.{DECIMALS}f}",
            "95 % interval": f"{entry.low:+.{DECIMALS}f} to {entry.high:+.{DECIMALS}f}",
            "p (Holm)": f"{entry.p:.{DECIMALS}f}" if entry.p >= 0.0001 else "< 0.0001",
            "users": str(entry.users),
            "draws": str(entry.draws),
        }
        for label, entry in found.items()
    )


def as_markdown(table: pd.DataFrame) -> str:
    """Format a table in Markdown, columns aligned; what looks like a number stands to the right."""
    cells = [[_cell(name) for name in table.columns]]
    cells += [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    numeric = [
        all(not row[column] or re.match(r"[-+]?\d|< \d", row[column]) for row in cells[1:])
        for column in range(len(widths))
    ]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        + " |"
        for row in cells
    ]
    rule = (
        "-" * (width + 1) + (":" if right else "-")
        for width, right in zip(widths, numeric, strict=True)
    )
    return "\n".join([lines[0], "|" + "|".join(rule) + "|", *lines[1:]])


def make_folder(folder: Path) -> None:
    """Make a folder for a report, if it is not there.

    Raises:
        MatineeError: If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MatineeError(f"{folder} cannot be made ({error}); name another folder.") from error


def against(comparison: Comparison) -> str:
    """Say what the differences of a comparison are."""
    metric = HEADLINES[str(comparison.headline)]
    best = comparison.experiments[-1].label
    worse = "above" if comparison.headline == "rmse" else "below"
    return f"Difference of test {metric} from {best}, the best on validation; {worse} 0 is worse"


def _section(
    comparison: Comparison, found: Mapping[str, Difference], problems: Sequence[str]
) -> str:
    protocol = " ".join(f"{name.capitalize()}: {fact}." for name, fact in facts(comparison).items())
    table = figures_table(comparison)
    table["model"] = [_literal(label) for label in table["model"]]
    parts = [
        _literal(comparison.heading),
        _literal(protocol),
        as_markdown(table),
    ]
    if comparison.remark:
        parts.append(_literal(comparison.remark))
    if found:
        table = differences_table(found)
        table["model"] = [_literal(label) for label in table["model"]]
        parts += [_literal(f"{against(comparison)}:"), as_markdown(table)]
    return "\n\n".join([*parts, *map(_literal, problems)])


def _row(experiment: Experiment, references: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    row = {"model": experiment.label}
    for metric, title in COLUMNS.items():
        values = experiment.values(metric)
        if values:
            row[title] = _number(float(np.mean(values)))
            if len(values) > 1:
                row[title] += f" ± {np.std(values, ddof=1):.{DECIMALS}f}"
        reference = references.get(experiment.label, {}).get(metric)
        if reference is not None:
            row[f"published {title}"] = _number(reference)
    seconds = [run.result["environment"]["seconds"]["fit"] for run in experiment.runs]
    return row | {"seeds": str(len(experiment.runs)), "fit s": f"{np.median(seconds):.1f}"}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.{DECIMALS}f}"


def _literal(text: str) -> str:
    """Keep Markdown from reading signs into a text that somebody else wrote."""
    return _visible(re.sub(r"[\\`*<]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text))


def _bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # folders may have names that are no text


def _cell(value: object) -> str:
    """Write a value as a cell: a bar would end it."""
    return _visible(str(value).replace("|", "\\|"))


def _visible(text: str) -> str:
    """Write line ends and control characters as Python does, so that a text stays on its line."""
    controls = ("Cc", "Zl", "Zp")
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in controls else c for c in text)
