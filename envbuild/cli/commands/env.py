"""``envbuild env``: the versioned environments of a workspace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from envbuild.app import lock, specs
from envbuild.app.compare import compare, package_history
from envbuild.app.environments import VersionReference, look_up
from envbuild.cli.options import (
    display_options,
    json_option,
    spec_argument,
    store_options,
    workspace_option,
)
from envbuild.cli.requests import with_call
from envbuild.cli.show.environments import (
    comparison_json,
    comparison_lines,
    deliver,
    event_json,
    event_lines,
    found_json,
    found_lines,
    package_json,
    package_lines,
    registered_text,
    summary_json,
    summary_lines,
    tags_text,
    version_json,
    version_rows,
)
from envbuild.cli.show.report import json_text
from envbuild.cli.show.text import printable
from envbuild.errors import UsageError

if TYPE_CHECKING:
    from envbuild.cli.call import Call
    from envbuild.workspace.base import Version

F = TypeVar("F", bound=Callable[..., Any])

_tag_option = click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="May be repeated.")


def _shared(function: F) -> F:
    """What every command takes besides its own: the workspace, the store, how it tells."""
    function = with_call(function)
    return workspace_option(store_options(json_option(display_options(function))))


@click.group(short_help="Keep environments as named, numbered versions.")
def command() -> None:
    """Keep environments as named, numbered versions in a workspace.

    VERSION is name, name:version or name@label; a name alone is its latest version.
    """


@command.command()
@spec_argument
@click.option("--name", metavar="NAME", help="Another name than the spec's.")
@click.option(
    "--version", metavar="VERSION", help="This version [default: the file's, else the next number]."
)
@click.option("--label", "labels", metavar="LABEL", multiple=True, help="May be repeated.")
@_tag_option
@click.option("--description", metavar="TEXT")
@_shared
def register(
    call: Call,
    spec: str,
    name: str | None,
    version: str | None,
    labels: tuple[str, ...],
    tags: tuple[str, ...],
    description: str | None,
    as_json: bool,
) -> int:
    """Register SPEC; prints its version. The same definition keeps the version that it has."""
    pairs = _pairs(tags)
    with call.session(spec) as session:
        loaded = specs.find_spec(session, spec)
        workspace = session.workspace
        registered = workspace.register(
            loaded,
            name=name,
            version=version or specs.version_of_file(session, loaded),
            description=description,
            tags=pairs,
            labels=labels,
        )
        # What was locked before it was registered needs no second lock.
        workspace.keep_answering_lock(loaded, lock.lock_directory(session, loaded))
    call.say(registered_text(registered.version, created=registered.created))
    call.out(
        json_text({**version_json(registered.version), "registered": registered.created})
        if as_json
        else registered.version.reference
    )
    return 0


@command.command("list")
@click.argument("name", required=False)
@click.option("--prefix", metavar="TEXT", default="", help="Only names that begin with this.")
@click.option("--archived", is_flag=True, help="Also what is archived.")
@click.option("--anonymous", is_flag=True, help="Also what was only built.")
@click.option("-n", "--limit", type=click.IntRange(1), metavar="N", help="At most so many lines.")
@_shared
def list_(
    call: Call,
    name: str | None,
    prefix: str,
    archived: bool,
    anonymous: bool,
    limit: int | None,
    as_json: bool,
) -> int:
    """List the environments, or the versions of NAME, the newest first."""
    with call.workspace() as workspace:
        if name is not None:
            versions = workspace.environments.versions(
                name, include_archived=archived, include_anonymous=anonymous, limit=limit
            )
            _show(call, version_rows(versions), {"versions": [*map(version_json, versions)]}, as_json=as_json)
            return 0
        summaries = workspace.environments.list(
            prefix=prefix, include_archived=archived, include_anonymous=anonymous, limit=limit
        )
    if not summaries and not as_json:
        call.say("no environments are registered")
        return 0
    _show(call, summary_lines(summaries), {"environments": [*map(summary_json, summaries)]}, as_json=as_json)
    return 0


@command.command()
@click.argument("version")
@_shared
def show(call: Call, version: str, as_json: bool) -> int:
    """Show VERSION: what it is, its lock, its images and its YAML.

    VERSION may also be a digest, sha256:…, of an image, a definition or an envbuild.lock, or an image's
    pinned reference: it leads back to the spec.
    """
    with call.workspace() as workspace:
        records = look_up(workspace, version)
    _show(call, found_lines(records), found_json(records), as_json=as_json)
    return 0


@command.command()
@click.argument("version")
@click.argument("labels", metavar="LABEL...", nargs=-1, required=True)
@_shared
def label(call: Call, version: str, labels: tuple[str, ...], as_json: bool) -> int:
    """Move LABELs to VERSION, from whichever had them."""
    with call.workspace() as workspace:
        chosen = workspace.get(version)
        labelled = workspace.environments.label(chosen.environment, chosen.version, labels)
    return _told(call, labelled, as_json=as_json)


@command.command()
@click.argument("name")
@click.argument("labels", metavar="LABEL...", nargs=-1, required=True)
@_shared
def unlabel(call: Call, name: str, labels: tuple[str, ...], as_json: bool) -> int:
    """Take LABELs away from the environment NAME."""
    with call.workspace() as workspace:
        workspace.environments.unlabel(name, labels)
        summaries = workspace.environments.list(prefix=name, include_archived=True, limit=1)
    left = dict(summaries[0].labels) if summaries else {}
    if as_json:
        call.out(json_text({"name": name, "labels": left}))
    call.say(f"{printable(name)} has no label {printable(', '.join(labels))} any more")
    return 0


@command.command()
@click.argument("version")
@click.option("--description", metavar="TEXT")
@_tag_option
@click.option("--remove-tag", "removed", metavar="KEY", multiple=True, help="May be repeated.")
@_shared
def update(
    call: Call,
    version: str,
    description: str | None,
    tags: tuple[str, ...],
    removed: tuple[str, ...],
    as_json: bool,
) -> int:
    """Change the description and tags of VERSION: its content never changes."""
    if description is None and not tags and not removed:
        raise UsageError("nothing to update", hint="give --description, --tag or --remove-tag")
    with call.workspace() as workspace:
        chosen = workspace.get(version)
        unknown = sorted(set(removed) - dict(chosen.tags).keys())
        if unknown:
            raise UsageError(f"{chosen.reference} has no tag {', '.join(unknown)}")
        kept = {key: value for key, value in chosen.tags if key not in removed} | dict(_pairs(tags))
        changed = workspace.environments.update(
            chosen.environment,
            chosen.version,
            description=description,
            tags=kept.items() if tags or removed else None,
        )
    return _told(call, changed, as_json=as_json)


@command.command()
@click.argument("version")
@_shared
def archive(call: Call, version: str, as_json: bool) -> int:
    """Hide VERSION, or all of an environment where only its name is given. It can still be used."""
    return _archive(call, version, archived=True, as_json=as_json)


@command.command()
@click.argument("version")
@_shared
def restore(call: Call, version: str, as_json: bool) -> int:
    """Undo archive of the same."""
    return _archive(call, version, archived=False, as_json=as_json)


def _archive(call: Call, text: str, *, archived: bool, as_json: bool) -> int:
    named = VersionReference.parse(text)
    with call.workspace() as workspace:
        number = named.version
        if named.label is not None:
            number = workspace.get(text).version
        change = workspace.environments.archive if archived else workspace.environments.restore
        change(named.name, number)
    what = named.name if number is None else f"{named.name}:{number}"
    if as_json:
        call.out(json_text({"name": named.name, "version": number, "archived": archived}))
    call.say(f"{printable(what)} is {'archived' if archived else 'restored'}")
    return 0


@command.command()
@click.argument("version")
@click.argument("new_name")
@click.option("--version", "new_version", metavar="VERSION", help="This version [default: the next number].")
@_shared
def clone(call: Call, version: str, new_name: str, new_version: str | None, as_json: bool) -> int:
    """Register VERSION under NEW_NAME, with its description, tags, lock and build context."""
    with call.workspace() as workspace:
        chosen = workspace.get(version)
        copy = workspace.environments.clone(
            chosen.environment, chosen.version, new_name, new_version=new_version
        )
    call.say(registered_text(copy.version, created=copy.created))
    call.out(
        json_text({**version_json(copy.version), "registered": copy.created})
        if as_json
        else copy.version.reference
    )
    return 0


@command.command()
@click.argument("version")
@click.option("--format", metavar="FORMAT", default="native", help="native, conda, requirements, azure-v2…")
@click.option("-o", "--output", metavar="FILE|DIR", help="Write it there [default: stdout].")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@_shared
def export(call: Call, version: str, format: str, output: str | None, overwrite: bool, as_json: bool) -> int:
    """Write VERSION in a format of its own or another tool's; says what the format can't carry."""
    with call.workspace() as workspace:
        spec = workspace.spec(workspace.get(version))
        deliver(call, spec, format=format, output=output, overwrite=overwrite, as_json=as_json)
    return 0


@command.command()
@click.argument("before")
@click.argument("after")
@_shared
def diff(call: Call, before: str, after: str, as_json: bool) -> int:
    """Show what differs from the version BEFORE to AFTER: definition, pins, size, bytes to pull."""
    with call.workspace() as workspace:
        comparison = compare(workspace, workspace.get(before), workspace.get(after))
    lines = comparison_lines(comparison, color=call.color and call.stdout.isatty())
    _show(call, lines, comparison_json(comparison), as_json=as_json)
    return 0


@command.command()
@click.argument("name", required=False)
@click.option("--package", metavar="PACKAGE", help="Its version in the lock of each version.")
@click.option("-n", "--limit", type=click.IntRange(1), metavar="N", help="At most so many events.")
@_shared
def history(call: Call, name: str | None, package: str | None, limit: int | None, as_json: bool) -> int:
    """Show who did what to NAME, or to all environments, the newest first."""
    with call.workspace() as workspace:
        if package is not None:
            if name is None:
                raise UsageError("--package needs the name of an environment")
            packages = package_history(workspace, name, package)
            value = {"name": name, "package": package, "versions": package_json(packages)}
            _show(call, package_lines(packages), value, as_json=as_json)
            return 0
        events = workspace.environments.history(name, limit=limit)
    _show(call, event_lines(events), {"events": event_json(events)}, as_json=as_json)
    return 0


def _show(call: Call, lines: Sequence[str], value: object, *, as_json: bool) -> None:
    if as_json:
        call.out(json_text(value))
        return
    for line in lines:
        call.out(line)


def _told(call: Call, version: Version, *, as_json: bool) -> int:
    """Says what a version is after a change; prints it as JSON where asked."""
    parts = [
        f"labels {', '.join(version.labels)}" if version.labels else "",
        f"tags {tags_text(version.tags)}" if version.tags else "",
        version.description,
    ]
    call.say(printable(f"{version.reference}: {'; '.join(part for part in parts if part) or 'no labels'}"))
    if as_json:
        call.out(json_text(version_json(version)))
    return 0


def _pairs(tags: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for tag in tags:
        key, equals, value = tag.partition("=")
        if not equals or not key:
            raise UsageError(f"{tag!r} is not KEY=VALUE", hint="a tag is given as --tag KEY=VALUE")
        pairs.append((key, value))
    return tuple(pairs)
