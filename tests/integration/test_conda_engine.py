"""A conda environment built from its Dockerfile, against the same composed natively, python included."""

from __future__ import annotations

import os

import pytest

from tests.fakes.channel import serve
from tests.integration.driver import Machine
from tests.integration.parity import config, differences, docker, members, packages
from tests.integration.test_conda_image import (
    PIP,
    WHOLE,
    Channel,
    channel,
    environment,
    machine,
    run,
    write,
)

pytestmark = [pytest.mark.engine, pytest.mark.network]
__all__ = ["channel", "machine"]

CONDA_META = """
import glob, json
for path in sorted(glob.glob("/opt/env/conda-meta/*.json")):
    record = json.load(open(path))
    print(record["name"], record["version"], record["build"], record["sha256"], record["url"])
"""


def conda_records(image: str) -> str:
    return docker("run", "--rm", "--network=host", image, "python", "-c", CONDA_META)


def test_same_packages_by_docker_and_by_buildkit(machine: Machine, channel: Channel) -> None:
    machine.env["DOCKER_HOST"] = os.environ["DOCKER_HOST"]
    with serve(channel.directory) as (url, _):
        spec = write(machine, "whole", environment(url, *WHOLE, pip=PIP))
        images = {}
        for engine in ("native", "docker", "buildx"):
            built = run(machine, "build", "--engine", engine, "--load", spec)
            images[engine] = built.reference
    native = images.pop("native")
    files, records = members(native), conda_records(native)
    assert len(records.splitlines()) == len(WHOLE) + 1
    for image in images.values():
        assert docker("run", "--rm", "--network=host", image, "greet") == "hello from /opt/env\n"
        assert conda_records(image) == records
        assert packages(image) == packages(native)
        assert config(image) == config(native)
        assert differences(files, members(image)).get("", []) == []
