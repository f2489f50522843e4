"""Texts of others, such as titles and names of runs, shown so that no program takes them for commands."""

import unicodedata

_CONTROLS = ("Cc", "Zl", "Zp")  # control characters and line ends, by Unicode category
_DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # they reorder what is shown
_FORMULA = ("=", "+", "-", "@", "\t")


def visible(text: str) -> str:
    r"""Escape control characters as Python does, so that a terminal shows them on one line.

    >>> print(visible("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in _CONTROLS or c in _DIRECTIONS
        else c
        for c in text
    )


def table_cell(text: str) -> str:
    """Put an apostrophe before a text that a spreadsheet would take for a formula; a number stays.

    A carriage return becomes visible, because Python's CSV writer does not quote it.

    >>> table_cell("=1+1"), table_cell("-0.5"), table_cell("Alien")
    ("'=1+1", '-0.5', 'Alien')
    """
    text = text.replace("\r", "\\r")
    if not text.startswith(_FORMULA):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
