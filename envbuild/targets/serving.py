"""A serving image: an environment's image, on it a layer of the entry script's code, and one of a model."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from envbuild.compose.base import Entry
from envbuild.errors import SpecError
from envbuild.oci.image import Image
from envbuild.resources import resource_directory
from envbuild.run.command import image_config, numeric_user
from envbuild.specs.context import read_code, read_model
from envbuild.store.content import Store
from envbuild.targets.base import MODEL_DIRECTORY
from envbuild.targets.code import CODE_LABEL, LAYER_NAME, LayerContents, add_layers

APP_ROOT = MODEL_DIRECTORY.parent
SOURCE = "service"
"""The directory of the code, below ``APP_ROOT``: as on Azure ML, modules in it can be imported."""
MODEL_LABEL = "dev.envbuild.model"
"""Label and annotation: digest of the model's paths, modes and contents."""
MODEL_RUN_LABEL = "dev.envbuild.model.run"
"""Label and annotation: the run that wrote the model, where its directory says so."""
ENTRY_LABEL = "dev.envbuild.entry-script"
RUN_VARIABLE, IMAGE_VARIABLE, HOST_VARIABLE = "ENVBUILD_RUN", "ENVBUILD_IMAGE", "ENVBUILD_HOST"
RUN_HEADER = "x-envbuild-run"
STOP_SECONDS = 30
"""How long a request in flight may take once the service is to stop."""
_COMMAND = "azmlinfsrv"
_LARGEST = 1 << 20
_USER = "1000:1000"
"""Who serves where the image would be root's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryScript:
    """A script that can serve, as far as its text tells."""

    code: Path
    """The directory that goes into the image."""
    path: PurePosixPath
    """Of the script, below ``code``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServingImage:
    """An image that answers. ``size`` is that of its layers on top, compressed, in bytes."""

    image: Image
    code_digest: str
    model_digest: str | None
    size: int


def entry_script(script: Path, code: Path | None = None) -> EntryScript:
    """The script, looked at but never executed: it parses, and ``init()`` and ``run()`` are there at its top
    level. ``code`` is the directory it stands in, or one above. Raises ``SpecError`` with all problems."""
    directory = code if code is not None else script.parent
    if not directory.is_dir():
        raise SpecError(f"{directory} is no directory of code", hint="name one with --code")
    try:
        path = script.resolve().relative_to(directory.resolve())
    except ValueError:
        raise SpecError(
            f"the entry script {script} isn't in the code's directory {directory}",
            hint="name the directory it stands in with --code, or leave --code out",
        ) from None
    problems = list(_problems(script, _tree(script)))
    if problems:
        raise SpecError(
            problems[0],
            hint="it needs init(), called once, and run(data), for each request",
            problems=problems,
        )
    return EntryScript(code=directory, path=PurePosixPath(path.as_posix()))


def serving_image(
    base: Image,
    entry: EntryScript,
    model: Path | None,
    port: int,
    store: Store,
    *,
    model_run: str | None = None,
    left_out: Sequence[str] = (),
) -> ServingImage:
    """``base`` with the code, and the model where there is one, that starts the server on ``port``; the same
    files make the same bytes. ``left_out`` are names of files that are no part of the model. Raises
    ``SpecError`` for what can't be read, and for a model that holds nothing."""
    config = image_config(base, store)
    variables = {
        "AML_APP_ROOT": str(APP_ROOT),
        "AZUREML_APP_ROOT": str(APP_ROOT),
        "AZUREML_SOURCE_DIRECTORY": SOURCE,
        "AZUREML_ENTRY_SCRIPT": f"{SOURCE}/{entry.path}",
        "PYTHONUNBUFFERED": "1",
    }
    settings: dict[str, Any] = {
        "WorkingDir": str(APP_ROOT),
        "Cmd": [_COMMAND, "--entry_script", f"{SOURCE}/{entry.path}", "--port", str(port)],
        "Entrypoint": None,
        "ExposedPorts": {f"{port}/tcp": {}},
        "StopSignal": "SIGTERM",
    }
    if numeric_user(config)[0] == 0:
        settings["User"] = _USER
        variables["HOME"] = "/tmp"
    labels = {ENTRY_LABEL: str(entry.path)}
    with store.scratch() as scratch:
        trees = []
        (scratch / "code").mkdir()
        code = read_code(entry.code, copies=scratch / "code")
        if not any(file.path == str(entry.path) for file in code.entries):
            raise SpecError(
                f"{entry.path} is left out of the code by an .amlignore or .gitignore, or is no file there",
                hint="the entry script has to be a file in the code's directory that nothing leaves out",
            )
        gunicorn = server_settings()
        settings_file = Entry(path=_inside(APP_ROOT / gunicorn.name), content=gunicorn.read_bytes())
        below = APP_ROOT / SOURCE
        trees.append(
            LayerContents(
                name=LAYER_NAME,
                contents=code,
                copies=scratch / "code",
                below=below,
                written=(settings_file,),
            )
        )
        labels[CODE_LABEL] = code.digest
        digest = None
        if model is not None:
            (scratch / "model").mkdir()
            contents = read_model(model, copies=scratch / "model", without=left_out)
            if all(entry.directory for entry in contents.entries):
                raise SpecError(f"the model directory {model} is empty", hint="train the model first")
            digest = labels[MODEL_LABEL] = contents.digest
            trees.append(
                LayerContents(
                    name="model", contents=contents, copies=scratch / "model", below=MODEL_DIRECTORY
                )
            )
            variables["AZUREML_MODEL_DIR"] = str(MODEL_DIRECTORY)
            if model_run is not None:
                labels[MODEL_RUN_LABEL] = model_run
        settings["Env"] = [f"{name}={value}" for name, value in sorted(variables.items())]
        made = add_layers(base, trees, settings, labels, store)
    return ServingImage(
        image=made,
        code_digest=code.digest,
        model_digest=digest,
        size=sum(layer.size for layer in made.layers[len(base.layers) :]),
    )


