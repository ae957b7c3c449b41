"""The commands of a wheel, as they stand in the image's ``bin``."""

from __future__ import annotations

import configparser
import re

from envbuild.errors import BuildError
from envbuild.specs.model import PREFIX

SHEBANG = f"#!{PREFIX}/bin/python"
_NAME = re.compile(r"[\w.+@-]+( [\w.+@-]+)*")
_VALUE = re.compile(r"(\w+(?:\.\w+)*)\s*:\s*(\w+(?:\.\w+)*)\s*(?:\[[^\]]*\])?\s*")
_SCRIPT = """{shebang}
# -*- coding: utf-8 -*-
import sys
from {module} import {first}
if __name__ == "__main__":
    sys.exit({attribute}())
"""


def entry_point_scripts(text: bytes | None, file: str) -> dict[str, bytes]:
    """Name to content of the commands that ``entry_points.txt`` asks for, sorted; none where there is no
    such file. Raises ``BuildError`` (with the wheel's ``file``) for what is no command or no safe name."""
    if text is None:
        return {}
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text.decode())
    except (configparser.Error, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise BuildError(f"{file}: its entry_points.txt can't be read: {reason}") from error
    found = {}
    for section in ("console_scripts", "gui_scripts"):
        if not parser.has_section(section):
            continue
        for name, value in parser.items(section):
            match = _VALUE.fullmatch(value.strip())
            if (
                match is None
                or _NAME.fullmatch(name) is None
                or name in (".", "..")
                or name.startswith(".wh.")
            ):
                raise BuildError(
                    f"{file}: its entry point {name!r} = {value!r} can't be made a command",
                    hint="the wheel is broken: pin another version",
                )
            module, attribute = match.groups()
            found[name] = _SCRIPT.format(
                shebang=SHEBANG, module=module, first=attribute.split(".")[0], attribute=attribute
            ).encode()
    return dict(sorted(found.items()))


def rewrite_shebang(content: bytes, installed: str) -> bytes:
    """``content`` with the image's interpreter where its first line is ``installed``, or is the form an
    installer writes when that line is too long for the kernel."""
    first, newline, rest = content.partition(b"\n")
    if first.rstrip(b"\r") == installed.encode():
        return SHEBANG.encode() + newline + rest
    executable = installed.removeprefix("#!")
    long = f"#!/bin/sh\n'''exec' '{executable}' \"$0\" \"$@\"\n' '''\n".encode()
    plain = long.replace(f"'{executable}'".encode(), executable.encode())
    for form in (long, plain):
        if content.startswith(form):
            return SHEBANG.encode() + b"\n" + content[len(form) :]
    return content
