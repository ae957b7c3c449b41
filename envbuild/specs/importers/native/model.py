"""The keys of envbuild's own YAML, a superset of Azure ML's v2 environment, and what each may hold.

Only these models know the keys; ``envbuild.specs.importers.native.reader`` turns them into a :class:`Spec`,
and :func:`json_schema` into the JSON Schema. Input is nodes (``envbuild.specs.text.document``) or plain
values.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from envbuild.oci.reference import is_local
from envbuild.redact import redact
from envbuild.specs import fields
from envbuild.specs.fields import refuse_credential
from envbuild.specs.problems import Refused
from envbuild.specs.text.document import Scalar

# An unquoted 3.11 is a number to an editor; envbuild reads the text that was written.
_TEXT_TYPES = ["string", "number"]
_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::[0-9]+)?/|\[[0-9a-fA-F:]+\](?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


def _error(what: str, remedy: str | None = None) -> PydanticCustomError:
    return PydanticCustomError("envbuild", "{text}", {"text": what + (f"; {remedy}" if remedy else "")})


def _kind(value: object) -> str:
    if isinstance(value, Scalar):
        return "empty" if value.kind == "null" else repr(value.text)
    return {dict: "a mapping", list: "a list", type(None): "empty"}.get(type(value), repr(value))


def _text(value: object) -> str:
    if isinstance(value, Scalar) and value.kind != "null":
        return value.text
    if isinstance(value, str):
        return value
    raise _error(f"must be text, is {_kind(value)}")


def _checked(check: Callable[[str], str]) -> BeforeValidator:
    def validate(value: object) -> str:
        try:
            return check(_text(value).strip())
        except Refused as refused:
            raise _error(refused.what, refused.remedy) from refused

    return BeforeValidator(validate)


def _integer(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, Scalar) and value.kind == "int":
        return int(value.text)
    raise _error(f"must be a whole number, is {_kind(value)}")


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, Scalar) and value.kind == "bool":
        return value.text.lower() == "true"
    raise _error(f"must be true or false, is {_kind(value)}")


def _date(value: object) -> date:
    if type(value) is date:
        return value
    text = _text(value)
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise _error(f"{text!r} is no date", "write YYYY-MM-DD")


def _image(text: str) -> str:
    if is_local(text):
        if text.endswith(":") or re.search(r"[\s\0]", text):
            remedy = "write oci:DIR, oci-archive:FILE or docker-archive:FILE, and :NAME where it has several"
            raise Refused(f"{redact(text)!r} names no image on this machine", remedy)
        return text
    if "://" in text or re.search(r"@(?!sha256:)", text):
        refuse_credential(text if "://" in text else f"//{text}")
        raise Refused(f"{redact(text)!r} is no image", "write registry/repository:tag, without a scheme")
    if _IMAGE.fullmatch(text) is None:
        raise Refused(
            f"{redact(text)!r} is no image",
            "write registry/repository:tag, all of the repository in lower case",
        )
    return text


def _suite(text: str) -> str:
    if re.fullmatch(r"[a-z][a-z0-9-]{1,40}", text) is None:
        raise Refused(f"{text!r} is no Debian release", "write its code name, e.g. trixie")
    return text


def _maven(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_.\-]+", text) is None:
        raise Refused(f"{text!r} is no part of a Maven coordinate")
    return text


def _repository(text: str) -> str:
    refuse_credential(text)
    if re.match(r"(?:https?|file)://\S+$", text) is None:
        raise Refused(f"{redact(text)!r} is no address of a Maven repository")
    return text


def _route_path(text: str) -> str:
    if not text.startswith("/") or re.search(r"\s", text):
        raise Refused(f"{text!r} is no path of a route", "it begins with '/'")
    return text


def _dockerfile(text: str) -> str:
    if not text or text.startswith("/") or ".." in text.split("/") or "\0" in text:
        raise Refused(f"{text!r} is no path inside the build context")
    return text


def _context(text: str) -> str:
    if "://" in text or text.startswith(("azureml:", "git@")):
        raise Refused(
            f"{redact(text)!r} is not a local directory", "clone it beside the spec and name the clone"
        )
    if not text or text.startswith(("/", "~")) or "\0" in text:
        raise Refused(f"{text!r} is no path of a build context", "write it relative to this file")
    return text


def _version(text: str) -> str:
    if re.fullmatch(fields.VERSION_PATTERN, text) is None:
        raise Refused(f"{text!r} is no version", "letters, digits, '.', '_' or '-'")
    return text


def _path_or_mapping(value: object) -> object:
    if isinstance(value, dict):
        return value
    if isinstance(value, Scalar) and value.kind != "null":
        return value.text
    if isinstance(value, str):
        return value
    raise _error(f"must be the path of a conda file or a mapping, is {_kind(value)}")


def _path_or_lines(value: object) -> object:
    if isinstance(value, list):
        return [_text(item) for item in value]
    if isinstance(value, Scalar) and value.kind != "null":
        return value.text
    if isinstance(value, str):
        return value
    raise _error(f"must be the path of a requirements file or a list of lines, is {_kind(value)}")


def _variables(value: object) -> object:
    if isinstance(value, dict):
        for name in value:
            try:
                fields.variable_name(name)
            except Refused as refused:
                raise _error(refused.what, refused.remedy) from refused
    return value


def _string(pattern: str | None = None, *, numbers: bool = False, **more: object) -> WithJsonSchema:
    schema: dict[str, Any] = {"type": _TEXT_TYPES if numbers else "string", **more}
    if pattern is not None:
        schema["pattern"] = f"^(?:{pattern})$"
    return WithJsonSchema(schema)


def _by_platform(check: Callable[[str], str]) -> Callable[[object], dict[str, str]]:
    """Reads one value for all platforms, by the key ``""``, or a mapping of platforms to values."""

    def read(value: object) -> dict[str, str]:
        values = value if isinstance(value, dict) else {"": value}
        checked = {}
        for platform, item in values.items():
            try:
                names = fields.platforms([str(platform)]) if platform else ()
                checked["".join(map(str, names))] = check(_text(item))
            except Refused as refused:
                raise _error(refused.what, refused.remedy) from refused
        return checked

    return read


def _number(text: str) -> str:
    if re.fullmatch(r"\d{1,4}(\.\d{1,4}){0,3}", text) is None:
        raise Refused(f"{text!r} is no version", 'write a number in quotes, "12.9"')
    return text


def _microarchitecture(text: str) -> str:
    if re.fullmatch(r"[a-z][a-z0-9_.-]{0,40}", text) is None:
        raise Refused(f"{text!r} is no microarchitecture", "write its name in archspec: x86_64_v3")
    return text


def _for_platforms(example: str) -> WithJsonSchema:
    one: dict[str, Any] = {"type": _TEXT_TYPES, "examples": [example]}
    return WithJsonSchema({"anyOf": [one, {"type": "object", "additionalProperties": one}]})


Text = Annotated[str, BeforeValidator(_text), WithJsonSchema({"type": [*_TEXT_TYPES, "boolean"]})]
Flag = Annotated[bool, BeforeValidator(_flag)]
Port = Annotated[int, BeforeValidator(_integer), Field(ge=1, le=65535)]
Line = Annotated[str, BeforeValidator(_text), _string()]
PlatformName = Annotated[
    str,
    BeforeValidator(_text),
    WithJsonSchema(
        {"type": "string", "examples": ["linux/amd64", "linux/arm64", "linux-64", "linux-aarch64"]}
    ),
]
SpecName = Annotated[str, _checked(fields.name), _string(fields.NAME_PATTERN, numbers=True)]
Version = Annotated[str, _checked(_version), _string(numbers=True)]
Python = Annotated[str, _checked(fields.python), _string(numbers=True, examples=["3.11", ">=3.10,<3.13"])]
User = Annotated[str, _checked(fields.user), _string(fields.USER_PATTERN, numbers=True)]
Image = Annotated[
    str, _checked(_image), _string(examples=["docker.io/library/debian:trixie-slim", "oci:layout"])
]
Suite = Annotated[str, _checked(_suite), _string(examples=["trixie", "bookworm"])]
DebianPackage = Annotated[str, _checked(fields.debian_package), _string()]
MavenPart = Annotated[str, _checked(_maven), _string(numbers=True)]
Repository = Annotated[str, _checked(_repository), _string(format="uri")]
RoutePath = Annotated[str, _checked(_route_path), _string("/.*")]
ContextPath = Annotated[str, _checked(_context), _string()]
DockerfilePath = Annotated[str, _checked(_dockerfile), _string()]
Date = Annotated[date, BeforeValidator(_date), _string(format="date")]
SystemVersion = Annotated[dict[str, str], BeforeValidator(_by_platform(_number)), _for_platforms("12.9")]
Microarchitecture = Annotated[
    dict[str, str], BeforeValidator(_by_platform(_microarchitecture)), _for_platforms("x86_64_v3")
]
Type = Annotated[Literal["system-managed", "user-managed", "curated"], BeforeValidator(_text)]
ActivationName = Annotated[Literal["run", "ignore"], BeforeValidator(_text)]
ClashesName = Annotated[Literal["warn", "error"], BeforeValidator(_text)]
BytecodeName = Annotated[Literal["checked", "unchecked"], BeforeValidator(_text)]
ProviderName = Annotated[Literal["base", "standalone", "conda"], BeforeValidator(_text)]
RuntimeName = Annotated[Literal["python", "spark", "docker"], BeforeValidator(_text)]
IndexStrategy = Annotated[Literal["first-index", "unsafe-best-match"], BeforeValidator(_text)]
System = Annotated[str, BeforeValidator(_text), WithJsonSchema({"enum": ["linux", "Linux"]})]
_CONDA_KEYS: dict[str, Any] = {
    "name": {"type": "string"},
    "channels": {"type": "array", "items": {"type": "string"}, "description": "In order of priority."},
    "dependencies": {
        "type": "array",
        "items": {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"pip": {"type": ["array", "null"], "items": {"type": "string"}}},
                    "additionalProperties": False,
                },
            ]
        },
    },
    "variables": {"type": "object", "additionalProperties": {"type": [*_TEXT_TYPES, "boolean"]}},
    "platforms": {"type": "array", "items": {"type": "string"}},
    "prefix": {"type": "string", "description": "Ignored."},
    "category": {"type": "string", "description": "Ignored."},
    "explicit": {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "string"}},
        "description": "In place of dependencies: exact packages for each platform, URL#sha256:HEX.",
    },
}
CondaFileField = Annotated[
    object,
    BeforeValidator(_path_or_mapping),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object", "properties": _CONDA_KEYS, "additionalProperties": False},
            ]
        }
    ),
]
RequirementsField = Annotated[
    object,
    BeforeValidator(_path_or_lines),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class Strict(BaseModel):
    """A mapping whose keys are all known; a key with nothing behind it counts as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: object) -> object:
        if not isinstance(data, dict):
            raise _error(f"must be a mapping, is {_kind(data)}")
        known = known_keys(cls)
        empty = {k for k, v in data.items() if k in known and isinstance(v, Scalar) and v.kind == "null"}
        return {key: value for key, value in data.items() if key not in empty}


