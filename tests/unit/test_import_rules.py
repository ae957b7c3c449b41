"""What may import what, and how modules are cut: held over the syntax trees of all modules (docs/design.md).

Every import counts, those inside functions, under ``TYPE_CHECKING`` and lazy ones too.
"""

from __future__ import annotations

import ast
import fnmatch
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _script() -> ModuleType:
    """``scripts/house.py``, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("house", ROOT / "scripts" / "house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


HOUSE = _script().House(ROOT)
LONGEST = 700

# Each package imports only those in rows above its own, and itself.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("_version", "errors", "lazy"),
    ("platforms", "progress", "redact", "resources"),
    ("settings",),
    ("oci",),
    ("store",),
    ("http",),
    ("registry", "docker"),
    ("images",),
    ("cache",),
    ("specs",),
    ("lock",),
    ("plan",),
    ("compose",),
    ("render",),
    ("engines",),
    ("attest", "lint", "run"),
    ("inspect", "targets"),
    ("workspace",),
    ("app",),
    ("api",),
    ("azure",),
    ("cli",),
    ("__main__",),
)
RANK = {package: rank for rank, row in enumerate(LAYERS) for package in row}

# Third-party packages that only the named modules may import.
ONLY = {
    "docker": (
        *("envbuild.docker.*", "envbuild.engines.docker.*", "envbuild.images.sinks.daemon"),
        "envbuild.targets.docker",
    ),
    "kubernetes": ("envbuild.targets.kubernetes.*", "envbuild.targets.spark.*"),
    "click": ("envbuild.cli.*",),
    "rich": ("envbuild.cli.*",),
    "sqlalchemy": ("envbuild.workspace.*",),
    "alembic": ("envbuild.workspace.*",),
}


def third_party(name: str) -> set[str]:
    """The top-level packages that a module imports."""
    tops = set(re.findall(r"lazy\(\"(\w+)", HOUSE.modules[name].text))
    for node in ast.walk(HOUSE.modules[name].tree):
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{name}:{node.lineno}: relative import"
            tops.add(node.module.split(".")[0])
    return tops


@pytest.mark.parametrize("package", sorted(ONLY))
def test_third_party_package_stays_in_its_place(package: str) -> None:
    strangers = [
        name
        for name in HOUSE.modules
        if package in third_party(name)
        and not any(fnmatch.fnmatch(name, pattern) for pattern in ONLY[package])
    ]
    assert strangers == []


def test_no_file_and_no_package_imports_itself_in_a_circle() -> None:
    assert HOUSE.file_circles() == []
    assert HOUSE.package_circles() == []


def test_every_package_has_its_layer() -> None:
    packages = {package.removeprefix("envbuild.") for package in HOUSE.package_imports} - {"envbuild"}
    assert packages == set(RANK)


def test_a_package_imports_only_lower_layers() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, targets in HOUSE.imports.items()
        for target in sorted(targets)
        if name != "envbuild"
        and target != "envbuild"
        and not _may_import(name.split(".")[1], target.split(".")[1])
    ]
    assert wrong == []


def _may_import(package: str, other: str) -> bool:
    return package == other or RANK[other] < RANK[package]


def test_modules_are_one_noun_long() -> None:
    assert [name for name, module in HOUSE.modules.items() if module.lines > LONGEST] == []


def test_libraries_never_print() -> None:
    printing = [
        f"{name}:{node.lineno}"
        for name, module in HOUSE.modules.items()
        if not name.startswith("envbuild.cli")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []
