"""The import rules of the design (§3), held over the syntax trees of all modules."""

from __future__ import annotations

import ast
import fnmatch
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "envbuild").rglob("*.py")
    if "_data" not in path.parts
)
LONGEST = 700

# Third-party packages that only the named modules may import.
ONLY = {
    "docker": ("envbuild/engines/docker*.py", "envbuild/images/sinks/daemon.py"),
    "kubernetes": ("envbuild/target/kubernetes*.py",),
    "click": ("envbuild/cli/*.py",),
    "rich": ("envbuild/cli/*.py",),
    "sqlalchemy": ("envbuild/workspace/*.py",),
    "alembic": ("envbuild/workspace/*.py",),
}

# Everything may import these: they are about no stage.
FOUNDATION = {"errors", "digest", "platforms", "progress"}
# Frozen values and constants of the formats: they read nothing but each other, and any stage may read them.
VALUES = {"spec.model", "lock.model", "plan.model", "publish.base", "target.base"}
STAGES = {
    *("settings", "store", "fetch", "remote", "spec", "lock"),
    *("plan", "compose", "render", "engines", "publish", "run", "attest", "examine", "target"),
}
# What each part may import besides, whole parts or single modules, in the order of the data flow: a part only
# names parts above it.
ALLOWED: dict[str, set[str]] = {
    **{each: set() for each in FOUNDATION},
    "settings": set(),
    "resources": set(),
    "store": set(),
    "fetch": {"settings", "store"},
    "remote": {"settings", "store", "fetch"},
    "spec": {"resources"},
    "lock": {"settings", "store", "fetch", "remote", "spec"},
    "plan": {"lock"},
    "compose": {"settings", "store", "fetch", "remote", "lock", "plan"},
    "render": {"settings", "resources", "store", "fetch", "spec", "lock", "plan", "compose"},
    "engines": {"settings", "store", "fetch", "remote", "lock", "plan", "compose", "render"},
    "publish": {"settings", "store", "remote", "engines.docker_client"},
    "run": {"store", "remote", "compose.unpack", "engines", "publish"},
    "workspace": {"settings", "spec", "lock"},
    "lint": {"settings", "spec", "lock"},
    "attest": {"store", "remote", "lock", "plan", "publish"},
    "examine": {"settings", "store", "remote", "lock", "plan", "compose", "engines", "publish", "attest"},
    "target": {
        *(
            "settings",
            "resources",
            "store",
            "remote",
            "spec",
            "lock",
            "plan",
            "compose",
            "engines",
            "publish",
        ),
        "run",
    },
    "request": {"lock"},
    "wiring": STAGES,
    "existing": STAGES | {"wiring"},
    "pipeline": STAGES | {"wiring", "request", "existing"},
    "images": STAGES | {"wiring", "request"},
    "examination": STAGES | {"wiring", "request", "images"},
    "api": STAGES | {"wiring", "request", "pipeline", "images", "workspace", "lint", "resources"},
    "cli": {
        "api",
        "workspace.base",
        "lint",
        "settings",
        "resources",
        "store",
        "spec.schema",
        "spec.redact",
        "request",
        "pipeline",
        "images",
        "examination",
        "examine.model",
        "target.kinds",
        "target.options",
        "engines.docker_client",
        "engines.buildx_command",
    },
}


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), path)


def imports(path: str) -> Iterator[str]:
    """Every module that ``path`` imports, at any depth; names taken from our packages count as modules."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner) else node.module


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def part(path: str) -> str:
    """``envbuild/lock/pip/uv.py`` → ``lock``; ``envbuild/app/pipeline.py`` → ``pipeline``."""
    return path.removeprefix("envbuild/").split("/")[0].removesuffix(".py")


@pytest.mark.parametrize("package", sorted(ONLY))
def test_third_party_package_stays_in_its_place(package: str) -> None:
    strangers = [
        path
        for path in MODULES
        if any(name.split(".")[0] == package for name in imports(path))
        and not any(fnmatch.fnmatch(path, pattern) for pattern in ONLY[package])
    ]
    assert strangers == []


@pytest.mark.parametrize("path", MODULES)
def test_module_imports_only_what_its_stage_may(path: str) -> None:
    assert list(strangers(path)) == []


def strangers(path: str) -> Iterator[str]:
    """Our modules that ``path`` imports though its part may not."""
    mine = part(path)
    # The package itself holds the version, and the way to the front door.
    allowed = ALLOWED.get(mine, {"api"}) | FOUNDATION | VALUES
    for name in imports(path):
        if not name.startswith("envbuild."):
            continue
        other = name.removeprefix("envbuild.")
        if other.split(".")[0] == mine:
            continue
        if not any(other == each or other.startswith(f"{each}.") for each in allowed):
            yield other


def test_values_read_only_values() -> None:
    wrong = [
        (value, name)
        for value in sorted(VALUES)
        for name in imports(f"envbuild/{value.replace('.', '/')}.py")
        if name.startswith("envbuild.") and name.removeprefix("envbuild.") not in VALUES | FOUNDATION
    ]
    assert wrong == []


def test_a_part_names_only_parts_above_it() -> None:
    order = list(ALLOWED)
    wrong = [
        (mine, other)
        for mine in order
        for other in ALLOWED[mine]
        if order.index(other.split(".")[0]) >= order.index(mine)
    ]
    assert wrong == []


def test_every_part_has_its_line_in_the_table() -> None:
    assert {part(path) for path in MODULES} == {*ALLOWED, "__init__"}


def test_no_module_imports_itself_in_a_circle() -> None:
    """Imports that run with the module; one inside a function runs later and closes no circle."""
    graph = {
        path: {target for name in top_imports(path) if (target := file_of(name)) is not None} - {path}
        for path in MODULES
    }
    done: set[str] = set()

    def visit(path: str, trail: tuple[str, ...]) -> None:
        assert path not in trail, " -> ".join((*trail[trail.index(path) :], path))
        if path not in done:
            for target in sorted(graph[path]):
                visit(target, (*trail, path))
            done.add(path)

    for path in MODULES:
        visit(path, ())


def top_imports(path: str) -> Iterator[str]:
    for node in tree(path).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if is_module(inner) else node.module


def file_of(name: str) -> str | None:
    if not name.startswith("envbuild"):
        return None
    base = name.replace(".", "/")
    return next((path for path in (f"{base}.py", f"{base}/__init__.py") if path in MODULES), None)


@pytest.mark.parametrize("path", MODULES)
def test_module_is_one_noun_long(path: str) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= LONGEST


def test_libraries_never_print() -> None:
    printing = [
        f"{path}:{node.lineno}"
        for path in MODULES
        if part(path) != "cli"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []
