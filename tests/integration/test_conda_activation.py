"""What conda would set when an environment is activated is in the image, and whoever starts it has it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fakes.channel import File, Package, index_channel, make_package
from tests.integration.driver import Machine, conda, needs_user_namespaces, shell_machine

pytestmark = [pytest.mark.slow, needs_user_namespaces()]


def scripted(name: str, text: str, *files: File, depends: tuple[str, ...] = ()) -> Package:
    script = File(path=f"etc/conda/activate.d/{name}-activate.sh", content=text.encode())
    return Package(name=name, noarch="generic", files=(script, *files), depends=depends)


PROJ = '[ -d "${CONDA_PREFIX}/share/proj" ] && export PROJ_DATA="${CONDA_PREFIX}/share/proj"\n'
PACKAGES = (
    scripted("proj", PROJ, File(path="share/proj/proj.db", content=b"x")),
    scripted(
        "gdal", "export GDAL_DATA=$CONDA_PREFIX/share/gdal PATH=$CONDA_PREFIX/gdal:$PATH\n", depends=("proj",)
    ),
    scripted("writer", "touch $CONDA_PREFIX/x && export WRITER=1\n"),
    Package(name="plain", noarch="generic", files=(File(path="share/plain", content=b"x"),)),
)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> object:
    root: Path = tmp_path_factory.mktemp("activation")
    for package in PACKAGES:
        make_package(package, root / "channel")
    url = index_channel(root / "channel", PACKAGES)
    with shell_machine(root) as machine:
        image = f"platforms: [linux/amd64]\nimage: {machine.env['REGISTRY']}/shell:1\n"
        for name, packages, more in (
            ("act", ("gdal", "writer"), ""),
            ("ignored", ("gdal", "writer"), "activation: ignore\n"),
            ("mine", ("gdal",), "environment_variables: {GDAL_DATA: /mine}\n"),
            ("plain", ("plain",), ""),
        ):
            machine.write(f"{name}.yaml", f"name: {name}\n{image}{conda(url, *packages)}{more}")
            assert machine.run("lock", f"{name}.yaml").status == 0
        yield machine


def variables(machine: Machine, spec: str) -> dict[str, str]:
    """What a command that is run in the environment has."""
    ended = machine.run("run", "--backend", "userns", "--progress", "none", spec, "--", "env")
    assert ended.status == 0, ended.stderr
    return dict(line.partition("=")[::2] for line in ended.stdout.splitlines())


def test_a_command_has_the_variables_and_everybody_is_told_which_package_set_them(machine: Machine) -> None:
    built = machine.run("build", "act.yaml", "-o", "oci:act")
    assert (
        "writer-activate.sh of writer is left out: it does more than set variables: touch: " in built.stderr
    )
    inside = variables(machine, "act.yaml")
    assert inside["PROJ_DATA"] == "/opt/env/share/proj"
    assert inside["GDAL_DATA"] == "/opt/env/share/gdal"
    assert inside["PATH"] == "/opt/env/gdal:/opt/env/bin:/usr/bin"
    assert "WRITER" not in inside

    setters = {"GDAL_DATA": "gdal", "PATH": "gdal", "PROJ_DATA": "proj"}
    inspected = json.loads(machine.run("inspect", "--json", "oci:act").stdout)
    assert inspected["images"][0]["activation"] == setters
    planned = json.loads(machine.run("plan", "--json", "act.yaml").stdout)
    assert planned["plans"][0]["activation"]["PROJ_DATA"] == {
        "value": "/opt/env/share/proj",
        "package": "proj",
    }
    assert machine.run("verify", "oci:act").status == 0


def test_a_dockerfile_sets_the_same_variables(machine: Machine) -> None:
    env = {"ENVBUILD_MICROMAMBA_IMAGE": f"{machine.env['REGISTRY']}/micromamba@sha256:{'0' * 64}"}
    rendered = machine.run("render", "act.yaml", "-o", "rendered", env=env)
    assert rendered.status == 0, rendered.stderr
    dockerfile = (machine.project / "rendered" / "Dockerfile").read_text(encoding="utf-8")
    assert 'GDAL_DATA="/opt/env/share/gdal"' in dockerfile
    assert 'PROJ_DATA="/opt/env/share/proj"' in dockerfile
    assert "dev.envbuild.activation" in dockerfile
    assert machine.run("render", "ignored.yaml", "-o", "without", env=env).status == 0
    assert "GDAL_DATA" not in (machine.project / "without" / "Dockerfile").read_text(encoding="utf-8")


def test_what_is_found_in_a_registry_has_them_too(machine: Machine) -> None:
    repository = f"{machine.env['REGISTRY']}/act"
    pushed = machine.run("build", "act.yaml", "--push", repository)
    assert pushed.status == 0, pushed.stderr
    elsewhere = {"ENVBUILD_CACHE_DIR": str(machine.root / "elsewhere")}
    again = machine.run("build", "act.yaml", "--push", repository, env=elsewhere)
    assert again.digest == pushed.digest
    assert "found as " in again.stderr


def test_the_spec_has_the_last_word(machine: Machine) -> None:
    assert machine.run("build", "ignored.yaml").status == 0
    assert "PROJ_DATA" not in variables(machine, "ignored.yaml")
    built = machine.run("build", "mine.yaml")
    assert "GDAL_DATA stays '/mine', where gdal would set '/opt/env/share/gdal'" in built.stderr
    assert variables(machine, "mine.yaml")["GDAL_DATA"] == "/mine"


def test_an_environment_without_scripts_is_as_it_was(machine: Machine) -> None:
    built = machine.run("build", "plain.yaml", "-o", "oci:plain")
    assert "activate" not in built.stderr
    inspected = json.loads(machine.run("inspect", "--json", "oci:plain").stdout)["images"][0]
    assert inspected["activation"] == {}
    assert "dev.envbuild.activation" not in inspected["labels"]
