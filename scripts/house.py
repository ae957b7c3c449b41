#!/usr/bin/env python3
"""The figures of the house: how the package's modules hang together, how they are cut, what things are
called.

All imports count: those inside functions, those under ``TYPE_CHECKING``, and lazy ones. Standard library
only; ``make house`` prints them, and ``tests/unit/test_import_rules.py`` holds the first row.
"""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SHORT = 60
"""Lines below which a module is a fragment, unless it is a command, a migration or a package's own."""
MANY = 8
"""Parameters from which a function lacks a type."""
PROSE = ("each", "found")
"""Words that name nothing."""
_LAZY = re.compile(r"lazy\(\s*\"(envbuild[\w.]*)\"")


@dataclass(frozen=True)
class Module:
    """One file: its dotted name, its text and its tree."""

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def package(self) -> str:
        """``envbuild.lock.pip.uv`` → ``envbuild.lock``; what lies beside the packages is one by itself."""
        return ".".join(self.name.split(".")[:2])

    @property
    def may_be_short(self) -> bool:
        return (
            self.path.name == "__init__.py"
            or "commands" in self.path.parts
            or "migrations" in self.path.parts
        )

    @property
    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node


class House:
    """The package below ``root``."""

    def __init__(self, root: Path) -> None:
        package = root / "envbuild"
        self.modules = {
            module.name: module
            for path in sorted(package.rglob("*.py"))
            if "_data" not in path.parts
            for module in [Module(_dotted(path.relative_to(root)), path, path.read_text(encoding="utf-8"))]
        }

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """Each module's own modules, itself left out."""
        return {
            name: {target for target in self._imported(module) if target in self.modules and target != name}
            for name, module in self.modules.items()
        }

    def _imported(self, module: Module) -> Iterator[str]:
        yield from _LAZY.findall(module.text)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    yield inner if inner in self.modules else node.module

    @cached_property
    def package_imports(self) -> dict[str, set[str]]:
        graph: defaultdict[str, set[str]] = defaultdict(set)
        for name, targets in self.imports.items():
            package = self.modules[name].package
            graph[package] |= {self.modules[target].package for target in targets} - {package}
        return dict(graph)

    def file_circles(self) -> list[list[str]]:
        return circles(self.imports)

    def package_circles(self) -> list[list[str]]:
        return circles(self.package_imports)

    def fragments(self) -> list[str]:
        return [
            module.name
            for module in self.modules.values()
            if module.lines < SHORT and not module.may_be_short
        ]

    def long_signatures(self) -> list[str]:
        """Functions with many parameters; a command's are its options."""
        return [
            f"{module.name}.{function.name}"
            for module in self.modules.values()
            if "commands" not in module.path.parts
            for function in module.functions
            if _parameters(function) >= MANY
        ]

    def function_imports(self) -> int:
        return sum(
            len(
                {id(node) for function in module.functions for node in ast.walk(function) if _is_import(node)}
            )
            for module in self.modules.values()
        )

    def shared_class_names(self) -> dict[str, int]:
        counts = Counter(
            node.name
            for module in self.modules.values()
            for node in ast.walk(module.tree)
            if isinstance(node, ast.ClassDef)
        )
        return {name: count for name, count in sorted(counts.items()) if count > 1}

    def uses(self, word: str) -> int:
        """How often a value is called ``word``."""
        return sum(
            (isinstance(node, ast.Name) and node.id == word)
            or (isinstance(node, ast.arg) and node.arg == word)
            for module in self.modules.values()
            for node in ast.walk(module.tree)
        )


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected parts of more than one node (Tarjan), sorted."""
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    parts: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = low[node] = len(number)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in number:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], number[target])
        if low[node] == number[node]:
            cut = stack.index(node)
            part, stack[cut:] = sorted(stack[cut:]), []
            if len(part) > 1:
                parts.append(part)

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return sorted(parts)


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in named)


def _listed(names: Sequence[str], shown: int = 12) -> str:
    more = f" … {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def main() -> None:
    house = House(Path(__file__).resolve().parents[1])
    files, packages = house.file_circles(), house.package_circles()
    shared, fragments, long = house.shared_class_names(), house.fragments(), house.long_signatures()
    print(f"circles of files: {len(files)}; packages in one: {sum(map(len, packages))}")
    for part in (*files, *packages):
        print(f"    {_listed(part)}")
    modules = house.modules.values()
    print(f"lines of the package: {sum(module.lines for module in modules):,} in {len(modules)} modules")
    print(f"modules under {SHORT} lines: {len(fragments)}  ({_listed(fragments)})")
    print(f"functions with {MANY} parameters or more: {len(long)}  ({_listed(long)})")
    print(f"imports inside functions: {house.function_imports()}")
    names = [f"{name} {count}" for name, count in shared.items()]
    print(f"class names shared: {len(shared)}  ({_listed(names)})")
    for word in PROSE:
        print(f"values called {word}: {house.uses(word)}")


if __name__ == "__main__":
    main()
