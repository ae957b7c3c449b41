"""What is repeated of what engines say."""

from __future__ import annotations

import pytest

from envbuild.redact import clipped, safe_text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("  10%\r  50%\r 100%\r", " 100%"),
        ("\x1b]0;title\x07text", "text"),
        ("bell\x07 \u202eturned", "bell\\x07 \\u202eturned"),
        ("    indented", "    indented"),
        ("tab\tstays", "tab\tstays"),
        ("\r", ""),
    ],
)
def test_a_line_drives_no_terminal(given: str, shown: str) -> None:
    assert safe_text(given) == shown


def test_credentials_are_left_out() -> None:
    assert safe_text("from https://me:pw@x.test/a?token=1 with hunter2", ["hunter2"]) == (
        "from https://x.test/a with ***"
    )


@pytest.mark.parametrize(("text", "short"), [("four", "four"), ("five5", "fiv…"), ("", "")])
def test_a_text_is_cut_to_a_length(text: str, short: str) -> None:
    assert clipped(text, 4) == short
