"""The report as one HTML file with tables, figures and details of the runs; it needs no network."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from matinee.display import plotting
from matinee.display.metrics import metric_title
from matinee.verbs.report import figures
from matinee.verbs.report.agreement import EXPLANATION as AGREEMENT
from matinee.verbs.report.comparison import Comparison, RunGroup, protocol_facts
from matinee.verbs.report.runs import Run, changed_keys
from matinee.verbs.report.significance import Difference
from matinee.verbs.report.tables import EXPLANATION, differences_table, metrics_table

TEMPLATES = Path(__file__).resolve().parent / "templates"
Tested = tuple[Mapping[str, Difference], Sequence[str]]


def page(
    comparisons: Sequence[Comparison],
    tested: Sequence[Tested],
    left_out: Sequence[str],
    rankings: pd.DataFrame | None = None,
) -> str:
    """Write a page about all comparisons.

    Args:
        comparisons: One for each protocol.
        tested: For each, the differences from the best and sentences on what could not be compared.
        left_out: Remarks on runs that are left out.
        rankings: The table of how far the rankings of the protocols agree.

    Returns:
        HTML that contains everything. Without scripts it is complete; its only script sorts tables. Its
        content security policy allows no other script and no request.

    Raises:
        MatineeError: If the ``metrics.csv`` of a run cannot be read.
    """
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [
        _section(f"s{index}", comparison, *results)
        for index, (comparison, results) in enumerate(zip(comparisons, tested, strict=True))
    ]
    return environment.get_template("report.html.j2").render(
        sections=sections,
        left_out=left_out,
        explanation=EXPLANATION,
        rankings=None if rankings is None else _sortable(rankings),
        on_rankings=AGREEMENT,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
    )


def _section(
    name: str, comparison: Comparison, found: Mapping[str, Difference], problems: Sequence[str]
) -> dict[str, Any]:
    """Collect what the template shows of one protocol."""
    changes = changed_keys([entry.effective_config for entry in comparison.groups])
    table = metrics_table(comparison)[::-1]
    table.insert(
        len(table.columns), "parameters", [_parameters(e) for e in comparison.groups[::-1]]
    )
    return {
        "name": name,
        "heading": comparison.heading,
        "facts": protocol_facts(comparison),
        "metric": metric_title(f"test/{comparison.headline.metric}"),
        "lower": not comparison.headline.higher_is_better,
        "best": comparison.groups[-1].label,
        "metrics": _sortable(table),
        "differences": _sortable(differences_table(found)[::-1]) if found else None,
        "charts": list(_charts(name, comparison, found)),
        "remarks": [*filter(None, [comparison.remark]), *problems],
        "groups": [
            {"label": entry.label, "changes": change, "runs": [_run(run) for run in entry.runs]}
            for entry, change in zip(comparison.groups, changes, strict=True)
        ][::-1],
    }


def _charts(name: str, comparison: Comparison, found: Mapping[str, Difference]) -> Any:
    """Yield each figure as SVG with its title and an explanation."""
    description = (
        "Large dot and bar: mean and standard deviation over seeds. Small dots: the seeds."
    )
    metric = f"test/{comparison.headline.metric}"
    if not any(entry.values(metric) for entry in comparison.groups):
        return
    if any(comparison.reference(entry, metric) is not None for entry in comparison.groups):
        description += " Diamond: published by others."
    title = metric_title(metric).replace("test", "Test")
    yield _chart(f"{name}-board", figures.leaderboard(comparison), title, description)
    curves = figures.curves(comparison)
    if curves is not None:
        drawn = len(curves.axes[0].lines)
        which = f"the best {drawn}" if drawn == figures.MOST_CURVES else "all"
        reading = f"Mean over seeds, and their range; {which} of those with at least two epochs."
        yield _chart(f"{name}-curves", curves, "Validation after each epoch", reading)
    if found:
        yield _chart(
            f"{name}-apart",
            figures.differences(comparison, found),
            f"Difference from {comparison.groups[-1].label}",
            "95 % intervals over users; filled dots where the interval does not contain 0.",
        )


def _chart(name: str, figure: Figure, title: str, reading: str) -> dict[str, Any]:
    svg = plotting.as_svg(figure, name).replace(
        "<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1
    )
    return {"svg": Markup(svg), "title": title, "reading": reading}


def _sortable(table: pd.DataFrame) -> dict[str, Any]:
    """Add to each cell the number it begins with, to sort by, if all cells of its column have one."""
    rows: list[list[str]] = table.to_numpy().tolist()
    values = [[_leading_number(cell) for cell in row] for row in rows]
    numeric = [
        all(
            value is not None or not row[column]
            for value, row in zip(column_values, rows, strict=True)
        )
        for column, column_values in enumerate(zip(*values, strict=True))
    ]
    cells = [
        [
            {"text": text, "number": number if numeric[column] else None}
            for column, (text, number) in enumerate(zip(row, numbers, strict=True))
        ]
        for row, numbers in zip(rows, values, strict=True)
    ]
    return {"columns": list(zip(table.columns, numeric, strict=True)), "rows": cells}


def _leading_number(text: str) -> float | None:
    match = re.match(r"(?:< )?([-+]?[\d,]*\.?\d+)", text)
    return float(match[1].replace(",", "")) if match else None


def _parameters(group: RunGroup) -> str:
    counts = [run.result.get("fit", {}).get("parameters") for run in group.runs]
    known = [count for count in counts if count is not None]
    return f"{int(np.median(known)):,}" if known else ""


def _run(run: Run) -> dict[str, Any]:
    """Return a run's folder, seed, overrides, epochs, commit and device, as text."""
    fit, environment = run.result.get("fit", {}), run.result["environment"]
    best = fit.get("best_epoch")
    return {
        "folder": str(run.folder),
        "seed": run.config["seed"],
        "overrides": " ".join(run.overrides),
        "epochs": f"{best + 1} of {fit['epochs']}" if isinstance(best, int) else "",
        "commit": str(environment.get("commit") or "")[:12],
        "device": str(environment.get("accelerator", "")).removesuffix("Accelerator"),
    }
