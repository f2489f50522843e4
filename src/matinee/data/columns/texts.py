"""What is common to all columns: texts of any Arrow type, blanks, missing values and numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

NULL = "null"
MISSING = (
    *("", "NULL", NULL, "\\N", "NA", "N/A", "n/a", "#N/A", "<NA>"),
    *("NaN", "nan", "NaT", "None", "none"),
)
TEXT = pa.large_string()
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
MISSING_PROBLEM = "the value is missing; fill it or remove the row"

_MISSING = pa.array(MISSING, TEXT)


def is_text(kind: pa.DataType) -> bool:
    """Say whether a type holds texts: strings of any layout, or bytes of UTF-8."""
    tests = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    return any(getattr(pa.types, f"is_{test}")(kind) for test in tests)


def plain(column: pa.Array) -> pa.Array:
    """Undo run-end encoding, and extension types whose values are texts or UUIDs; others stay."""
    if isinstance(column, pa.ExtensionArray):
        if column.type.extension_name == "arrow.uuid":
            return pa.array(
                [None if uuid is None else str(uuid) for uuid in column.to_pylist()], TEXT
            )
        if is_text(column.type.storage_type):
            return column.storage
    if pa.types.is_run_end_encoded(column.type):
        return pc.run_end_decode(column)
    return column


def as_text(column: pa.Array) -> pa.Array:
    """Return texts of any layout as large strings.

    Raises:
        pyarrow.ArrowInvalid: If bytes are not UTF-8.
    """
    return column if column.type == TEXT else column.cast(TEXT)


def trimmed(texts: pa.Array) -> pa.Array:
    """Strip blanks (whitespace of Unicode) from both ends of texts."""
    return pc.utf8_trim_whitespace(texts)


def is_missing(trimmed_texts: pa.Array) -> NDArray[np.bool_]:
    """Mark nulls, empty texts and the words of ``MISSING`` among texts without blanks around them."""
    found = pc.or_kleene(pc.is_null(trimmed_texts), pc.is_in(trimmed_texts, value_set=_MISSING))
    return to_mask(found)


def matches(texts: pa.Array, pattern: str) -> NDArray[np.bool_]:
    """Mark the texts that a regular expression matches; null is none."""
    return to_mask(pc.fill_null(pc.match_substring_regex(texts, pattern), False))


def to_mask(column: pa.Array) -> NDArray[np.bool_]:
    """Return a boolean column without nulls as a NumPy array."""
    mask: NDArray[np.bool_] = column.to_numpy(zero_copy_only=False)
    return mask.astype(np.bool_, copy=False)


def where(mask: NDArray[np.bool_], texts: pa.Array) -> pa.Array:
    """Keep the marked texts and set the others to null."""
    return pc.if_else(pa.array(mask), texts, pa.scalar(None, texts.type))


def about(value: Callable[[int], object], problem: str) -> Callable[[int], str]:
    """Return the function from a row to a problem whose braces stand for the row's value."""
    return lambda row: problem.format(value(row))


def cell(column: pa.Array) -> Any:
    """Return the function from a row to what it holds, for messages."""
    return lambda row: column[row].as_py()
