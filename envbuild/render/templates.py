"""Jinja templates of Dockerfiles: ours, and those a user puts in their place.

What a template writes is checked twice: every value is quoted by a filter for the place it stands in, or
else may hold only characters that mean nothing to a Dockerfile or a shell. So no spec can inject an
instruction, not even through a template that forgets a filter.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envbuild.errors import BuildError, UsageError
from envbuild.lazy import lazy
from envbuild.oci.digest import canonical_digest
from envbuild.resources import resource_directory

if TYPE_CHECKING:
    import jinja2
    import markupsafe
    from jinja2 import BaseLoader, Environment
    from jinja2 import meta as jinja2_meta
    from jinja2 import sandbox as jinja2_sandbox
else:
    jinja2 = lazy("jinja2")
    jinja2_meta = lazy("jinja2.meta")
    jinja2_sandbox = lazy("jinja2.sandbox")
    markupsafe = lazy("markupsafe")

SHIPPED = "envbuild"
"""A template of the user's own extends ours of the same name as ``envbuild/<name>``."""
_UNCHECKED = ("safe", "e", "escape", "forceescape", "tojson", "xmlattr", "urlize")
"""Filters of Jinja that call a value safe, for HTML. None of them is, here."""
_PLAIN = re.compile(r"[A-Za-z0-9_./:@+=~,%-]*")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")


def template_name(kind: str, runtime: str) -> str:
    """The file that renders environments of this type and runtime."""
    return f"{kind}-{runtime}.Dockerfile.j2"


class Templates:
    """The templates of one call. ``override`` is a directory whose files go before ours."""

    def __init__(self, override: Path | None = None) -> None:
        if override is not None and not override.is_dir():
            raise UsageError(f"the template directory {override} is not there")
        self._override = override
        self._shipped = resource_directory("templates")

    def digest(self, name: str) -> str:
        """Over the bytes of the template ``name`` and all that it names, directly or not."""
        environment = self._environment()
        sources: dict[str, str] = {}
        waiting = [name]
        while waiting:
            name = waiting.pop()
            if name not in sources:
                sources[name] = self._source(environment, name)
                waiting.extend(self._named(environment, name, sources[name]))
        return canonical_digest("templates", 1, sorted(sources.items()))

    def render(self, name: str, values: Mapping[str, object]) -> str:
        """The text that the template makes of ``values``. Raises ``BuildError`` with its file and line."""
        environment = self._environment()
        try:
            text = environment.get_template(name).render(values)
        except jinja2.TemplateNotFound as error:
            raise self._missing(error) from error
        except jinja2.TemplateSyntaxError as error:
            raise BuildError(f"template {error.name}:{error.lineno}: {error.message}") from error
        except jinja2.TemplateError as error:
            raise BuildError(f"template {name}: {error.message}") from error
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
            # What a template computes is its author's: 1/0, a range without end, an include of itself.
            raise BuildError(f"template {name}: {type(error).__name__}: {error}") from error
        # Blocks that are left out leave their blank lines behind.
        return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"

    def _named(self, environment: Environment, name: str, source: str) -> list[str]:
        try:
            named = list(jinja2_meta.find_referenced_templates(environment.parse(source)))
        except jinja2.TemplateSyntaxError as error:
            raise BuildError(f"template {name}:{error.lineno}: {error.message}") from error
        if None in named:
            raise BuildError(
                f"template {name}: names another template by an expression",
                hint="write the name itself, so that it is known which templates an image depends on",
            )
        return [template for template in named if template is not None]

    def _source(self, environment: Environment, name: str) -> str:
        loader = environment.loader
        assert loader is not None
        try:
            return loader.get_source(environment, name)[0]
        except jinja2.TemplateNotFound as error:
            raise self._missing(error) from error
        except UnicodeDecodeError as error:
            raise BuildError(f"template {name}: not UTF-8") from error

    def _missing(self, error: Exception) -> BuildError:
        where = f"{self._override} or {self._shipped}" if self._override else f"{self._shipped}"
        return BuildError(f"there is no template {error} in {where}", hint="docs/dockerfiles.md lists them")

    def _environment(self) -> Environment:
        shipped = jinja2.FileSystemLoader(self._shipped)
        loaders: list[BaseLoader] = [jinja2.PrefixLoader({SHIPPED: shipped}), shipped]
        if self._override is not None:
            loaders.insert(0, jinja2.FileSystemLoader(self._override))
        environment = jinja2_sandbox.ImmutableSandboxedEnvironment(
            loader=jinja2.ChoiceLoader(loaders),
            undefined=jinja2.StrictUndefined,
            # What isn't marked as quoted passes through ``finalize``; nothing is escaped as HTML.
            autoescape=True,
            finalize=_checked,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        for name in _UNCHECKED:
            environment.filters.pop(name, None)
        environment.filters.update(docker=docker_word, shell=shell_word, array=exec_form)
        return environment


def behind(value: str, variable: str) -> markupsafe.Markup:
    """``value``, a colon, and what the base has in ``variable``: the one word that is expanded."""
    return markupsafe.Markup(f'{docker_word(value)[:-1]}:${{{variable}}}"')


def docker_word(value: object) -> markupsafe.Markup:
    """``value`` as one double-quoted word of ENV or LABEL: nothing in it is expanded, unless it is such a
    word already."""
    if isinstance(value, markupsafe.Markup):
        return value
    text = str(value)
    unfit = unwritable(text)
    if unfit:
        raise BuildError(f"{text!r}: {unfit}")
    escaped = re.sub(r'([\\"$])', r"\\\1", text)
    return markupsafe.Markup(f'"{escaped}"')


def shell_word(value: object) -> markupsafe.Markup:
    """``value`` as one word of a ``RUN`` line in its shell form."""
    text = str(value)
    unfit = unwritable(text)
    if unfit:
        raise BuildError(f"{text!r}: {unfit}")
    return markupsafe.Markup(shlex.quote(text))


def exec_form(values: Iterable[object]) -> markupsafe.Markup:
    """``values`` as the JSON array of CMD, ENTRYPOINT or COPY."""
    return markupsafe.Markup(json.dumps([str(value) for value in values]))


def unwritable(text: str) -> str | None:
    """Why no Dockerfile can hold ``text``, or None."""
    match = _CONTROL.search(text)
    return f"a Dockerfile can't hold the character U+{ord(match[0]):04X}" if match else None


def _checked(value: Any) -> Any:
    """What an expression of a template gave: quoted, or plain enough to stand as it is."""
    if isinstance(value, (markupsafe.Markup, jinja2.Undefined)):
        return value
    text = str(value)
    if _PLAIN.fullmatch(text):
        return markupsafe.Markup(text)
    raise BuildError(
        f"a template writes {text!r} without quoting it",
        hint="use the filter docker (ENV, LABEL), shell (RUN) or array (CMD)",
    )
