"""What the documentation names is there: files, sections, targets of the Makefile; all is reached."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from envbuild.cli.main import cli
from envbuild.specs.load import load_spec
from envbuild.specs.model import DebianBaseSpec
from tests.documents import ROOT, TEXTS, commands

NAMES = [str(path.relative_to(ROOT)) for path in TEXTS]
CODE = [
    path
    for directory in ("envbuild", "tests", "benchmarks", "scripts", "templates")
    for path in sorted((ROOT / directory).rglob("*"))
    if path.suffix in (".py", ".sh", ".j2") and path != Path(__file__)
]


def _links(text: Path) -> list[Path]:
    """The files that ``text`` links to, where they should be."""
    targets = re.findall(r"\]\(([^)#\s]+)", text.read_text(encoding="utf-8"))
    return [(text.parent / target).resolve() for target in targets if "://" not in target]


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files(name: str) -> None:
    assert [str(path) for path in _links(ROOT / name) if not path.exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_modules_that_are_named_are_there(name: str) -> None:
    # What runs as written is no path of the repository but of where it runs.
    text = re.sub(r"```console run\n.*?```", "", (ROOT / name).read_text(encoding="utf-8"), flags=re.DOTALL)
    paths = re.findall(r"(?<![\w./<-])((?:[a-z_0-9]+/)+[a-z_0-9]+\.(?:py|sh))\b", text)
    assert [
        path for path in paths if not any((ROOT / above / path).is_file() for above in ("", "envbuild"))
    ] == []


@pytest.mark.parametrize("name", NAMES)
def test_targets_of_the_makefile_that_are_named_are_there(name: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"(?:`|\$ |^ {4})make ([a-z-]+(?: [a-z-]+)*)", text, re.MULTILINE)
    assert set(" ".join(named).split()) <= set(targets)


def test_every_text_is_reached_from_the_readme() -> None:
    reached, ahead = set[Path](), [ROOT / "README.md"]
    while ahead:
        text = ahead.pop()
        if text not in reached and text.suffix == ".md" and text.is_file():
            reached.add(text)
            ahead += _links(text)
    assert set(TEXTS) <= reached


def test_sections_that_the_code_cites_are_there() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}: {cited} §{section}"
        for path in CODE
        for cited, section in re.findall(
            r"(docs/[\w/-]+\.md)(?:`*\s+§(\d+))?", path.read_text(encoding="utf-8", errors="replace")
        )
        if not (ROOT / cited).is_file()
        or (section and f"\n## §{section} " not in (ROOT / cited).read_text(encoding="utf-8"))
    ]
    assert wrong == []


def test_spec_of_the_design_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "design.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "envbuild.yaml").write_text(example, encoding="utf-8")
    spec = load_spec(tmp_path)
    assert (spec.name, spec.version, spec.python) == ("train", "3", "3.13")
    assert spec.base == DebianBaseSpec(suite="trixie", packages=("libgomp1",))
    assert spec.left_out == ()


def _calls(command: str) -> list[list[str]]:
    """The words of each ``envbuild`` of a shell command, without its own name and what it starts."""
    calls: list[list[str]] = []
    inside = False
    for word in shlex.shlex(command, posix=True, punctuation_chars=True):
        if word == "envbuild":
            calls.append([])
            inside = True
        elif word == "--" or not set(word) - set("();<>|&"):
            inside = False
        elif inside:
            calls[-1].append(word)
    return calls


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_options_are_there(name: str) -> None:
    for typed in commands(ROOT / name):
        for call in _calls(typed.command):
            command: click.Command = cli
            context = click.Context(cli, info_name="envbuild")
            while call and isinstance(command, click.Group) and not call[0].startswith("-"):
                following = command.get_command(context, call.pop(0))
                assert following is not None, typed.command
                command, context = following, click.Context(following, parent=context)
            options = {option for parameter in command.params for option in parameter.opts}
            asked = {word.partition("=")[0] for word in call if word.startswith("--")}
            assert asked <= options | {"--help"}, typed.command
