"""What builds, checks and releases envbuild is pinned: tools by hash, actions of workflows by commit."""

from __future__ import annotations

import re
import sys
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")


def test_lock_pins_all_by_version_and_hash_and_names_no_place() -> None:
    lines = [line for line in LOCK.splitlines() if not line.lstrip().startswith("#")]
    pin = re.compile(r"[a-z0-9.-]+==\S+( ; [^\\]+)? \\")
    digest = re.compile(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in lines if not pin.fullmatch(line) and not digest.fullmatch(line)] == []
    assert "://" not in LOCK


def test_lock_has_all_that_the_project_asks_for() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        document = tomllib.load(file)
    project = document["project"]
    asked = chain(
        document["build-system"]["requires"],
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *document["dependency-groups"].values(),
    )
    locked: dict[str, set[str]] = {}
    for name, version in re.findall(r"^(\S+?)==(\S+)", LOCK, re.MULTILINE):
        locked.setdefault(name, set()).add(version)
    missing = [
        text
        for text in asked
        for requirement in [Requirement(text)]
        for versions in [locked.get(canonicalize_name(requirement.name), set())]
        if not versions or not all(map(requirement.specifier.contains, versions))
    ]
    assert missing == []


def test_actions_of_workflows_are_pinned_by_commit() -> None:
    lines = [
        line
        for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.match(r" *(- )?uses:", line)
    ]
    assert lines
    pinned = re.compile(r" +(- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in lines if not pinned.fullmatch(line)] == []
