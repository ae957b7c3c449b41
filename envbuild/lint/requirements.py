"""Rules about requirements of pip and dependencies of conda: unpinned, in conflict, twice."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.utils import canonicalize_name

from envbuild.lint.subject import Dependency, Doubt, Subject, WantedPackage
from envbuild.lint.versions import ANY, Range, bounded, conda_range, pip_range
from envbuild.specs.importers.conda.environment import DEFAULT_CHANNEL
from envbuild.specs.problems import Place

PIN = "'envbuild lock' pins it by hash; commit the lock"

# Conda packages that bring the distribution of another name, of those people write by hand.
_DISTRIBUTIONS = {
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "py-opencv": "opencv-python",
    "py-xgboost": "xgboost",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
}
# Other rules look at python; pip is only there to be there.
_NO_MATTER = frozenset({"python", "pip"})
_OPEN = "has no upper bound: the next major release fits too"


def unversioned_pip(subject: Subject) -> Iterator[Doubt]:
    narrowed = {name for name, lines in subject.constraints.items() if any(one.specifier for one in lines)}
    for requirement in _unpinned(subject):
        if not requirement.specifier and requirement.name not in narrowed:
            yield Doubt(
                message=f"{requirement.name} has no version: a build takes the newest of its day",
                where=subject.at(requirement),
                hint=PIN,
            )


def open_pip(subject: Subject) -> Iterator[Doubt]:
    closed = {
        name for name, lines in subject.constraints.items() if any(bounded(one.specifier) for one in lines)
    }
    for requirement in _unpinned(subject):
        if requirement.specifier and not bounded(requirement.specifier) and requirement.name not in closed:
            yield Doubt(
                message=f"{requirement.name}{requirement.specifier} {_OPEN}",
                where=subject.at(requirement),
                hint=PIN,
            )


def unversioned_conda(subject: Subject) -> Iterator[Doubt]:
    for dependency in _unpinned_conda(subject):
        if dependency.match.version is None or (
            dependency.match.version == "*" and dependency.match.build is None
        ):
            yield Doubt(
                message=f"{dependency.match.name} has no version: a build takes the newest of its day",
                where=subject.places.dependency(dependency.text),
                hint=PIN,
            )


def open_conda(subject: Subject) -> Iterator[Doubt]:
    for dependency in _unpinned_conda(subject):
        version = dependency.match.version
        if version is not None and version != "*" and not bounded(version):
            yield Doubt(
                message=f"{dependency.match.name} {version} {_OPEN}",
                where=subject.places.dependency(dependency.text),
                hint=PIN,
            )


def conflicts(subject: Subject) -> Iterator[Doubt]:
    """Of each package the first line that leaves no version over. Lines with a marker may never meet."""
    ranges: dict[str, Range] = {}
    before: dict[str, list[str]] = {}
    urls: dict[str, str] = {}
    done: set[str] = set()
    required: set[str] = set()

    def clash(name: str, shown: str, allowed: Range) -> str | None:
        """The lines it can't stand beside, where it can't."""
        earlier = before.setdefault(name, [])
        met = ranges.get(name, ANY).meet(allowed)
        ranges[name] = met
        earlier.append(shown)
        if not met.empty or name in done:
            return None
        done.add(name)
        if allowed.empty:
            return f"no version fits {shown}"
        others = ", ".join(earlier[:-1][-3:])
        return f"no version fits {shown} as well as {others}"

    for dependency in subject.conda:
        match = dependency.match
        name = canonicalize_name(_DISTRIBUTIONS.get(match.name, match.name))
        if name == "python":
            continue
        what = clash(name, f"{match.name} {match.version or '*'} of conda", conda_range(match.version))
        if what:
            yield Doubt(message=what, where=subject.places.dependency(dependency.text), hint=_ONE)
    for requirement in subject.pip:
        if requirement.marker:
            continue
        if requirement.url is not None:
            if urls.setdefault(requirement.name, requirement.url) != requirement.url:
                what = f"{requirement.name} is asked for from two addresses"
                yield Doubt(message=what, where=subject.at(requirement), hint=_ONE)
            continue
        # Constraints count once, and only for what is required.
        lines = (
            [requirement]
            if requirement.name in required
            else [requirement, *subject.constraints.get(requirement.name, ())]
        )
        required.add(requirement.name)
        for line in lines:
            what = clash(line.name, f"{line.name}{line.specifier}", pip_range(line.specifier))
            if what:
                yield Doubt(message=what, where=subject.at(line), hint=_ONE)


_ONE = "write one line that says what is meant"


def twice(subject: Subject) -> Iterator[Doubt]:
    by_conda: dict[str, str] = {
        canonicalize_name(
            _DISTRIBUTIONS.get(dependency.match.name, dependency.match.name)
        ): dependency.match.name
        for dependency in subject.conda
    }
    for requirement in subject.pip:
        conda_name = by_conda.get(requirement.name)
        if conda_name is not None:
            yield Doubt(
                message=f"{requirement.name} is asked of pip, and conda brings it as {conda_name}",
                where=subject.at(requirement),
                hint="conda's is kept and pip's line only narrows it; keep the line of one of them",
            )


def _unpinned(subject: Subject) -> Iterator[WantedPackage]:
    """Requirements that neither a lock nor an address nor a hash fixes."""
    if not subject.installs or subject.spec.pip.complete:
        return
    for requirement in subject.pip:
        fixed = requirement.url is not None or requirement.item.hashes or requirement.name in subject.pinned
        # A requirement with a marker may hold for no platform of the lock.
        if not fixed and not (requirement.marker and subject.locked):
            yield requirement


def _unpinned_conda(subject: Subject) -> Iterator[Dependency]:
    if not subject.installs:
        return
    for dependency in subject.conda:
        if (
            dependency.match.name not in _NO_MATTER
            and canonicalize_name(dependency.match.name) not in subject.pinned
        ):
            yield dependency


def pip_without_conda_pip(subject: Subject) -> Iterator[Doubt]:
    """A ``pip:`` list in a conda file whose dependencies don't name pip."""
    if any(dependency.match.name == "pip" for dependency in subject.conda):
        return
    for requirement in subject.pip:
        where: Place = subject.at(requirement)
        if re.search(r"dependencies\[[0-9]+\]\.pip\[", where.key):
            yield Doubt(
                message="a pip list without pip among the dependencies: conda warns and adds one itself",
                where=where,
                hint="envbuild needs none; add '- pip' where conda is to read the file too",
            )
            return


_ANACONDA = re.compile(
    r"(?:defaults|anaconda|main|pkgs/(?:main|r|msys2|pro|free)|"
    r"https?://(?:repo\.anaconda\.com|conda\.anaconda\.org/(?:anaconda|main))(?:/.*)?)"
)


def missing(subject: Subject) -> Iterator[Doubt]:
    if _is_missing(subject):
        yield Doubt(
            message=f"no channels, so conda's own ({DEFAULT_CHANNEL}) are taken",
            where=subject.places.conda("dependencies"),
            hint="name them, e.g. channels: [conda-forge]",
        )


def licence(subject: Subject) -> Iterator[Doubt]:
    conda = subject.spec.conda
    if conda is None or _is_missing(subject):
        return
    for channel in conda.channels:
        if _ANACONDA.fullmatch(channel):
            yield Doubt(
                message=f"the channel {channel} is under Anaconda's terms: larger organisations pay",
                where=subject.places.conda("channels"),
                hint="conda-forge has the same packages for everybody",
            )


def confusable(subject: Subject) -> Iterator[Doubt]:
    """Names that the best match of several indexes may be taken for: those that several have, where they were
    asked; else whether there are several at all."""
    pip = subject.spec.pip
    if pip.complete or pip.index_strategy == "first-index":
        return
    own = {package for index in pip.indexes for package in index.packages}
    lines = [
        wanted
        for wanted in subject.pip
        if wanted.url is None and not wanted.item.hashes and wanted.name not in own
    ]
    if subject.offered is not None:
        fixed = {wanted.name for wanted in subject.pip} - {wanted.name for wanted in lines}
        places = {wanted.name: subject.at(wanted) for wanted in reversed(lines)}
        for name, indexes in sorted(subject.offered.items()):
            if name not in fixed:
                yield Doubt(
                    message=f"{name} is offered by {' and '.join(indexes)}, and the best match of all counts",
                    where=places.get(name, subject.places.whole),
                    hint=f"say which is meant (indexes: [{{url: …, packages: [{name}]}}]), or write "
                    "index_strategy: first-index",
                )
    elif lines and any(option.startswith("--extra-index-url ") for option in pip.options):
        yield Doubt(
            message="several indexes, and the best match of all counts: who can publish a name on one takes "
            "the place of a package of that name on another",
            where=subject.at(lines[0]),
            hint="write index_strategy: first-index, say which index is meant (indexes), or state hashes; "
            "lint --online says which names several of them have",
        )


def _is_missing(subject: Subject) -> bool:
    conda = subject.spec.conda
    if conda is None or conda.explicit:
        return False
    if not conda.channels:
        return True
    return conda.channels == (DEFAULT_CHANNEL,) and subject.places.says_channels() is False
