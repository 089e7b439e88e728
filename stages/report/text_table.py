"""text_table: the one form that tables have in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def text_table(*names: str) -> Table:
    """Return an empty table without lines, whose first columns have these names.

    They are shortened if a terminal is narrow.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for each in names:
        table.add_column(shortened(each))
    return table


def add_numbers(table: Table, *titles: str) -> None:
    """Add columns of numbers, to the right of their width and never cut."""
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)


def shortened(words: str, style: str = "") -> Text:
    """Return a name that is cut with … if a terminal is narrow; numbers are not."""
    from rich.text import Text

    return Text(words, style, no_wrap=True, overflow="ellipsis")
