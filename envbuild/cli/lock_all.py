"""``envbuild lock --all``: every lock below a directory, checked or brought up to date."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envbuild.api.catalogue import Upgrade, locked_specs, moved_bytes
from envbuild.cli.call import Call
from envbuild.cli.report import change_json, change_lines, change_summary, json_text
from envbuild.cli.text import count_text, printable, size_text
from envbuild.errors import EnvbuildError, ResolveError, StaleLockError, UsageError
from envbuild.request import LockRequest


def lock_all(call: Call, directory: str, request: LockRequest, *, check: bool, as_json: bool) -> int:
    """Locks or checks every spec below ``directory`` that has a lock; one that fails doesn't stop the others.

    A dry run tells what would change and how many bytes every machine would have to download. Raises the
    last kind of error there was, when all were tried."""
    root = call.cwd / directory
    specs = locked_specs(root) if root.is_dir() else ()
    if not specs:
        raise UsageError(
            f"{directory}: no spec with a lock below it", hint="name the directory of your specs"
        )
    if check:
        return _check(call, specs)
    results = [_upgrade(call, spec, request) for spec in specs]
    if as_json:
        call.out(json_text({"environments": [_json(each) for each in results]}))
    else:
        _tell(call, results, dry_run=request.dry_run)
    failed = [each.name for each in results if each.error]
    if failed:
        raise ResolveError(
            f"{count_text(len(failed), 'environment')} could not be locked: {', '.join(failed)}"
        )
    return 0


def _check(call: Call, specs: Sequence[Path]) -> int:
    stale = []
    for spec in specs:
        with call.pipeline(str(spec)) as pipeline:
            loaded = pipeline.load(str(spec))
            try:
                pipeline.check(loaded)
                call.say(f"the lock of {printable(loaded.name)} answers its spec")
            except StaleLockError as error:
                stale.append(loaded.name)
                call.complain(error.message)
    if stale:
        raise StaleLockError(f"{count_text(len(stale), 'lock')} out of date: {', '.join(stale)}")
    return 0


def _upgrade(call: Call, spec: Path, request: LockRequest) -> Upgrade:
    try:
        with call.pipeline(str(spec)) as pipeline:
            loaded = pipeline.load(str(spec))
            before = pipeline.present_lock(loaded)
            result = pipeline.lock(loaded, request)
    except EnvbuildError as error:
        return Upgrade(spec=spec, name=spec.parent.name, changes=(), moved=0, error=error.message)
    return Upgrade(
        spec=spec, name=loaded.name, changes=result.changes, moved=moved_bytes(before, result.lock)
    )


def _tell(call: Call, results: Sequence[Upgrade], *, dry_run: bool) -> None:
    for each in results:
        if each.error:
            call.complain(f"{each.name}: {each.error}")
            continue
        moved = f", {size_text(each.moved)} to download" if each.changes else ""
        call.out(f"{printable(each.name)}: {change_summary(each.changes)}{moved}")
        for line in change_lines(each.changes, color=call.color and call.stdout.isatty()):
            call.out(f"  {line}")
    total = sum(each.moved for each in results)
    changed = sum(bool(each.changes) for each in results)
    what = "would change" if dry_run else "changed"
    call.say(f"{changed} of {count_text(len(results), 'lock')} {what}, {size_text(total)} to download in all")


def _json(each: Upgrade) -> dict[str, object]:
    return {
        "name": each.name,
        "spec": str(each.spec),
        "changes": change_json(each.changes),
        "bytes": each.moved,
        "error": each.error,
    }
