"""Which python an environment gets, and what it stands on (docs/design.md §4)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from envbuild.errors import ResolveError
from envbuild.lazy import lazy
from envbuild.lock.base import ResolvedBase
from envbuild.lock.debian.resolver import DEFAULT_SUITE
from envbuild.lock.debian.selection import suite_python
from envbuild.lock.model import Base, DebianBase, ImageBase, PythonPin, base_title, glibc_of
from envbuild.specs.match import split_match
from envbuild.specs.model import (
    BaseSpec,
    CondaSpec,
    DebianBaseSpec,
    ImageBaseSpec,
    PythonProvider,
    Runtime,
    Spec,
)

if TYPE_CHECKING:
    from packaging import specifiers as packaging_specifiers
else:
    packaging_specifiers = lazy("packaging.specifiers")

DEFAULT_CHANNEL = "conda-forge"
_VERSION = re.compile(r"\d+(\.\d+){0,2}")
STANDALONE_GLIBC = (2, 17)
"""What python-build-standalone builds for."""
DEBIAN_SUITES = ("trixie", "bookworm")
_OLDER = ("3.12", "3.10", "3.9", "3.8")
"""Series that no Debian release has, and that packages may have their last wheels for; newest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonChoice:
    """A base to resolve, and who is to bring python."""

    base: BaseSpec
    from_base: bool
    """Whether the base is asked to bring python."""
    needed: bool
    """Whether there must be a python at all."""
    provider: PythonProvider = PythonProvider.STANDALONE
    """Who brings it where the base isn't asked, or has none that fits."""
    series: str | None = None
    """The one of those that the spec takes which a standalone build is to be of; None: whichever."""

    @property
    def python(self) -> str | None:
        """The series that is known before anything is resolved."""
        suite = self.base.suite if self.from_base and isinstance(self.base, DebianBaseSpec) else None
        return suite_python(suite) if suite else self.series


def choose_python(
    spec: Spec,
    *,
    has_debian: Callable[[], bool],
    present: Base | None = None,
    locked: PythonPin | None = None,
) -> PythonChoice:
    """Conda's python where there are conda packages; else the base's own, and a base that has the right one;
    else a standalone build. ``python_provider`` says otherwise.

    A host that knows no Debian mirror gets an official slim image instead of a Debian base. What was chosen
    before, the base ``present`` and the python ``locked``, stays where it is still an answer, whichever host
    is asked."""
    choice = replace(_choose_base(spec, has_debian, present), provider=_provider(spec, locked))
    if locked is not None and locked.provider == "standalone" and matches_python(spec.python, locked.version):
        others = [other for other in alternatives(spec, choice) if other.series == locked.short]
        return others[0] if others else choice
    return choice


def alternatives(spec: Spec, choice: PythonChoice) -> tuple[PythonChoice, ...]:
    """``choice``, then what the spec takes instead of it where it says nothing of the kind: the pythons of
    other Debian releases, then older standalone builds on that base."""
    base = choice.base
    if not isinstance(base, DebianBaseSpec) or choice.python is None:
        return (choice,)
    is_open = spec.base is None or (isinstance(spec.base, DebianBaseSpec) and spec.base.suite is None)
    suites = [
        replace(choice, base=replace(base, suite=suite), from_base=True, series=None)
        for suite in (DEBIAN_SUITES if is_open else filter(None, [base.suite]))
        if matches_python(spec.python, suite_python(suite))
    ]
    builds = [
        replace(choice, from_base=False, series=series)
        for series in _OLDER
        if choice.provider is PythonProvider.STANDALONE
        and spec.python_provider is None
        and matches_python(spec.python, series)
    ]
    return tuple(dict.fromkeys((choice, *suites, *builds)))


def _provider(spec: Spec, locked: PythonPin | None) -> PythonProvider:
    if spec.conda is not None:
        return PythonProvider.CONDA
    if spec.python_provider is not None:
        return spec.python_provider
    # Before there were standalone builds, every other python was conda's.
    return PythonProvider.CONDA if locked and locked.provider == "conda" else PythonProvider.STANDALONE


def _choose_base(spec: Spec, has_debian: Callable[[], bool], present: Base | None) -> PythonChoice:
    plain = _is_plain(spec)
    needed = spec.python is not None or bool(spec.pip.requirements) or not (plain or spec.conda)
    from_base = not plain and spec.conda is None and not _brought(spec)
    base = spec.base
    if isinstance(base, DebianBaseSpec) and base.suite is not None:
        fits = from_base and matches_python(spec.python, suite_python(base.suite))
        return PythonChoice(base=base, from_base=fits, needed=needed)
    if base is not None and not isinstance(base, DebianBaseSpec):
        return PythonChoice(base=base, from_base=from_base, needed=needed)
    packages = base.packages if base else ()
    if not packages and not isinstance(present, DebianBase):
        slim = _slim_image(spec)
        kept = isinstance(present, ImageBase) and present.reference == slim
        if kept or not has_debian():
            if slim is None:
                raise ResolveError(
                    f"{spec.source}: without a Debian mirror, python must be one version, "
                    f"not {spec.python!r}",
                    hint="write python: '3.13', or set ENVBUILD_DEBIAN_MIRROR",
                )
            image = ImageBaseSpec(reference=slim)
            return PythonChoice(base=image, from_base=from_base, needed=needed)
    if not has_debian() and packages:
        raise ResolveError(
            f"{spec.source}: Debian packages are needed ({', '.join(packages)}), "
            "but this machine knows no Debian mirror",
            hint="set ENVBUILD_DEBIAN_MIRROR to the root of a Debian archive",
        )
    suites = [
        suite for suite in DEBIAN_SUITES if _brought(spec) or matches_python(spec.python, suite_python(suite))
    ]
    if isinstance(present, DebianBase) and present.suite in suites:
        suites = [present.suite]
    return PythonChoice(
        base=DebianBaseSpec(suite=suites[0] if suites else DEFAULT_SUITE, packages=packages),
        from_base=from_base and bool(suites),
        needed=needed,
    )


