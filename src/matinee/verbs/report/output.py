"""A report on all runs below some folders, as Markdown, CSV, an HTML page or a packed table."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from matinee.display.markdown import as_markdown, literal
from matinee.errors import MatineeError
from matinee.files import write_whole
from matinee.texts import table_cell
from matinee.verbs.report.agreement import EXPLANATION as AGREEMENT
from matinee.verbs.report.agreement import agreement_table
from matinee.verbs.report.comparison import Comparison, compare, protocol_facts
from matinee.verbs.report.run_files import find_run_files, pack
from matinee.verbs.report.significance import Difference, differences
from matinee.verbs.report.tables import (
    EXPLANATION,
    differences_table,
    differences_title,
    metrics_table,
)


def report(
    folders: Sequence[str | os.PathLike[str]],
    save: Path | None = None,
    html: Path | None = None,
    packed: Path | None = None,
    agreement: bool = False,
) -> str:
    """Compare all finished runs below some folders; seeds of one experiment share a row.

    Args:
        folders: Where to look, at any depth.
        save: A folder for the text, ``report.md``, and every metric, ``report.csv``.
        html: A file for an HTML page with tables and figures.
        packed: A folder for the packed table of the runs, see
            :func:`matinee.verbs.report.run_files.pack`.
        agreement: Whether to compare the rankings of models under different protocols as well, see
            :func:`matinee.verbs.report.agreement.agreement_table`.

    Returns:
        Markdown: for each protocol (data, split and rules of evaluation) a heading, the protocol, a
        table of metrics and a table of differences from the best.

    Raises:
        MatineeError: If a folder is missing, no run is found, a file cannot be written or there are no
            rankings to compare.
    """
    if html is not None and html.is_dir():
        raise MatineeError(f"{html} is a folder; name a file such as {html / 'report.html'}.")
    paths = [Path(folder) for folder in folders]
    comparisons, left_out = compare(paths)
    tested = [differences(comparison) for comparison in comparisons]
    sections = [_section(c, *results) for c, results in zip(comparisons, tested, strict=True)]
    if any(found for found, _ in tested):
        sections.append(EXPLANATION)
    rankings = agreement_table(comparisons) if agreement else None
    if rankings is not None:
        sections.append(_agreement(rankings))
    if left_out:
        sections.append(f"Left out: {'; '.join(left_out)}.")
    text = "\n\n".join(sections)
    if save is not None:
        make_folder(save)
        write_whole(save / "report.md", lambda file: file.write(_bytes(f"{text}\n")))
        write_whole(save / "report.csv", lambda file: file.write(_bytes(as_csv(comparisons))))
    if html is not None:
        from matinee.verbs.report.html_page import page  # importing matplotlib takes a second

        make_folder(html.parent)
        whole = _bytes(page(comparisons, tested, left_out, rankings))
        write_whole(html, lambda file: file.write(whole))
    if packed is not None:
        make_folder(packed)
        pack(find_run_files(paths), packed)
    return text


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """Write every metric as CSV, one row for each group of runs and metric.

    Columns: ``protocol`` (equal only where metrics may be compared), ``dataset``, ``split``,
    ``model``, ``metric``, ``mean``, ``std`` (of a sample; empty for one run), ``n`` runs and their
    ``seeds``. A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("protocol", "dataset", "split", "model", "metric", "mean", "std", "n", "seeds"))
    for comparison in comparisons:
        described = json.dumps([comparison.dataset, comparison.protocol], sort_keys=True).encode()
        key = hashlib.sha256(described).hexdigest()[:12]
        first = (
            key,
            table_cell(comparison.dataset),
            table_cell(comparison.protocol["split"]["name"]),
        )
        for group in comparison.groups:
            for metric in dict.fromkeys(m for run in group.runs for m in run.result["metrics"]):
                values = group.values(metric)
                deviation = float(np.std(values, ddof=1)) if len(values) > 1 else ""
                runs = [run for run in group.runs if metric in run.result["metrics"]]
                seeds = " ".join(str(run.config["seed"]) for run in runs)
                columns = (float(np.mean(values)), deviation, len(values), seeds)
                rows.writerow((*first, table_cell(group.label), table_cell(metric), *columns))
    return text.getvalue()


def make_folder(folder: Path) -> None:
    """Create a folder for a report, if there is none.

    Raises:
        MatineeError: If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MatineeError(f"{folder} cannot be created ({error}); name another folder.") from error


def _section(
    comparison: Comparison, found: Mapping[str, Difference], problems: Sequence[str]
) -> str:
    protocol = " ".join(
        f"{name.capitalize()}: {fact}." for name, fact in protocol_facts(comparison).items()
    )
    table = metrics_table(comparison)
    table["model"] = [literal(label) for label in table["model"]]
    parts = [
        literal(comparison.heading),
        literal(protocol),
        as_markdown(table),
    ]
    if comparison.remark:
        parts.append(literal(comparison.remark))
    if found:
        table = differences_table(found)
        table["model"] = [literal(label) for label in table["model"]]
        parts += [literal(f"{differences_title(comparison)}:"), as_markdown(table)]
    return "\n\n".join([*parts, *map(literal, problems)])


def _agreement(table: pd.DataFrame) -> str:
    shown = table.map(literal)
    return "\n\n".join(["Agreement of the protocols", as_markdown(shown), AGREEMENT])


def _bytes(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # names of folders may be no valid text
