"""Tables and figures of the study of long- and short-term dependencies, from the ranks of its runs.

``python docs/long_short_term/experiments.py FOLDER [all|1..5]`` reads the runs of a study from a folder. It
writes tables.md, estimates.csv with every measure in every segment, and a figure for each experiment to the
folder, and prints the tables of one experiment or of all. docs/long_short_term.md discusses the results.
"""

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from estimates import MEASURES, Cell, Estimate, Study, estimate, p_value
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from matinee.display.markdown import as_markdown
from matinee.display.plotting import COLOURS, STYLE
from matinee.errors import MatineeError
from matinee.verbs.report.significance import holm

POPULARITY = ("popularity=low", "popularity=middle", "popularity=high")
HISTORY = ("history=10-49", "history=50-199", "history=200+")
MODELS = ("gru", "user_gru", "attention", "user_attention", "dnc", "user_dnc")
ORDERS = {
    "whole": "all",
    "last_in_place": "all, shuffled\nexcept the last",
    "shuffled": "all, shuffled",
    "last_5": "the last 5",
    "last_2": "the last 2",
    "last_1": "the last",
}
PAIRS = (("gru", "user_gru"), ("attention", "user_attention"), ("dnc", "user_dnc"))


@dataclass(frozen=True)
class Result:
    """The results of an experiment.

    Attributes:
        figure: A figure of all settings.
        cells: Settings with their labels; None if a setting was not trained.
        comparisons: Tables with a label, a cell and the cell that it is compared with in each row. The
            p-values of a table are corrected for its number of rows.
    """

    figure: Figure
    cells: list[tuple[str, Cell | None]]
    comparisons: list[list[tuple[str, Cell | None, Cell | None]]]

    @property
    def text(self) -> str:
        """The tables in Markdown; empty if nothing can be compared."""
        differences = [table for table in map(_differences_table, self.comparisons) if table]
        return "\n\n".join([_measures_table(self.cells), *differences]) if differences else ""

    def rows(self, experiment: str) -> list[dict[str, Any]]:
        """Return the estimates of every measure in every segment with windows."""
        return [
            {
                "experiment": experiment,
                "setting": label,
                "segment": segment or "all",
                "measure": measure,
                **vars(estimate(cell, measure=measure, segment=segment)),
                "windows": windows,
                "seeds": cell.seeds,
            }
            for label, cell in self.cells
            if cell is not None
            for segment in (None, *cell.segments)
            if (windows := int(cell.segments[segment].sum()) if segment else len(cell.users))
            for measure in MEASURES
        ]


def _measures_table(rows: list[tuple[str, Cell | None]]) -> str:
    """Return the table of the measures of cells, and of MRR@20 by segment."""
    table = []
    for label, cell in rows:
        if cell is not None:
            row = {"": label} | {m: f"{estimate(cell, measure=m):.4f}" for m in MEASURES}
            for name in (*POPULARITY, *HISTORY):
                if name in cell.segments:
                    found = estimate(cell, segment=name).value
                    row[f"MRR@20, {name}"] = "" if np.isnan(found) else f"{found:.4f}"
            table.append({**row, "seeds": str(cell.seeds)})
    return as_markdown(pd.DataFrame(table).fillna("")) if table else ""


def _differences_table(rows: list[tuple[str, Cell | None, Cell | None]]) -> str:
    """Return the table of differences between cells, with corrected p-values."""
    known = [(label, one, two) for label, one, two in rows if one is not None and two is not None]
    if not known:
        return ""
    p_values = holm(np.array([p_value(one, two) for _, one, two in known]))
    table = []
    for (label, one, two), p in zip(known, p_values, strict=True):
        row = {"": label} | {m: f"{estimate(one, two, m):+.4f}" for m in MEASURES}
        row["p of MRR@20 (Holm)"] = f"{p:.4f}" if p >= 0.0001 else "< 0.0001"
        row["MRR@20, ratio"] = f"{estimate(one, two, ratio=True):.2f}"
        for name in (*POPULARITY, *HISTORY):
            if name in one.segments and one.segments[name].any():
                row[f"MRR@20, {name}"] = f"{estimate(one, two, segment=name):+.4f}"
        table.append(row)
    return as_markdown(pd.DataFrame(table).fillna(""))


