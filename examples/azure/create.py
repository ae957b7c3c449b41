"""Create: an environment from each thing people have, as ``azureml.core.Environment`` makes them.

    python create.py [WORKSPACE]        a file of SQLite or a URL; default azure.db where you stand

Nothing is built and no network is used.
"""

from __future__ import annotations

import sys
from pathlib import Path

from envbuild import Environment, Workspace

HERE = Path(__file__).parent


def main(where: str) -> None:
    conda = Environment.from_conda_specification("sklearn-train", HERE / "environment.yml")
    # Azure ML replaces a python that it can't parse; here it stays as it is written.
    print(f"conda: {conda.spec.conda.dependencies[0] if conda.spec.conda else ''}")
    conda.environment_variables["OMP_NUM_THREADS"] = "4"
    conda.tags["team"] = "forecast"

    pip = Environment.from_pip_requirements("scoring", HERE / "requirements.txt", python="3.12")
    print(f"pip: {', '.join(requirement.text for requirement in pip.spec.pip.requirements)}")

    image = Environment.from_docker_image("as-it-is", "python:3.13-slim")
    image_and_pip = Environment.from_docker_image(
        "image-and-pip", "python:3.13-slim", pip_requirements=HERE / "use-requirements.txt"
    )
    context = Environment.from_docker_build_context("own-image", HERE / "image")
    v1 = Environment.load_from_directory(HERE / "v1")
    for line in v1.left_out:
        print(f"left out of v1: {line}")

    with Workspace.open(where) as workspace:
        for each in (conda, pip, image, image_and_pip, context, v1):
            registered = each.register(workspace)
            print(f"registered {registered.name}:{registered.version} ({registered.spec.type.value})")
        # The same definition is the same version, however often it is registered.
        print(f"again: {conda.register(workspace).version}")
        # Any change of the definition is a version of its own.
        conda.environment_variables["OMP_NUM_THREADS"] = "8"
        print(f"changed: {conda.register(workspace, labels=['candidate']).version}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "azure.db")
