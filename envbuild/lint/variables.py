"""Rules about credentials, wherever they stand, and about environment variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from envbuild.lint.secrets import secret_in, secret_variable
from envbuild.lint.subject import Doubt, Subject
from envbuild.specs.model import PREFIX, ImageBaseSpec
from envbuild.specs.problems import Place

_REMEDY = (
    "take it out and revoke it, as whoever reads this file or an image has it; give it to a container when "
    "it starts, or to a build by --secret"
)
_OVERRIDES = {
    "PATH": f"it replaces the search path, which begins with {PREFIX}/bin",
    "HOME": "programs look for their settings and caches there",
    "LD_LIBRARY_PATH": "every program takes its libraries from there first, conda's and wheels' own too",
    "LD_PRELOAD": "it is loaded into every program",
    "PYTHONPATH": "what lies there hides packages of the same name that the lock pins",
    "PYTHONHOME": "Python looks for its standard library there",
}


def credentials(subject: Subject) -> Iterator[Doubt]:
    for find, text in _texts(subject):
        kind = secret_in(text)
        if kind is not None:
            yield Doubt(message=f"{kind} stands here", where=find(), hint=_REMEDY)
    for name, value in subject.spec.environment_variables:
        kind = secret_in(value) or secret_in(name)
        if kind is None and secret_variable(name, value):
            kind = "a value that by its name is secret"
        if kind is not None:
            shown = name if secret_in(name) is None else "an environment variable"
            yield Doubt(
                message=f"{shown} holds {kind}, and an image shows its variables to everybody",
                where=subject.places.variable(name) if shown == name else subject.places.whole,
                hint=_REMEDY,
            )


def example(subject: Subject) -> Iterator[Doubt]:
    if any(name == "EXAMPLE_ENV_VAR" for name, _ in subject.spec.environment_variables):
        yield Doubt(
            message="EXAMPLE_ENV_VAR is what Azure ML writes into every new environment",
            where=subject.places.variable("EXAMPLE_ENV_VAR"),
            hint="take it out; a variable more is another image",
        )


def overrides(subject: Subject) -> Iterator[Doubt]:
    for name, value in subject.spec.environment_variables:
        leads = name == "PATH" and value.split(":")[0] == f"{PREFIX}/bin"
        if name in _OVERRIDES and not leads:
            yield Doubt(
                message=f"{name} is set for all that runs in the image: {_OVERRIDES[name]}",
                where=subject.places.variable(name),
            )


def _texts(subject: Subject) -> Iterator[tuple[Callable[[], Place], str]]:
    """Every text of the spec but its variables, with what finds its place."""
    spec, places = subject.spec, subject.places

    def whole() -> Place:
        return places.whole

    for key in ("name", "version", "description"):
        yield partial(places.key, key), getattr(spec, key) or ""
    for name, value in spec.tags:
        path = ("tags",) if secret_in(name) else ("tags", name)
        yield partial(places.key, *path), f"{name} {value}"
    if isinstance(spec.base, ImageBaseSpec):
        reference = spec.base.reference.rpartition("@sha256:")[0] or spec.base.reference
        yield partial(places.key, "image"), reference if "://" in reference else f"docker://{reference}"
    for item in (*spec.pip.requirements, *spec.pip.constraints):
        yield partial(places.origin, item.origin), item.text
    yield from ((whole, option) for option in spec.pip.options)
    yield from ((whole, index.url) for index in spec.pip.indexes)
    if spec.conda is not None:
        yield from ((partial(places.conda, "channels"), channel) for channel in spec.conda.channels)
        yield from ((partial(places.dependency, text), text) for text in spec.conda.dependencies)
        yield from ((whole, package.url) for package in spec.conda.explicit)
    if spec.spark is not None:
        yield from ((partial(places.key, "spark"), address) for address in spec.spark.repositories)
    yield from ((whole, line) for line in spec.left_out)
