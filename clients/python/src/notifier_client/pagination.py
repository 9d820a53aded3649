"""Lists: every record of all pages, fetched as they are needed."""

from collections.abc import Callable, Iterator
from typing import Generic, TypedDict, TypeVar

Item = TypeVar("Item")


class Page(TypedDict, Generic[Item]):
    """One page of a list, and where the next one begins."""

    items: list[Item]
    next_cursor: str | None


class Listing(Generic[Item]):
    """The records of a list, newest first. Nothing is fetched before it is iterated over, and each time it begins anew.

    A record that is added meanwhile stands before those that were read, and shifts none of them.
    """

    def __init__(self, fetch: Callable[[str | None], Page[Item]], cursor: str | None = None) -> None:
        """`fetch` returns the page at a cursor; `cursor`: where to begin."""
        self._fetch = fetch
        self._cursor = cursor

    def __iter__(self) -> Iterator[Item]:
        """Yield every record, a page at a time."""
        for page in self.pages():
            yield from page["items"]

    def pages(self) -> Iterator[Page[Item]]:
        """Yield the pages. To go on another day, keep a page's `next_cursor` and give it as `cursor`."""
        cursor = self._cursor
        while True:
            page = self._fetch(cursor)
            yield page
            cursor = page["next_cursor"]
            if cursor is None:
                return
