"""What ``envbuild import`` reads: every importer's source, the active environment, an existing image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from envbuild.app import sources
from envbuild.app.environments import VersionReference
from envbuild.app.session import Session
from envbuild.app.specs import find_spec
from envbuild.errors import FetchError, ResolveError
from envbuild.images.closure import for_platform
from envbuild.images.contents import image_source, read_image
from envbuild.lock.image.describe import describe_image
from envbuild.lock.image.inventory import read_inventory
from envbuild.platforms import Platform
from envbuild.specs.model import Spec

IMAGE = "image:"
ACTIVE = "venv"


def read_source(
    session: Session, source: str, *, name: str | None = None, platform: Platform | None = None
) -> Spec:
    """The spec that ``source`` says; ``Spec.left_out`` has what it couldn't carry.

    Raises ``SpecError``, and ``ResolveError`` for an image that can't be had."""
    if source.startswith(IMAGE):
        reference = source.removeprefix(IMAGE)
        return _renamed(_describe(session, reference, platform or Platform.host()), name)
    if source == ACTIVE and not Path(source).exists():
        spec = sources.file(sources.virtual_environment(session.environ))
    elif not Path(source).exists() and VersionReference.of(source) is not None:
        spec = find_spec(session, source)
    else:
        spec = sources.file(Path(source))
    return _renamed(spec, name)


def _renamed(spec: Spec, name: str | None) -> Spec:
    return sources.checked(replace(spec, name=name)) if name is not None else spec


def _describe(session: Session, reference: str, platform: Platform) -> Spec:
    """An existing image as a spec: what is installed in it, as exact as its records say.

    Raises ``ResolveError`` where it can't be had, ``SpecError`` where nothing is known of what is inside."""
    try:
        source = image_source(reference, session.store, session.registry, Path())
        top = for_platform(source, platform, source.manifest())
        if isinstance(top, tuple):
            raise ResolveError(
                f"{reference} is not there for {platform}, only for {', '.join(top)}",
                hint="choose another with --platform",
            )
        contents = read_image(source, top.digest, session.store, platform=platform)
    except FetchError as error:
        raise ResolveError(error.message, hint=error.hint) from error
    layers = [(session.store.blob(layer.digest), layer.media_type) for layer in contents.layers]
    return describe_image(
        read_inventory(layers),
        contents.config.settings,
        platform,
        name=reference.rpartition("/")[2].partition("@")[0],
        source=Path.cwd() / "image.yaml",
    )
