"""The JSON Schema of the native YAML, for editors and for ``envbuild schema``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from envbuild.lazy import lazy

if TYPE_CHECKING:
    from envbuild.specs.importers.native import model as native_model
else:
    native_model = lazy("envbuild.specs.importers.native.model")

_NO_TWO_BASES = [
    {"required": [first, second]}
    for first, second in (("image", "base"), ("image", "build"), ("base", "build"))
]


def json_schema() -> dict[str, object]:
    """The schema (2020-12), generated from the models that read the file; unquoted versions are valid."""
    generated = native_model.NativeModel.model_json_schema(by_alias=True)
    schema: dict[str, object] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **generated,
        "title": "envbuild environment",
        "not": {"anyOf": _NO_TWO_BASES},
    }
    return schema