def _brought(spec: Spec) -> bool:
    """Whether ``spec`` wants a python that isn't the base's, whatever the base has."""
    return spec.python_provider in (PythonProvider.STANDALONE, PythonProvider.CONDA)


def _is_plain(spec: Spec) -> bool:
    """Whether ``spec`` is of the runtime docker and asks for nothing that needs a python."""
    return (
        spec.runtime is Runtime.DOCKER
        and spec.python is None
        and not spec.pip.requirements
        and spec.conda is None
    )


def matches_python(wanted: str | None, version: str) -> bool:
    """Whether ``version`` (``3.13`` or ``3.13.5``) is what ``wanted`` asks for; None asks for nothing.

    ``3.13``, ``=3.13``, ``3.13.*`` take every 3.13; anything else is a version specifier. A version
    without a patch number stands for the whole series."""
    if wanted is None:
        return True

    text = wanted.strip()
    bare = text.removeprefix("=").removesuffix(".*") if not text.startswith("==") else text
    if _VERSION.fullmatch(bare):
        parts, have = bare.split("."), version.split(".")
        return have[: len(parts)] == parts[: len(have)]
    try:
        specifiers = packaging_specifiers.SpecifierSet(text)
    except packaging_specifiers.InvalidSpecifier as error:
        raise ResolveError(f"python: {wanted!r} is not a version or a version specifier") from error
    candidates = [version] if version.count(".") > 1 else [f"{version}.{patch}" for patch in range(40)]
    return any(specifiers.contains(candidate) for candidate in candidates)


def base_lacks_python(spec: Spec, resolved: ResolvedBase) -> ResolveError:
    """The error of a base that is to bring a python, and has another or none."""
    base = resolved.base
    there = suite_python(base.suite) if isinstance(base, DebianBase) else None
    if resolved.python is not None:
        there = resolved.python.version
    return ResolveError(
        f"{spec.source}: python {spec.python or ''} is to come with the base (python_provider), and "
        f"{base_title(base)} has {there or 'none'}".replace("python  is", "a python is"),
        hint="leave python_provider out, so that a standalone build is taken where the base's doesn't fit",
    )


def check_glibc(base: Base) -> None:
    """Raises ``ResolveError`` for a base whose C library is older than standalone builds need."""
    if tuple(int(part) for part in glibc_of(base).split(".")[:2]) < STANDALONE_GLIBC:
        raise ResolveError(
            f"{base_title(base)} has glibc {glibc_of(base)}, and standalone pythons need "
            f"{'.'.join(map(str, STANDALONE_GLIBC))} or newer",
            hint="take a newer base, or python_provider: conda",
        )


def debian_pythons() -> str:
    """Which Debian release has which python, for messages."""
    return "Debian has " + " and ".join(f"{suite_python(suite)} ({suite})" for suite in DEBIAN_SUITES)


def with_conda_python(conda: CondaSpec | None, wanted: str | None) -> CondaSpec:
    """``conda`` with a python of the ``wanted`` version among its dependencies. An explicit list stays as it
    is: raises ``ResolveError`` where its python is another."""
    channels = conda.channels if conda else (DEFAULT_CHANNEL,)
    dependencies = conda.dependencies if conda else ()
    # Nobody who only wants another python asked for what conda adds to it.
    add_pip = conda.add_pip if conda else False
    if conda is not None and conda.explicit:
        _check_listed_python(conda, wanted)
        return conda
    if wanted is None and any(split_match(dependency).name == "python" for dependency in dependencies):
        return CondaSpec(channels=channels, dependencies=dependencies, add_pip=add_pip)
    return CondaSpec(
        channels=channels, dependencies=(*dependencies, conda_python_spec(wanted)), add_pip=add_pip
    )


def _check_listed_python(conda: CondaSpec, wanted: str | None) -> None:
    for package in conda.explicit:
        name, version, _ = package.url.rsplit("/", 1)[-1].rsplit("-", 2)
        if name == "python" and not matches_python(wanted, version):
            raise ResolveError(
                f"python {wanted} is asked for, "
                f"the list of conda packages for {package.platform} has {version}",
                hint="leave python out: the list decides",
            )


def conda_python_spec(wanted: str | None) -> str:
    """The match spec for a python as a spec asks for it: ``python 3.11.*``."""
    if wanted is None:
        return "python"
    bare = wanted.strip()
    if _VERSION.fullmatch(bare):
        return f"python {bare}.*" if bare.count(".") < 2 else f"python =={bare}"
    return f"python {bare.replace(' ', '')}"


def _slim_image(spec: Spec) -> str | None:
    """The official image for ``spec``: Debian's where it needn't bring python, else python's; None where the
    spec doesn't ask for one version."""
    if spec.conda is not None or _brought(spec) or _is_plain(spec):
        return f"docker.io/library/debian:{DEFAULT_SUITE}-slim"
    wanted = (spec.python or suite_python(DEFAULT_SUITE)).strip().removesuffix(".*").lstrip("=")
    if not _VERSION.fullmatch(wanted):
        return None
    return f"docker.io/library/python:{wanted}-slim"
