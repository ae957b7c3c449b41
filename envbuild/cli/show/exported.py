"""A spec in some format, on stdout or in files; and what the format can't carry, on stderr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from envbuild.app.save import exported, save, write_file
from envbuild.cli.show.report import json_text
from envbuild.cli.show.text import printable
from envbuild.errors import PublishError, UsageError

if TYPE_CHECKING:
    from envbuild.cli.call import Call
    from envbuild.specs.model import Spec


def deliver(
    call: Call, spec: Spec, *, format: str, output: str | None, overwrite: bool, as_json: bool
) -> None:
    """Writes ``spec`` to stdout (``-`` too), or to ``output``: a file, or a directory that is there or ends
    in a slash.

    With ``as_json`` stdout gets one object with all files."""
    exported_spec = exported(spec, format)
    left_out = (*spec.left_out, *exported_spec.left_out)
    if output is None or output == "-":
        if len(exported_spec.files) > 1 and not as_json:
            names = ", ".join(name for name, _ in exported_spec.files)
            raise UsageError(f"{format} is several files: {names}", hint="name a directory with -o DIR/")
        if not as_json:
            call.stdout.write(exported_spec.files[0][1].decode())
        written: list[str] = []
    else:
        path = call.cwd / output
        if len(exported_spec.files) > 1 or output.endswith("/") or path.is_dir():
            left_out = (*spec.left_out, *save(spec, path, format=format, overwrite=overwrite))
            written = [str(path / name) for name, _ in exported_spec.files]
        else:
            if path.exists() and not overwrite:
                raise UsageError(f"{output} is there already", hint="--overwrite replaces it")
            try:
                write_file(path, exported_spec.files[0][1])
            except OSError as error:
                raise PublishError(f"can't write {output}: {error.strerror}") from error
            written = [str(path)]
        call.say(f"{printable(', '.join(_seen(call.cwd, file) for file in written))} written")
    if as_json:
        files = {name: data.decode() for name, data in exported_spec.files}
        call.out(
            json_text({"format": format, "files": files, "written": written, "left_out": list(left_out)})
        )
    for line in dict.fromkeys(left_out):
        call.say(f"left out: {printable(line)}")


def _seen(cwd: Path, file: str) -> str:
    path = Path(file)
    return path.relative_to(cwd).as_posix() if path.is_relative_to(cwd) else file