def known_keys(model: type[BaseModel]) -> tuple[str, ...]:
    """The keys of a model as people write them."""
    return tuple(field.alias or name for name, field in model.model_fields.items())


class RouteModel(Strict):
    path: RoutePath
    port: Port


class InferenceModel(Strict):
    liveness_route: RouteModel
    readiness_route: RouteModel
    scoring_route: RouteModel


class DebianModel(Strict):
    debian: Suite | None = Field(
        None, description="Code name of the release; the python pin decides otherwise."
    )
    packages: list[DebianPackage] = Field([], description="Debian packages on top of what the base needs.")


class BuildModel(Strict):
    path: ContextPath = Field(description="The build context, relative to this file.")
    dockerfile_path: DockerfilePath = Field("Dockerfile", description="Relative to the build context.")


class MavenModel(Strict):
    group: MavenPart
    artifact: MavenPart
    version: MavenPart


class SparkModel(Strict):
    packages: list[MavenModel] = []
    repositories: list[Repository] = []
    precache_packages: Flag = True


class SystemModel(Strict):
    """What the machines that run the image have, for conda; one version, or one for each platform."""

    cuda: SystemVersion | None = None
    glibc: SystemVersion | None = None
    linux: SystemVersion | None = None
    archspec: Microarchitecture | None = None


