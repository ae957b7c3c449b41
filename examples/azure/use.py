"""Use: lock, build and run one environment here, with no cloud; then find it again by its image's digest.

python use.py [WORKSPACE]           packages come from your index and mirror
"""

from __future__ import annotations

import sys
from pathlib import Path

from envbuild import Environment, Workspace
from envbuild.app.environments import look_up

HERE = Path(__file__).parent


def main(where: str) -> int:
    environment = Environment.from_pip_requirements("use", HERE / "use-requirements.txt", python="3.13")
    environment.environment_variables["GREETING"] = "hello"
    with Workspace.open(where) as workspace:
        environment = environment.register(workspace)
        # From here on it is what the workspace has: another machine with the same workspace does the same.
        environment = Environment.get(workspace, "use", environment.version)
        image = environment.build(workspace)
        print(image.reference)
        (recorded,) = environment.get_image_details(workspace)
        print(f"recorded: {recorded.digest == image.digest}")
        found = look_up(workspace, image.digest)
        print(f"the image is of {found.versions[0].reference}, locked: {found.lock is not None}")
        # A training job is a command in the image, with this directory as its working directory.
        code = "import os, six; print(os.environ['GREETING'], six.__name__)"
        return environment.run("python", "-c", code, workspace=workspace)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "azure.db"))
