"""Griffe extension: docstrings of the package as Markdown.

Docstrings use a few Sphinx roles and doctests. This translates them for the site: formulas to math
fences, roles to cross-references, doctests to highlighted blocks. It also reports public functions,
classes and modules without a docstring, which fails a strict build.
"""

import re
from textwrap import dedent, indent

import griffe

FORMULA = re.compile(r"^( *)\.\. math::[ ]*(.*\n?(?:\n?\1 +\S.*\n?)*)", re.MULTILINE)
DOCTEST = re.compile(r"^( *)>>> .*\n?(?:\1\S.*\n?)*", re.MULTILINE)
LITERAL = re.compile(r"(?<=\w)::$", re.MULTILINE)
ROLE = re.compile(r":(\w+):`([^`]+)`")


class Docstrings(griffe.Extension):
    """Translates every docstring of a package once all of it is loaded."""

    def on_package(
        self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: object
    ) -> None:
        """Translate the docstrings of a package."""
        self._translate(pkg)

    def _translate(self, obj: griffe.Object) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value, obj)
        elif not obj.is_attribute:
            griffe.logger.warning(f"{obj.filepath}:{obj.lineno}: {obj.path} has no docstring")
        for name, member in obj.members.items():
            if not member.is_alias and not name.startswith("_"):
                self._translate(member)


def as_markdown(text: str, owner: griffe.Object) -> str:
    """Translate formulas, doctests and roles of a docstring."""
    text = FORMULA.sub(lambda match: _fence("math", _formula(match[2]), match[1]), text)
    text = LITERAL.sub(":", text)
    text = DOCTEST.sub(lambda match: _fence("pycon", dedent(match[0]), match[1]), text)
    return ROLE.sub(lambda match: _role(match[1], match[2], owner), text)


def _formula(text: str) -> str:
    text = "\n".join(line.strip() for line in text.strip().splitlines())
    return rf"\begin{{aligned}}{text}\end{{aligned}}" if "&" in text else text


def _fence(language: str, text: str, margin: str) -> str:
    return indent(f"```{language}\n{text.strip()}\n```\n", margin)


def _role(role: str, target: str, owner: griffe.Object) -> str:
    if role == "math":
        return f"`#!math {' '.join(target.split())}`"
    name = target.removeprefix("~")
    shown = name.rpartition(".")[2] if target.startswith("~") else name
    try:
        path = owner.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'
