"""A spec and the lock beside it, looked at by every rule that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from envbuild.errors import LockError, UsageError, did_you_mean
from envbuild.lint import image, names, python, requirements, serving, source, variables
from envbuild.lint.subject import Finding, Rule, Severity, Subject
from envbuild.lock.files import read_lock
from envbuild.lock.model import Lock
from envbuild.redact import redact
from envbuild.specs.model import Spec

_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

CREDENTIAL = "EB301"
"""Only its whole code ignores it, so that no list of families switches it off unnoticed."""

RULES = tuple(
    Rule(code=code, severity=severity, title=title, check=check)
    for code, severity, title, check in (
        ("EB101", _WARNING, "pip requirement without a version", requirements.unversioned_pip),
        ("EB102", _WARNING, "conda dependency without a version", requirements.unversioned_conda),
        ("EB103", _INFO, "pip requirement without an upper bound", requirements.open_pip),
        ("EB104", _ERROR, "requirements that exclude each other", requirements.conflicts),
        ("EB105", _WARNING, "one package from conda and from pip", requirements.twice),
        ("EB106", _INFO, "conda dependency without an upper bound", requirements.open_conda),
        ("EB110", _WARNING, "Python not stated", python.unstated),
        ("EB111", _WARNING, "Python past its end of life", python.dead),
        ("EB112", _INFO, "Python near its end of life", python.dying),
        ("EB113", _ERROR, "versions of Python that exclude each other", python.disagreement),
        ("EB201", _WARNING, "base image without a tag", image.untagged),
        ("EB202", _WARNING, "base image without a digest", image.unpinned),
        ("EB203", _WARNING, "base image with the tag latest", image.latest),
        ("EB204", _WARNING, "Dockerfile that starts from an image without a digest", image.dockerfile),
        ("EB205", _WARNING, "Dockerfile that copies what its context hasn't", image.absent),
        (CREDENTIAL, _ERROR, "credential", variables.credentials),
        ("EB302", _WARNING, "EXAMPLE_ENV_VAR", variables.example),
        ("EB303", _WARNING, "variable that changes how programs are found", variables.overrides),
        ("EB401", _WARNING, "conda dependencies without channels", requirements.missing),
        ("EB402", _INFO, "channel under Anaconda's terms", requirements.licence),
        ("EB403", _INFO, "pip list without pip", requirements.pip_without_conda_pip),
        ("EB404", _WARNING, "names that several indexes may offer", requirements.confusable),
        ("EB501", _WARNING, "name that says what isn't inside", names.dishonest),
        ("EB601", _WARNING, "serving without a server", serving.no_server),
        ("EB602", _INFO, "routes on different ports", serving.ports_apart),
        ("EB603", _WARNING, "privileged port without root", serving.privileged_port),
        ("EB701", _WARNING, "root user", serving.root),
        ("EB702", _WARNING, "as_of in the future", serving.future),
        ("EB801", _WARNING, "line that was not carried over", source.left_out),
        ("EB802", _WARNING, "lock that can't be read", source.unreadable_lock),
        ("EB803", _INFO, "line that is no part of an environment", source.unrelated),
    )
)


def lint(
    spec: Spec,
    *,
    today: date,
    lock: Lock | None = None,
    lock_problem: str | None = None,
    offered: Mapping[str, tuple[str, ...]] | None = None,
    rules: Sequence[Rule] = RULES,
) -> tuple[Finding, ...]:
    """What ``rules`` find in ``spec``, by file, line and code; never raises for what a spec says.

    ``lock`` is what stands beside it: what it pins isn't unpinned. ``lock_problem`` is why there is none
    though it is there. ``offered`` are the names that several indexes have, with these, where they were
    asked. Files are relative to the spec's directory.
    """
    subject = Subject(spec, lock=lock, lock_problem=lock_problem, offered=offered, today=today)
    findings = {
        Finding(
            code=rule.code,
            severity=rule.severity,
            # Addresses of a spec that a program made were never looked at.
            message=_redacted(doubt.message),
            where=doubt.where,
            hint=doubt.hint,
        ): None
        for rule in rules
        for doubt in rule.check(subject)
    }
    return tuple(
        sorted(findings, key=lambda finding: (finding.where.file, finding.where.line or 0, finding.code))
    )


def _redacted(text: str) -> str:
    return redact(text) if "//" in text or "?" in text else text


def lint_with_lock(
    spec: Spec,
    directory: Path,
    *,
    today: date,
    offered: Mapping[str, tuple[str, ...]] | None = None,
    rules: Sequence[Rule] = RULES,
) -> tuple[Finding, ...]:
    """As :func:`lint`, with the lock in ``directory`` where there is one."""
    try:
        lock, problem = read_lock(directory), None
    except LockError as error:
        lock, problem = None, error.message
    return lint(spec, today=today, lock=lock, lock_problem=problem, offered=offered, rules=rules)


def chosen_rules(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> tuple[Rule, ...]:
    """The rules whose code begins with one of ``select`` (none: all) and with none of ``ignore``.

    The rule about credentials stays unless its whole code is ignored. Raises ``UsageError`` for what is the
    beginning of no code.
    """
    codes = [rule.code for rule in RULES]
    for given in (*select, *ignore):
        if not given or not any(code.startswith(given) for code in codes):
            raise UsageError(
                f"{given!r} is no code of a rule{did_you_mean(given, codes)}",
                hint="a code as EB101, or the beginning of several as EB1; docs/lint.md lists all",
            )
    ignored = tuple(code for code in ignore if code == CREDENTIAL or not CREDENTIAL.startswith(code))
    families = tuple(code for code in ignore if code not in ignored)
    return tuple(
        rule
        for rule in RULES
        if (not select or rule.code.startswith(tuple(select)))
        and not rule.code.startswith(ignored)
        and (rule.code == CREDENTIAL or not rule.code.startswith(families))
    )