class IndexModel(Strict):
    name: Text | None = Field(
        None, description="Its login is in the variables UV_INDEX_<NAME>_USERNAME and …_PASSWORD."
    )
    url: Text
    packages: list[Text] = Field(
        [],
        description="Names of requirements, each perhaps with a marker; they come from no other index, and "
        "nothing else is looked for there. Default: it is one more index of all packages.",
    )


class NativeModel(Strict):
    """An environment of envbuild; Azure ML v2 environment files are valid too."""

    schema_: Text | None = Field(None, alias="$schema", description="Ignored.")
    name: SpecName | None = Field(None, description="Default: the file's or its directory's name.")
    version: Version | None = Field(None, description="Assigned on register where it is left out.")
    description: Text | None = None
    tags: dict[str, Text] = Field({}, description="Never changes the image.")
    properties: dict[str, Any] = Field({}, description="Of Azure ML; ignored.")
    datastore: Text | None = Field(None, description="Of Azure ML; ignored.")
    type: Type | None = Field(
        None,
        description="system-managed: envbuild resolves and installs everything (default). user-managed: the "
        "image or the Dockerfile is taken as it is (default for build, and for an image with nothing to "
        "install).",
    )
    runtime: RuntimeName = Field("python", description="What the environment is for.")
    platforms: list[PlatformName] = Field(
        [], description="Default: linux/amd64. Conda's spelling (linux-64) is accepted.", min_length=0
    )
    python: Python | None = Field(None, description="Default: the conda pin or the base decides.")
    python_provider: ProviderName | None = Field(
        None,
        description="Who brings python. Default: conda where there are conda packages, else the base where "
        "its python fits, else a standalone build below /opt/python.",
    )
    image: Image | None = Field(
        None,
        description="A remote image, or oci:DIR, oci-archive:FILE, docker-archive:FILE; excludes "
        "base and build.",
    )
    base: DebianModel | None = Field(None, description="A base composed from pinned Debian packages.")
    build: BuildModel | None = Field(None, description="Your own Dockerfile; excludes image and base.")
    conda_file: CondaFileField | None = Field(None, description="Path of a conda file, or its content.")
    requirements: RequirementsField | None = Field(
        None, description="Path of a requirements file, or its lines."
    )
    constraints: RequirementsField | None = Field(
        None,
        description="Path of a constraints file, or its lines: versions of what something else asks for.",
    )
    build_constraints: RequirementsField | None = Field(
        None,
        description="Path of a constraints file, or its lines: versions of what builds source distributions.",
    )
    extra_build_dependencies: dict[str, list[Line]] = Field(
        {}, description="What the build of a source distribution needs and doesn't state, by its name."
    )
    requirements_complete: Flag = Field(
        False, description="The requirements are pins of a lock and all there is: nothing is added to them."
    )
    index_strategy: IndexStrategy | None = Field(
        None,
        description="What counts where several indexes have a name: the first that has it at all, or the "
        "best version of all of them (default, as in pip).",
    )
    indexes: list[IndexModel] = Field([], description="Indexes that have a name, or are of single packages.")
    environment_variables: Annotated[dict[str, Text], BeforeValidator(_variables)] = Field(
        {}, json_schema_extra={"propertyNames": {"pattern": f"^{fields.VARIABLE_PATTERN}$"}}
    )
    spark: SparkModel | None = None
    inference_config: InferenceModel | None = Field(None, description="All three routes or none.")
    user: User | None = Field(
        None,
        description="uid:gid in numbers. Default: 1000:1000; the image's own where it is user-managed.",
    )
    add_pip_as_python_dependency: Flag = Field(
        True, description="pip is installed where conda installs python, as conda and mamba do."
    )
    system_requirements: SystemModel | None = Field(
        None,
        description="What packages of conda may expect of the machines that run the image. Default: the "
        "glibc of the base, and no GPU.",
    )
    as_of: Date | None = Field(None, description="No artifact newer than this day, across conda and pip.")
    activation: ActivationName = Field(
        "run",
        description="Scripts of conda packages that are sourced when an environment is activated: run once, "
        "for the variables of the image, or ignored.",
    )
    clashes: ClashesName = Field(
        "warn",
        description="Where packages bring different files under one path: keep the later one and say so, or "
        "refuse.",
    )
    bytecode: BytecodeName = Field(
        "checked",
        description="Whether byte code notices a source that is patched later; unchecked imports a little "
        "faster.",
    )
    os_type: System = Field("linux", description="Linux only.")


_NO_TWO_BASES = [
    {"required": [first, second]}
    for first, second in (("image", "base"), ("image", "build"), ("base", "build"))
]


def json_schema() -> dict[str, object]:
    """The schema (2020-12), generated from the models that read the file; unquoted versions are valid."""
    generated = NativeModel.model_json_schema(by_alias=True)
    schema: dict[str, object] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **generated,
        "title": "envbuild environment",
        "not": {"anyOf": _NO_TWO_BASES},
    }
    return schema
