"""The list that pip installs from in a build: every distribution by one hash, and nothing else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from envbuild.errors import BuildError, LockError
from envbuild.lock.model import PipPin
from envbuild.lock.pip.requirements import dump_requirements, load_requirements

_HEADER = ("What pip installs in the image, each file by its hash; lock/ says who asked for it.",)
_HINT = "make the lock anew with: envbuild lock --upgrade"


def install_list(pins: Sequence[PipPin], *, carried: Collection[str] = ()) -> bytes:
    """A requirements file of ``pins``. Those whose file name is in ``carried`` lie in the context, so they
    are asked for by version, whatever address the lock has for them."""
    chosen = [replace(pin, via=(), sdist=None, url=None if pin.file in carried else pin.url) for pin in pins]
    text = dump_requirements(chosen, header=_HEADER)
    # A lock comes from elsewhere: what pip will read must be what was meant, line by line.
    try:
        read = [
            (requirement.name, requirement.version, requirement.sha256s, requirement.url)
            for requirement in load_requirements(text)
        ]
    except LockError as error:
        raise BuildError(error.message, hint=_HINT) from error
    meant = sorted((pin.name, None if pin.url else pin.version, (pin.sha256,), pin.url) for pin in chosen)
    if sorted(read, key=lambda each: each[0]) != meant:
        raise BuildError(
            "the lock has a Python distribution whose name, version or address is no such thing",
            hint=_HINT,
        )
    return text.encode()
