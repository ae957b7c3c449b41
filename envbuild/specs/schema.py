"""The JSON Schema of the native YAML, for editors and for ``envbuild schema``."""

from __future__ import annotations

_NO_TWO_BASES = [
    {"required": [first, second]}
    for first, second in (("image", "base"), ("image", "build"), ("base", "build"))
]


def json_schema() -> dict[str, object]:
    """The schema (2020-12), generated from the models that read the file; unquoted versions are valid."""
    from envbuild.specs.importers.native.model import NativeModel

    generated = NativeModel.model_json_schema(by_alias=True)
    schema: dict[str, object] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **generated,
        "title": "envbuild environment",
        "not": {"anyOf": _NO_TWO_BASES},
    }
    return schema
