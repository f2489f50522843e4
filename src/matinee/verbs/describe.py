"""``matinee describe``: facts about a dataset, as text and as one HTML page with figures."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from matinee.config.parts import make_part
from matinee.data.columns.time_cells import DIGITS
from matinee.data.description import Description, describe
from matinee.data.interactions import Interactions
from matinee.display import plotting
from matinee.display.markdown import as_markdown
from matinee.errors import MatineeError
from matinee.files import write_whole

TEMPLATES = Path(__file__).resolve().parent / "templates"
STYLE = Path(__file__).resolve().parent / "report" / "templates" / "report.css"


def describe_dataset(config: Any, name: str) -> str:
    """Describe the dataset of a composed ``describe`` config; write the page that it asks for.

    Args:
        config: The config.
        name: Name of the dataset, for the heading.

    Returns:
        The description in Markdown.

    Raises:
        MatineeError: If the dataset or its split cannot be made, or the page cannot be written.
    """
    page = config.html
    if page is not None and not (isinstance(page, str) and page.endswith(".html")):
        raise MatineeError(f"html is {page!r}; name a file that ends in .html.")
    interactions = make_part(config, "dataset")
    split = make_part(config, "split")
    description = describe(interactions, None if split is None else split(interactions))
    if page is not None:
        text = as_page(name, interactions, description)
        path = Path(page)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MatineeError(
                f"html={page} cannot be written ({error}); name another file."
            ) from error
        write_whole(path, lambda file: file.write(text.encode()))
        print(f"written: {path}", file=sys.stderr)
    return as_text(name, description)


def as_text(name: str, description: Description) -> str:
    """Write a description in Markdown."""
    facts = pd.DataFrame(list(description.facts.items()), columns=["fact", "value"])
    sections = [f"# {name}", as_markdown(facts)]
    for title, table in _tables(description):
        sections += [f"## {title}", as_markdown(table)]
    suspicions = [f"- {suspicion}" for suspicion in description.suspicions]
    sections += ["## What looks wrong", "\n".join(suspicions) or "Nothing."]
    return "\n\n".join(sections)


def as_page(name: str, interactions: Interactions, description: Description) -> str:
    """Write a description as HTML that contains everything and asks for nothing.

    Args:
        name: Name of the dataset, for the heading.
        interactions: The data, for the figures.
        description: Their description.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("describe.html.j2").render(
        name=name,
        description=description,
        tables=list(_tables(description)),
        charts=[
            (title, Markup(plotting.as_svg(figure, f"f{number}")))
            for number, (title, figure) in enumerate(_figures(interactions))
        ],
        numeric=lambda table: list(table.select_dtypes("number").columns),
        style=Markup(STYLE.read_text(encoding="utf-8")),
    )


def _tables(description: Description) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "Rows of users and items", description.counts
    yield "The most frequent items", description.tail
    if description.ratings is not None:
        yield "Ratings", description.ratings
    if description.parts is not None:
        yield "Parts of the split", description.parts


def _figures(log: Interactions) -> Iterator[tuple[str, Figure]]:
    for name, ids in (("user", log.user_ids), ("item", log.item_ids)):
        counts = np.sort(np.bincount(ids)[1:])[::-1]
        yield f"Rows of each {name}", plotting.long_tail(counts, f"{name}s, most frequent first")
    if log.ratings is not None:
        yield "Ratings", plotting.histogram(log.ratings, "rating")
    if log.timestamps is not None:
        years = log.timestamps / 10 ** DIGITS[log.time_unit] / (365.25 * 86_400) + 1970
        yield "Times", plotting.histogram(years, "year")
