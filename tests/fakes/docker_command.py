"""A ``docker`` on PATH that answers as a test says and writes down how it was called."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

INSPECT = """Name:          {name}
Driver:        {driver}
Last Activity: 2026-11-01 10:00:00 +0000 UTC

Nodes:
Name:             {name}0
Endpoint:         {endpoint}
Status:           running
BuildKit version: v0.13.2
Platforms:        linux/amd64, linux/amd64/v2, linux/386
"""

_PROGRAM = """#!{python} -IS
import json, os, sys
from pathlib import Path
home = Path({home!r})
answers = json.loads((home / "answers.json").read_text())
arguments = sys.argv[1:]
with (home / "calls").open("a") as file:
    file.write(json.dumps([arguments, dict(os.environ), os.getcwd()]) + "\\n")
for start, (status, out, error) in answers.items():
    if arguments[: len(start.split())] == start.split():
        sys.stdout.write(out)
        sys.stderr.write(error)
        sys.stdout.flush()
        sys.stderr.flush()
        script = home / "build.py"
        if "build" in arguments and "--file" in arguments and script.exists():
            exec(script.read_text())
        sys.exit(status)
sys.stderr.write("docker: unknown command\\n")
sys.exit(1)
"""


@dataclass
class DockerCommand:
    """Answers by the first words of the arguments: status, stdout, stderr. ``directory`` is for PATH."""

    directory: Path
    answers: dict[str, tuple[int, str, str]] = field(default_factory=dict)

    def write(self) -> DockerCommand:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "answers.json").write_text(json.dumps(self.answers))
        program = self.directory / "docker"
        program.write_text(_PROGRAM.format(python=sys.executable, home=str(self.directory)))
        program.chmod(0o755)
        return self

    def building(self, script: str) -> DockerCommand:
        """A build runs ``script`` after its answer, in the directory of the call."""
        (self.directory / "build.py").write_text(script)
        return self

    @property
    def path(self) -> str:
        return str(self.directory / "docker")

    def calls(self) -> list[list[str]]:
        return [arguments for arguments, _, _ in self.runs()]

    def runs(self) -> list[tuple[list[str], dict[str, str], str]]:
        """Arguments, environment and working directory of each call."""
        file = self.directory / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [tuple(json.loads(line)) for line in lines]


def with_buildx(
    directory: Path,
    driver: str,
    *,
    version: str = "github.com/docker/buildx v0.13.1 788433953af1",
    name: str = "default",
    endpoint: str = "default",
) -> DockerCommand:
    return DockerCommand(
        directory,
        {
            "buildx version": (0, version + "\n", ""),
            "buildx inspect": (0, INSPECT.format(name=name, driver=driver, endpoint=endpoint), ""),
            "buildx build": (0, "", ""),
            "network ls": (0, "bridge bridge\nhost host\nnone null\n", ""),
        },
    ).write()


def built_in(directory: Path, client: str = "20.10.24+dfsg1", server: str = "20.10.24") -> DockerCommand:
    return DockerCommand(
        directory,
        {
            "version": (
                0 if server else 1,
                f"{client}|{server}\n",
                "" if server else "Cannot connect to the Docker daemon at tcp://me:word@x.test:1.\n",
            ),
            "network ls": (0, "host host\nnone null\n", ""),
        },
    ).write()