def server_settings() -> Path:
    """What gunicorn, which the server starts, reads from the directory that it is started in."""
    return resource_directory("templates") / "serving" / "gunicorn.conf.py"


def serving_command(image: Image, port: int, store: Store) -> tuple[str, ...]:
    """The command of a serving image, for another port than its own: the last one given counts."""
    own = image_config(image, store).get("Cmd") or ()
    return (*map(str, own), "--port", str(port))


def _inside(path: PurePosixPath) -> str:
    return str(path).lstrip("/")


# --- the look at the script ---------------------------------------------------------------------------


def _tree(script: Path) -> ast.Module:
    try:
        with script.open("rb") as file:
            source = file.read(_LARGEST + 1)
    except OSError as error:
        raise SpecError(
            f"the entry script {script} can't be read: {error.strerror}", hint="name it with --entry-script"
        ) from error
    if len(source) > _LARGEST:
        raise SpecError(f"the entry script {script} is larger than {_LARGEST >> 20} MiB")
    try:
        return ast.parse(source, script.name)
    except SyntaxError as error:
        where = f":{error.lineno}" if error.lineno else ""
        raise SpecError(
            f"{script}{where}: {error.msg}",
            hint=f"it was read as Python {sys.version_info.major}.{sys.version_info.minor} reads it",
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"{script}: is no Python that can be read: {error}") from error


def _problems(script: Path, tree: ast.Module) -> Iterator[str]:
    defined = dict(_defined(tree.body))
    if "*" in defined:
        return  # Whatever it brings: only executing it would tell.
    for name in ("init", "run"):
        if name not in defined:
            yield f"{script}: defines no {name}()"
    init, run = defined.get("init"), defined.get("run")
    for function in (init, run):
        if isinstance(function, ast.AsyncFunctionDef):
            yield f"{script}:{function.lineno}: {function.name}() is async, and the server doesn't await it"
    if isinstance(run, ast.FunctionDef) and not run.decorator_list:
        given = run.args
        if given.posonlyargs or given.vararg or given.kwarg:
            yield f"{script}:{run.lineno}: run() can't take *args, **kwargs or positional-only arguments"
        elif all(argument.arg == "request_headers" for argument in (*given.args, *given.kwonlyargs)):
            yield f"{script}:{run.lineno}: run() takes no argument for the data of a request"


def _defined(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """The names that statements of the top level give something to, the last one last."""
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield statement.name, statement
            case ast.Assign():
                for target in statement.targets:
                    yield from (
                        (node.id, statement) for node in ast.walk(target) if isinstance(node, ast.Name)
                    )
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                yield name, statement
            case ast.Import() | ast.ImportFrom():
                for alias in statement.names:
                    yield alias.asname or alias.name.split(".")[0], statement
            case ast.If() | ast.For() | ast.While():
                yield from _defined([*statement.body, *statement.orelse])
            case ast.With():
                yield from _defined(statement.body)
            case ast.Try():
                handled = [inner for handler in statement.handlers for inner in handler.body]
                yield from _defined([*statement.body, *handled, *statement.orelse, *statement.finalbody])
