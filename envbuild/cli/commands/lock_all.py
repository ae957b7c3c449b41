"""``envbuild lock --all``: every lock below a directory, checked or brought up to date."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envbuild.app import lock, specs
from envbuild.app.curated import LockUpgrade, UnlockedSpecs, locked_specs, moved_bytes, unlocked_specs
from envbuild.app.requests import LockRequest
from envbuild.cli.call import Call
from envbuild.cli.show.report import change_json, change_lines, change_summary, json_text
from envbuild.cli.show.text import count_text, printable, size_text
from envbuild.errors import EnvbuildError, ResolveError, StaleLockError, UsageError

_SHOWN = 3
"""How many files that may be no specs are named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Checked:
    """What became of one spec."""

    spec: Path
    name: str
    state: str
    """answers, stale, missing (it has no lock) or unreadable."""
    error: EnvbuildError | None = None


def lock_all(call: Call, directory: str, request: LockRequest, *, check: bool, as_json: bool) -> int:
    """Locks every spec below ``directory`` that has a lock, or checks them and names those that have none;
    one that fails doesn't stop the others.

    A dry run tells what would change and how many bytes every machine would have to download. Raises the
    last kind of error there was, when all were tried."""
    root = call.cwd / directory
    specs = locked_specs(root) if root.is_dir() else ()
    others = unlocked_specs(root, specs) if root.is_dir() else UnlockedSpecs(specs=(), doubtful=())
    if check and (specs or others.specs):
        return _check(call, (*specs, *others.specs), others.doubtful, as_json=as_json)
    if not specs:
        raise UsageError(
            f"{directory}: no spec with a lock below it",
            hint=f"{_several(call, others.specs)} can be locked, one by one"
            if others.specs
            else "name the directory of your specs",
        )
    results = [_upgrade(call, spec, request) for spec in specs]
    if as_json:
        call.out(json_text({"environments": [_json(result) for result in results]}))
    else:
        _tell(call, results, dry_run=request.dry_run)
    if others.specs:
        call.say(f"passed over, without a lock: {_several(call, others.specs)}")
    failed = [result.name for result in results if result.error]
    if failed:
        raise ResolveError(
            f"{count_text(len(failed), 'environment')} could not be locked: {', '.join(failed)}"
        )
    return 0


def _check(call: Call, specs: Sequence[Path], doubtful: Sequence[Path], *, as_json: bool) -> int:
    results = [_checked(call, spec) for spec in sorted(specs)]
    if as_json:
        call.out(
            json_text(
                {
                    "environments": [_checked_json(result) for result in results],
                    "passed_over": [str(spec_result) for spec_result in doubtful],
                }
            )
        )
    if doubtful:
        call.say(f"passed over, as they may be no specs: {_several(call, doubtful)}")
    stale = [result.name for result in results if result.state == "stale"]
    missing = [result.name for result in results if result.state == "missing"]
    problems = [f"{count_text(len(stale), 'lock')} out of date: {', '.join(stale)}"] if stale else []
    if missing:
        problems.append(f"{count_text(len(missing), 'spec')} without a lock: {', '.join(missing)}")
    if problems:
        raise StaleLockError("; ".join(problems))
    failed = [result for result in results if result.error is not None]
    if failed:
        assert failed[-1].error is not None
        names = ", ".join(spec_result.name for spec_result in failed)
        raise type(failed[-1].error)(f"{count_text(len(failed), 'spec')} could not be checked: {names}")
    return 0


def _checked(call: Call, spec: Path) -> _Checked:
    name = _shown(call, spec)
    try:
        with call.session(str(spec)) as session:
            loaded = specs.find_spec(session, str(spec))
            name = loaded.name
            there = lock.present_lock(session, loaded) is not None
            try:
                lock.check_lock(session, loaded)
            except StaleLockError as error:
                call.complain(error.message)
                return _Checked(spec=spec, name=name, state="stale" if there else "missing", error=error)
    except EnvbuildError as error:
        call.complain(error.message)
        return _Checked(spec=spec, name=name, state="unreadable", error=error)
    call.say(f"the lock of {printable(name)} answers its spec")
    return _Checked(spec=spec, name=name, state="answers")


def _several(call: Call, paths: Sequence[Path]) -> str:
    shown = [_shown(call, path) for path in paths[:_SHOWN]]
    more = len(paths) - _SHOWN
    return printable(", ".join(shown)) + (f" and {more} more" if more > 0 else "")


def _shown(call: Call, path: Path) -> str:
    return Path(os.path.relpath(path, call.cwd)).as_posix()


def _upgrade(call: Call, spec: Path, request: LockRequest) -> LockUpgrade:
    try:
        with call.session(str(spec)) as session:
            loaded = specs.find_spec(session, str(spec))
            before = lock.present_lock(session, loaded)
            result = lock.lock_spec(session, loaded, request)
    except EnvbuildError as error:
        return LockUpgrade(spec=spec, name=spec.parent.name, changes=(), moved=0, error=error.message)
    return LockUpgrade(
        spec=spec, name=loaded.name, changes=result.changes, moved=moved_bytes(before, result.lock)
    )


def _tell(call: Call, results: Sequence[LockUpgrade], *, dry_run: bool) -> None:
    for result in results:
        if result.error:
            call.complain(f"{result.name}: {result.error}")
            continue
        moved = f", {size_text(result.moved)} to download" if result.changes else ""
        call.out(f"{printable(result.name)}: {change_summary(result.changes)}{moved}")
        for line in change_lines(result.changes, color=call.color and call.stdout.isatty()):
            call.out(f"  {line}")
    total = sum(result.moved for result in results)
    changed = sum(bool(result.changes) for result in results)
    what = "would change" if dry_run else "changed"
    call.say(f"{changed} of {count_text(len(results), 'lock')} {what}, {size_text(total)} to download in all")


def _json(upgrade: LockUpgrade) -> dict[str, object]:
    return {
        "name": upgrade.name,
        "spec": str(upgrade.spec),
        "changes": change_json(upgrade.changes),
        "bytes": upgrade.moved,
        "error": upgrade.error,
    }


def _checked_json(checked: _Checked) -> dict[str, object]:
    return {
        "name": checked.name,
        "spec": str(checked.spec),
        "state": checked.state,
        "error": None if checked.error is None else checked.error.message,
    }
