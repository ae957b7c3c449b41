"""Templates: what a value may do to a Dockerfile, which is nothing."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envbuild.errors import BuildError, UsageError
from envbuild.render.templates import Templates, docker_word, exec_form, shell_word, unwritable

HOSTILE = [
    "x\nRUN id",
    "x\rRUN id",
    'x" && RUN id',
    "$(id)",
    "`id`",
    "${PATH}",
    "\\",
    'a\\"b',
    "a b",
    "#",
    "'; id; '",
    "<<EOF",
]


def own(tmp_path: Path, text: str, name: str = "own.j2") -> Templates:
    (tmp_path / name).write_text(text)
    return Templates(tmp_path)


def unquoted(word: str) -> str:
    """A double-quoted word as the Dockerfile's parser reads it: a backslash takes the meaning of ``"``, ``$``
    and itself; any other ``$`` would be expanded."""
    assert word[0] == word[-1] == '"'
    found, rest = "", word[1:-1]
    while rest:
        if rest[0] == "\\" and rest[1] in '"$\\':
            found, rest = found + rest[1], rest[2:]
        else:
            assert rest[0] not in '"$\n'
            found, rest = found + rest[0], rest[1:]
    return found


@given(st.text())
def test_a_quoted_word_is_read_as_it_was(text: str) -> None:
    if unwritable(text):
        with pytest.raises(BuildError, match="can't hold the character"):
            docker_word(text)
    else:
        assert unquoted(docker_word(text)) == text
        assert shlex.split(shell_word(text)) == [text]


@pytest.mark.parametrize("value", [each for each in HOSTILE if each != "#"])
def test_a_value_that_a_template_forgets_to_quote_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(BuildError, match="without quoting it"):
        own(tmp_path, "ENV A={{ value }}\n").render("own.j2", {"value": value})


def test_a_comment_can_not_be_left(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="without quoting it"):
        own(tmp_path, "# {{ name }}\n").render("own.j2", {"name": "x\nRUN id"})


@pytest.mark.parametrize("filter_name", ["docker", "shell"])
def test_no_filter_lets_a_line_break_through(tmp_path: Path, filter_name: str) -> None:
    with pytest.raises(BuildError, match=r"can't hold the character U\+000A"):
        own(tmp_path, "{{ value|" + filter_name + " }}").render("own.j2", {"value": "x\nRUN id"})


def test_an_exec_form_is_json() -> None:
    assert exec_form(["sh", "-c", 'x"\n']) == '["sh", "-c", "x\\"\\n"]'


@pytest.mark.parametrize("name", ["safe", "e", "escape", "forceescape", "tojson", "xmlattr", "urlize"])
def test_no_filter_of_jinja_calls_a_value_safe(tmp_path: Path, name: str) -> None:
    with pytest.raises(BuildError, match=rf"own\.j2.*'{name}'"):
        own(tmp_path, "{{ value|" + name + " }}").render("own.j2", {"value": "x\nRUN id"})


def test_a_template_reaches_no_python(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="unsafe"):
        own(tmp_path, "{{ ''.__class__.__mro__ }}").render("own.j2", {})


def test_an_undefined_value_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="'missing' is undefined"):
        own(tmp_path, "{{ missing }}").render("own.j2", {})


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"own\.j2:2"):
        own(tmp_path, "\n{% if %}").render("own.j2", {})


def test_an_own_template_goes_before_ours_and_can_extend_it(tmp_path: Path) -> None:
    templates = own(
        tmp_path,
        '{% extends "envbuild/macros.j2" %}',
        "macros.j2",
    )
    assert templates.digest("macros.j2") != Templates().digest("macros.j2")


def test_the_digest_covers_what_a_template_names(tmp_path: Path) -> None:
    name = "system-managed-spark.Dockerfile.j2"
    before = Templates().digest(name)
    macros = (Path(__file__).parents[3] / "templates" / "macros.j2").read_text()
    assert own(tmp_path, macros + "\n{# changed #}\n", "macros.j2").digest(name) != before
    assert Templates().digest(name) == before


def test_a_template_named_by_an_expression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="by an expression"):
        own(tmp_path, "{% include which %}").digest("own.j2")


def test_a_missing_template_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=f"no template nowhere.j2 in {tmp_path}"):
        Templates(tmp_path).render("nowhere.j2", {})


def test_a_path_can_not_leave_the_directory(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no template"):
        Templates(tmp_path).render("../../etc/passwd", {})


def test_a_template_directory_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        Templates(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{% for each in range(10 ** 9) %}{% endfor %}", "OverflowError: "),
        ("{{ 1 + 'a' }}", "TypeError: "),
        ("{% include 'system-managed-python.Dockerfile.j2' %}", "RecursionError: "),
    ],
)
def test_what_a_template_computes_wrongly_is_its_own_fault(text: str, message: str, tmp_path: Path) -> None:
    name = "system-managed-python.Dockerfile.j2"
    (tmp_path / name).write_text(text)
    with pytest.raises(BuildError) as caught:
        Templates(tmp_path).render(name, {})
    assert str(caught.value).startswith(f"template {name}: {message}")
