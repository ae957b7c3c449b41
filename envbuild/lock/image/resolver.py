"""Turns an image's name into the digest of each platform, and finds out what it brings."""

from __future__ import annotations

import json
from pathlib import Path

from envbuild.errors import FetchError, ResolveError, UsageError
from envbuild.images.closure import for_platform
from envbuild.images.contents import image_source, read_image
from envbuild.images.sources.base import ImageSource, RegistrySource
from envbuild.lock.base import BaseRequest, ResolvedBase, Upgrade
from envbuild.lock.image.contents import ImageFacts, read_facts
from envbuild.lock.model import Base, ImageBase, PythonPin
from envbuild.oci.manifest import INDEXES
from envbuild.oci.reference import Reference, is_local
from envbuild.platforms import Platform
from envbuild.progress import Progress, Silent
from envbuild.registry.client import RegistryClient
from envbuild.specs.model import BaseSpec, ImageBaseSpec
from envbuild.store.content import Store

_FACTS_FORMAT = 2


class ImageResolver:
    """Bases from a registry, or from a layout or an archive; its path is relative to ``directory``."""

    name = "image"

    def __init__(
        self,
        store: Store,
        client: RegistryClient,
        progress: Progress | None = None,
        *,
        directory: Path | None = None,
    ) -> None:
        self._store = store
        self._client = client
        self._progress = progress or Silent()
        self._directory = directory or Path()

    def accepts(self, spec: BaseSpec) -> bool:
        return isinstance(spec, ImageBaseSpec)

    def resolve(self, request: BaseRequest) -> ResolvedBase:
        """``as_of`` can't be asked of a registry and is left to whoever chose the tag. Offline, what the
        present lock says is the only answer. Raises ``ResolveError``."""
        spec, platform, with_python = request.spec, request.platform, request.with_python
        if not isinstance(spec, ImageBaseSpec):
            raise ResolveError("not an image")
        try:
            reference = self._reference(spec.reference)
            kept = _kept_base(request.preferred, reference, spec.reference, request.upgrade)
            recorded = reference.tagged if reference else spec.reference
            if kept is not None and not with_python:
                return ResolvedBase(base=kept, python=None)
            if kept is None and request.offline and reference is not None:
                raise ResolveError(
                    f"{spec.reference}: no lock has its digest for {platform}, and this is an offline run",
                    hint="lock once without --offline",
                )
            source = self._source(spec.reference, reference)
            resolved = (
                self._resolve(source, recorded, platform, with_python)
                if kept is None
                else self._keep_base(source, kept, platform)
            )
        except FetchError as error:
            raise ResolveError(f"base image {error.message}", hint=error.hint) from error
        except UsageError as error:
            raise ResolveError(error.message, hint=error.hint) from error
        if resolved.python is None and with_python and not request.python_optional:
            raise _no_python(recorded)
        return resolved

    def _reference(self, text: str) -> Reference | None:
        return None if is_local(text) else Reference.parse(text)

    def _source(self, text: str, reference: Reference | None) -> ImageSource:
        if reference is not None:
            return RegistrySource(reference, self._client)
        return image_source(text, self._store, self._client, self._directory)

    def _resolve(
        self, source: ImageSource, recorded: str, platform: Platform, with_python: bool
    ) -> ResolvedBase:
        top = source.manifest()
        index = top.digest if top.media_type in INDEXES else None
        manifest = for_platform(source, platform, top)
        if isinstance(manifest, tuple):
            raise ResolveError(
                f"{source.what} has no image for {platform}, only for {', '.join(manifest) or 'none'}",
                hint="choose another image, or platforms among those",
            )
        contents = read_image(source, manifest.digest, self._store, platform=platform, layers=False)
        image_facts = self._facts(source, manifest.digest, platform)
        return ResolvedBase(
            base=ImageBase(
                reference=recorded,
                digest=manifest.digest,
                index_digest=index,
                glibc=image_facts.glibc,
                layers=len(contents.layers),
                diff_ids=contents.diff_ids,
            ),
            python=image_facts.python if with_python else None,
            prefix=image_facts.prefix,
        )

    def _keep_base(self, source: ImageSource, base: ImageBase, platform: Platform) -> ResolvedBase:
        """The base of the present lock with its python."""
        known = self._facts(source, base.digest, platform)
        return ResolvedBase(base=base, python=known.python, prefix=known.prefix)

    def _facts(self, source: ImageSource, digest: str, platform: Platform) -> ImageFacts:
        """What the image brings, kept by its digest: reading all layers takes a while."""
        file = self._store.directory("metadata/images") / f"{digest.removeprefix('sha256:')}.json"
        known = _load_facts(file)
        if known is not None:
            return known
        with self._progress.stage("base image"):
            contents = read_image(source, digest, self._store, platform=platform)
            layers = [(self._store.blob(layer.digest), layer.media_type) for layer in contents.layers]
            seen = read_facts(layers, contents.config.settings)
        python = seen.python
        document = {
            "format": _FACTS_FORMAT,
            "glibc": seen.glibc,
            "python": [python.version, python.executable] if python else None,
            "prefix": seen.prefix,
        }
        with self._store.scratch() as scratch:
            (scratch / "facts").write_text(json.dumps(document))
            (scratch / "facts").replace(file)
        return seen


def _kept_base(
    preferred: Base | None, reference: Reference | None, text: str, upgrade: Upgrade
) -> ImageBase | None:
    """The base of the present lock, where it still answers the spec and may stay."""
    if not isinstance(preferred, ImageBase):
        return None
    names = {"base", text} if reference is None else {"base", text, reference.tagged, reference.familiar}
    if any(upgrade.allows(name) for name in names):
        return None
    if preferred.reference != (reference.tagged if reference else text):
        return None
    if reference is not None and reference.digest not in (None, preferred.digest, preferred.index_digest):
        return None
    return preferred


def _load_facts(file: Path) -> ImageFacts | None:
    try:
        document = json.loads(file.read_bytes())
        if document["format"] != _FACTS_FORMAT:
            return None
        glibc, python = document["glibc"], document["python"]
        pin = PythonPin(version=python[0], provider="image", executable=python[1]) if python else None
        prefix = tuple(map(str, document["prefix"]))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return ImageFacts(glibc=glibc, python=pin, prefix=prefix)


def _no_python(recorded: str) -> ResolveError:
    return ResolveError(
        f"no python was found in {recorded} (/usr/local/bin, /usr/bin, /opt/conda/bin)",
        hint="choose an image that has one, or add a conda python to the spec",
    )
