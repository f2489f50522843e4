"""Items by raw id or by title: which one is meant, and which words are ambiguous."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from matinee.data.catalogues import with_year
from matinee.data.interactions import Interactions
from matinee.errors import MatineeError

_MOST_SHOWN = 5


class ItemNames:
    """Finds items by what people call them.

    A text is an item's raw id or its title, with or without its year and in any case; ``id:TEXT`` and
    ``title:TEXT`` are one of the two alone. Anything but a text is a raw id.

    Args:
        interactions: The data.
    """

    def __init__(self, interactions: Interactions) -> None:
        self.interactions = interactions
        self._by_title: dict[str, list[int]] = defaultdict(list)
        for item, title in enumerate(interactions.items["title"].str.casefold(), start=1):
            self._by_title[title].append(item)

    def find(self, names: Sequence[Any]) -> npt.NDArray[np.int32]:
        """Find the items that are meant.

        Args:
            names: Raw ids or titles, (n,).

        Returns:
            Item ids, (n,).

        Raises:
            MatineeError: If a name belongs to no item, or to several; it tells how to name each of them.
        """
        return np.array([self._find(name) for name in names], np.int32)

    def _find(self, name: Any) -> int:
        found = self._of_id(name)
        if isinstance(name, str):
            found |= self._of_title(name)
            if name.startswith("id:"):
                found |= self._of_id(name.removeprefix("id:"))
            if name.startswith("title:"):
                found |= self._of_title(name.removeprefix("title:"))
        if len(found) > 1:
            raise self._ambiguous(str(name), sorted(found))
        if not found:
            titles = self.interactions.items["title"]
            near = difflib.get_close_matches(str(name).casefold(), self._by_title, n=1)
            like = titles.loc[self._by_title[near[0]][0]] if near else ""
            hint = f"did you mean {like!r}?" if near else "give raw ids or titles of the data."
            raise MatineeError(f"item {name!r} is not in the data; {hint}")
        return found.pop()

    def _of_id(self, raw_id: Any) -> set[int]:
        return {int(self.interactions.encode_items([raw_id])[0])} - {0}

    def _of_title(self, name: str) -> set[int]:
        wanted = name.casefold()
        if found := self._by_title.get(wanted):
            return set(found)
        title = re.sub(r" \(\d{4}\)$", "", wanted)
        same = self._by_title.get(title, [])
        return {item for item in same if self._with_year(item).casefold() == wanted}

    def _with_year(self, item: int) -> str:
        return with_year(self.interactions.items.iloc[item - 1])

    def _ambiguous(self, name: str, found: list[int]) -> MatineeError:
        raw_ids = self.interactions.items["raw_id"]
        ways = [
            f"item {raw_ids.loc[item]} ({self._with_year(item)!r}; write id:{raw_ids.loc[item]})"
            for item in found[:_MOST_SHOWN]
        ]
        more = f" or {len(found) - _MOST_SHOWN} others" if len(found) > _MOST_SHOWN else ""
        return MatineeError(f"{name!r} may be {' or '.join(ways)}{more}; say which.")
