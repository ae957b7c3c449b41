"""What an image's config says about a process to be started in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from envbuild.errors import RunError
from envbuild.oci.image import Image
from envbuild.run.base import Command
from envbuild.store.content import Store

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NUMERIC = re.compile(r"([0-9]{1,9})(?::([0-9]{1,9}))?")


def image_config(image: Image, store: Store) -> Mapping[str, Any]:
    """The ``config`` object of the image's config (OCI image-spec, config). Raises ``RunError``."""
    try:
        found = json.loads(store.blob(image.config_digest).read_bytes()).get("config") or {}
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(
            f"the store lacks the config {image.config_digest}", hint="build the image again"
        ) from error
    if not isinstance(found, dict):
        raise RunError(f"the image config {image.config_digest} is damaged")
    return found


def numeric_user(config: Mapping[str, Any]) -> tuple[int, int]:
    """The image's user and group where it gives them as numbers; else root's."""
    match = _NUMERIC.fullmatch(str(config.get("User") or ""))
    if match is None:
        return 0, 0
    uid = int(match[1])
    return uid, int(match[2]) if match[2] is not None else uid


def argv(config: Mapping[str, Any], command: Command) -> list[str]:
    """Entry point and arguments; raises ``RunError`` where neither image nor caller names a command."""
    entrypoint = [str(each) for each in config.get("Entrypoint") or ()]
    arguments = list(command.arguments) or [str(each) for each in config.get("Cmd") or ()]
    if not entrypoint and not arguments:
        raise RunError("the image has no command of its own", hint="add one: envbuild run SPEC -- COMMAND")
    return [*entrypoint, *arguments]


def environment(config: Mapping[str, Any], command: Command) -> dict[str, str]:
    """The variables of the process: the image's, then the caller's. Nothing else of this machine's
    gets in but the defaults: ``PATH`` and ``HOME`` where nobody sets them."""
    found = {"PATH": _PATH, "HOME": "/tmp"}
    for line in config.get("Env") or ():
        name, _, value = str(line).partition("=")
        found[name] = value
    found.update(command.env)
    return found
