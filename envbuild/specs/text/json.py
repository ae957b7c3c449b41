"""A JSON file as nodes that remember their line, so that it is read as YAML files are."""

from __future__ import annotations

import json
import re

from envbuild.errors import SpecError
from envbuild.specs.text.document import Document, parse_document

# JSON writes a character beyond U+FFFF as two escapes; YAML takes each of them for a character.
_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})")
# Inside a JSON text they stand for themselves; to YAML they are no text, or the end of a line.
_NO_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def parse_json(text: str, file: str) -> Document:
    """The document in ``text``. Raises ``SpecError``: bad JSON with its line, and all that
    ``parse_document`` refuses."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(f"{file}:{error.lineno}: bad JSON: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise SpecError(f"{file}: bad JSON: it is nested too deep, or has too long a number") from error
    # Sound JSON has tabs between its values only, where YAML has none.
    plain = _PAIR.sub(lambda match: match[1] + json.loads(f'"{match[2]}"'), text.replace("\t", " "))
    return parse_document(_NO_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", plain), file)
