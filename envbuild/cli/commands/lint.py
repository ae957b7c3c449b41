"""``envbuild lint``: what is doubtful in specs, before anything is resolved."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envbuild.app import lock, specs
from envbuild.cli.options import (
    display_options,
    json_option,
    lock_dir_option,
    store_options,
    workspace_option,
)
from envbuild.cli.requests import with_call
from envbuild.cli.show.report import json_text
from envbuild.cli.show.text import count_text, paint, printable
from envbuild.errors import SpecError
from envbuild.lazy import lazy
from envbuild.lint.check import chosen_rules, lint_with_lock

if TYPE_CHECKING:
    from envbuild.app import confusion
    from envbuild.cli.call import Call
    from envbuild.lint.subject import Finding, Rule
else:
    confusion = lazy("envbuild.app.confusion")

_COLORS = {"error": "red", "warning": "yellow", "info": "cyan"}


@click.command(short_help="Look for what is doubtful in specs.")
@click.argument("specs", metavar="[SPEC]...", nargs=-1)
@click.option("-f", "--file", "spec_files", metavar="SPEC", multiple=True, help="A spec; may be repeated.")
@click.option("--select", metavar="CODES", multiple=True, help="Only these rules, as EB101,EB3.")
@click.option("--ignore", metavar="CODES", multiple=True, help="All rules but these.")
@click.option("--online", is_flag=True, help="Ask the indexes which names several of them offer (EB404).")
@click.option("--strict", is_flag=True, help="Exit 1 for warnings too.")
@lock_dir_option
@store_options
@workspace_option
@json_option
@display_options
@with_call
def command(
    call: Call,
    specs: tuple[str, ...],
    spec_files: tuple[str, ...],
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    online: bool,
    strict: bool,
    as_json: bool,
) -> int:
    """Look for what is doubtful in each SPEC: a line for each finding, with its place and its code.

    Asks no network but with --online, and writes nothing but the store. A lock beside a spec counts: what
    it pins isn't unpinned. Exits 1 where there is an error, with --strict also for a warning.
    """
    rules = chosen_rules(_codes(select), _codes(ignore))
    findings: list[tuple[str, Finding]] = []
    broken: dict[str, SpecError] = {}
    paths = (*specs, *spec_files) or (".",)
    for path in paths:
        try:
            findings += _look(call, path, rules, online=online)
        except SpecError as error:
            broken[path] = error
    _show(call, findings, specs=len(paths), refused=tuple(broken), as_json=as_json)
    if broken:
        first, *_ = broken.values()
        problems = [problem for error in broken.values() for problem in error.problems]
        raise SpecError(first.message, hint=first.hint, problems=problems)
    grave = {"error", "warning"} if strict else {"error"}
    return int(any(finding.severity.value in grave for _, finding in findings))


def _codes(given: Sequence[str]) -> list[str]:
    return [code.strip().upper() for text in given for code in text.split(",")]


def _look(call: Call, path: str, rules: Sequence[Rule], *, online: bool) -> list[tuple[str, Finding]]:
    """The findings of one spec, each with its file as seen from here."""
    with call.session(path) as session:
        spec = specs.find_spec(session, path)
        directory = lock.lock_directory(session, spec)
        offered = confusion.offered_names(session, spec, directory) if online else None
    findings = lint_with_lock(spec, directory, today=call.today(), offered=offered, rules=rules)
    return [(_seen(call.cwd, spec.directory / finding.where.file), finding) for finding in findings]


def _seen(cwd: Path, file: Path) -> str:
    """``file`` relative to here where it is below, else in full."""
    whole = Path(os.path.normpath(file))
    return whole.relative_to(cwd).as_posix() if whole.is_relative_to(cwd) else whole.as_posix()


def _show(
    call: Call,
    findings: Sequence[tuple[str, Finding]],
    *,
    specs: int,
    refused: Sequence[str],
    as_json: bool,
) -> None:
    counts = Counter(finding.severity.value for _, finding in findings)
    if as_json:
        call.out(
            json_text(
                {
                    "findings": [_json(file, finding) for file, finding in findings],
                    "errors": counts["error"],
                    "warnings": counts["warning"],
                    "infos": counts["info"],
                    "refused": list(refused),
                }
            )
        )
        return
    color = call.color and call.stdout.isatty()
    for file, finding in findings:
        call.out(_line(file, finding, color=color))
    sound = specs - len(refused)
    if findings:
        parts = [count_text(counts[kind], kind) for kind in ("error", "warning", "info") if counts[kind]]
        call.say(f"{', '.join(parts)} in {count_text(sound, 'spec')}")
    elif sound:
        call.say(f"nothing doubtful in {count_text(sound, 'spec')}")
    if refused:
        call.say(f"{count_text(len(refused), 'spec')} can't be read")


def _line(file: str, finding: Finding, *, color: bool) -> str:
    where = file if finding.where.line is None else f"{file}:{finding.where.line}"
    hint = f"; {finding.hint}" if finding.hint else ""
    kind = finding.severity.value
    label = paint(f"{finding.code} {kind}:", _COLORS[kind], "bold", color=color)
    return f"{printable(where)}: {label} {printable(finding.message + hint)}"


def _json(file: str, finding: Finding) -> dict[str, object]:
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "message": finding.message,
        "hint": finding.hint,
        "file": file,
        "line": finding.where.line,
        "key": finding.where.key or None,
    }
