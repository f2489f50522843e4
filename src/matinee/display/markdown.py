"""Markdown tables for terminals, files and TensorBoard, with any text in their cells."""

import re

import pandas as pd

from matinee.texts import visible

DECIMALS = 4  # of a metric in tables


def print_table(table: pd.DataFrame) -> None:
    """Print a table in Markdown, see :func:`as_markdown`."""
    print(as_markdown(table))


def as_markdown(table: pd.DataFrame) -> str:
    """Format a table in Markdown with aligned columns; columns of numbers are right-aligned."""
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


def decimal(value: float | None) -> str:
    """Format a metric as in all tables; None becomes an empty text."""
    return "" if value is None else f"{value:.{DECIMALS}f}"


def literal(text: str) -> str:
    """Escape a text so that Markdown shows it as it is, without HTML, links or images."""
    text = re.sub(r"[\\`*]|(?<!\w)_|_(?!\w)|^(?=[-+] |\d+[.)] )|^[#>[]", r"\\\g<0>", text)
    return _plain(re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;"))


def _cell(value: object) -> str:
    """Format a value as a cell; a bar would end the cell and is escaped."""
    return _plain(str(value)).replace("|", "\\|")


def _plain(text: str) -> str:
    """Escape HTML, links, images and control characters, and nothing that a terminal shows well."""
    text = re.sub(
        r"<(?=[A-Za-z/!?])", "&lt;", text
    )  # some Markdown does not know a backslash there
    return visible(re.sub(r"(?<=\])(?=[(\[])", r"\\", text))
