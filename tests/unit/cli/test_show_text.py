"""Tables of the command line: aligned by what a terminal shows, safe to show."""

from __future__ import annotations

from envbuild.cli.show.text import table


def test_columns_are_aligned_by_what_a_terminal_shows() -> None:
    rows = [("name", "size"), ("環境", "1 B"), ("cafe\u0301", "12 B"), ("x", "")]
    assert table(rows, right=[1], indent="  ") == [
        "  name  size",
        "  環境   1 B",
        "  cafe\u0301  12 B",
        "  x",
    ]


def test_cells_drive_no_terminal() -> None:
    assert table([("a\x1b[2J", "b")]) == ["a\\x1b[2J  b"]
    assert table([]) == []