def time_folds(study: Study) -> Result:
    """(1) Tenths of the data: does user information help, with and without rare items?"""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
    cells, differences = [], []
    for axes, least in zip(panels, (20, 2), strict=True):
        plain, user = (study.folds(model, least) for model in ("gru", "user_gru"))
        cells += [
            (f"gru, items of {least}+ rows", plain),
            (f"user_gru, items of {least}+ rows", user),
        ]
        differences.append((f"user_gru - gru, items of {least}+ rows", user, plain))
        points = {
            fold: estimate(one, two)
            for fold in range(10)
            if (one := study.folds("user_gru", least, fold))
            and (two := study.folds("gru", least, fold))
        }
        draw(axes, points, "one tenth", linestyle="")
        if user and plain:
            whole = estimate(user, plain)
            axes.axhspan(
                whole.low, whole.high, color=COLOURS[4], alpha=0.3, label="all tenths, 95 %"
            )
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(
            title=f"items of at least {least} rows",
            xlabel="tenth of the data, oldest first",
            xticks=range(10),
        )
    panels[0].set_ylabel("MRR@20, user_gru - gru")
    explain(figure)
    return Result(figure, cells, [differences])


def shrinking_history(study: Study) -> Result:
    """(2) The oldest part of every user's training data dropped."""
    figure, axes = plt.subplots(figsize=(6, 4))
    shares = study.swept("drop")
    cells, kept = [], []
    for number, model in enumerate(("gru", "user_gru")):
        whole = study.run(model)
        runs = {share: study.run(model, drop=share) for share in shares}
        cells += [(f"{model}, {share:.0%} dropped", cell) for share, cell in runs.items()]
        kept += [
            (f"{model}, {share:.0%} dropped - none", cell, whole)
            for share, cell in runs.items()
            if share
        ]
        if whole:
            points = {
                100 * x + number: estimate(cell, whole, ratio=True)
                for x, cell in runs.items()
                if cell
            }
            draw(axes, points, model, number)
    axes.plot([0, 90], [1, 0.1], color="grey", linestyle=":", label="share of the training data")
    axes.set(
        xlabel="% of each user's oldest training data dropped",
        ylabel="MRR@20, relative",
        ylim=(0, 1.15),
    )
    explain(figure)
    by_user = [
        (
            f"user_gru - gru, {share:.0%} dropped",
            study.run("user_gru", drop=share),
            study.run("gru", drop=share),
        )
        for share in shares
    ]
    return Result(figure, cells, [kept, by_user])


def embedding_size(study: Study) -> Result:
    """(3) The embedding size, with and without user information."""
    figure, axes = plt.subplots(figsize=(6, 4))
    sizes = study.swept("dim")
    cells, by_size = [], []
    for number, model in enumerate(("gru", "user_gru")):
        runs = {size: study.run(model, dim=size) for size in sizes}
        cells += [(f"{model}, {size} dimensions", cell) for size, cell in runs.items()]
        by_size += [
            (f"{model}, {x} - 64 dimensions", runs[x], runs.get(64)) for x in sizes if x != 64
        ]
        points = {x * 1.03**number: estimate(cell) for x, cell in runs.items() if cell}
        draw(axes, points, model, number)
    by_user = [
        (
            f"user_gru - gru, {size} dimensions",
            study.run("user_gru", dim=size),
            study.run("gru", dim=size),
        )
        for size in sizes
    ]
    axes.set_xscale("log", base=2)
    axes.set(xlabel="embedding size", ylabel="MRR@20", xticks=sizes, xticklabels=sizes)
    axes.set_ylim(0)
    explain(figure)
    return Result(figure, cells, [by_size, by_user])


def sequence_length(study: Study) -> Result:
    """(4) The length of windows, by the popularity of the next item."""
    shown = {None: "all", **{name: name.partition("=")[2] for name in reversed(POPULARITY)}}
    figure, panels = plt.subplots(
        len(shown), len(PAIRS), figsize=(8, 9), sharex=True, sharey="row", squeeze=False
    )
    lengths = study.swept("length")
    cells, by_length, by_user = [], [], []
    for number, model in enumerate(MODELS):
        runs = {length: study.run(model, length=length) for length in lengths}
        cells += [(f"{model}, length {length}", cell) for length, cell in runs.items()]
        by_length += [
            (f"{model}, length {x} - 20", runs[x], runs.get(20)) for x in lengths if x != 20
        ]
        pair, user = divmod(number, 2)
        for axes, segment in zip(panels[:, pair], shown, strict=True):
            points = {x * 1.06**user: estimate(c, segment=segment) for x, c in runs.items() if c}
            draw(axes, points, ("without the user", "with the user")[user], user)
    for plain, user_model in PAIRS:
        for x in lengths:
            both = (study.run(user_model, length=x), study.run(plain, length=x))
            by_user.append((f"{user_model} - {plain}, length {x}", *both))
    for axes, (plain, _) in zip(panels[0], PAIRS, strict=True):
        axes.set_title(plain)
    for axes, name in zip(panels[:, 0], shown.values(), strict=True):
        axes.set_ylabel(f"MRR@20,\n{name} {'items' if name == 'all' else 'popularity'}")
        axes.set_ylim(0)
    for axes in panels[-1]:
        axes.set_xscale("log")
        axes.set_xticks(lengths, lengths)
        axes.minorticks_off()
    panels[-1, 1].set_xlabel("items per window, including the next item")
    explain(figure)
    return Result(figure, cells, [by_length, by_user])


def order(study: Study) -> Result:
    """(5) The same models on shuffled and shortened histories."""
    figure, axes = plt.subplots(figsize=(8, 4))
    cells, differences = [], []
    for number, model in enumerate(MODELS):
        whole = study.order(model, "whole")
        read_as = {name: study.order(model, name) for name in ORDERS}
        cells += [(f"{model}, {name}", cell) for name, cell in read_as.items()]
        differences += [
            (f"{model}, {n} - whole", cell, whole) for n, cell in read_as.items() if n != "whole"
        ]
        points = {
            x + 0.1 * number - 0.25: estimate(cell, whole, ratio=True)
            for x, cell in enumerate(read_as.values())
            if x and cell and whole
        }
        draw(axes, points, model, number, linestyle="")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(1, len(ORDERS)), list(ORDERS.values())[1:])
    axes.set(xlabel="items that are read, of 19", ylabel="MRR@20, relative to all", ylim=(0, None))
    explain(figure)
    return Result(figure, cells, [differences])


def draw(
    axes: Axes,
    points: dict[Any, Estimate],
    label: str,
    number: int = 0,
    linestyle: str | None = None,
) -> None:
    """Draw estimates with their intervals; models that know the user have dashed lines."""
    values = np.array([[e.value, e.value - e.low, e.high - e.value] for e in points.values()])
    if len(values):
        axes.errorbar(
            list(points),
            values[:, 0],
            values[:, 1:].T,
            label=label,
            color=COLOURS[number],
            marker="os^Dv*"[number],
            linestyle=("-", "--")[number % 2] if linestyle is None else linestyle,
            capsize=2,
            markersize=4,
        )


def explain(figure: Figure) -> None:
    """Put a legend below a figure if something was drawn."""
    found = max((axes.get_legend_handles_labels() for axes in figure.axes), key=lambda f: len(f[1]))
    if found[1]:
        figure.legend(*found, loc="outside lower center", ncols=3, handlelength=3)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG with 256 colours, which takes a third of the space."""
    content = io.BytesIO()
    figure.savefig(content, dpi=110)
    Image.open(content).convert("RGB").quantize(256).save(path, optimize=True)


EXPERIMENTS = (time_folds, shrinking_history, embedding_size, sequence_length, order)


def main() -> None:
    """Write tables and figures of the experiments in a folder; print one of them, or all."""
    if len(sys.argv) < 2 or not Path(sys.argv[1]).is_dir():
        sys.exit(
            "name a folder of runs: python docs/long_short_term/experiments.py FOLDER [all|1..5]"
        )
    folder, asked = Path(sys.argv[1]), (*sys.argv[2:], "all")[0]
    plt.rcParams.update(STYLE)
    try:
        study = Study(folder)
    except MatineeError as error:
        sys.exit(str(error))
    if not study.cells:
        sys.exit(f"{folder} holds no finished runs of launchers/06_long_short_term.sh.")
    text, rows = [], []
    for number, experiment in enumerate(EXPERIMENTS, start=1):
        result = experiment(study)
        if result.text:
            name = f"{number}_{experiment.__name__}"
            save(result.figure, folder / f"{name}.png")
            text.append(f"## {experiment.__doc__}\n\n{result.text}\n\n![{name}]({name}.png)\n")
            rows += result.rows(experiment.__name__)
            if asked in ("all", str(number)):
                print(f"{experiment.__doc__}\n\n{result.text}\n")
    (folder / "tables.md").write_text("\n".join(text))
    pd.DataFrame(rows).to_csv(folder / "estimates.csv", index=False, float_format="%.6f")
    print(f"All tables and figures: {folder}/tables.md")


if __name__ == "__main__":
    main()
