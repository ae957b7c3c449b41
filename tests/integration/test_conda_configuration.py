"""Channels as this machine reaches them: conda's own configuration counts, and a lock doesn't say so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.channel import File, Package, index_channel, make_package, serve
from tests.integration.driver import Machine, shell_machine

pytestmark = pytest.mark.slow

TOOL = Package(name="tool", noarch="generic", files=(File(path="share/tool", content=b"1"),))
NEWER = Package(name="tool", version="2.0", noarch="generic", files=(File(path="share/tool", content=b"2"),))


@dataclass(frozen=True)
class Site:
    machine: Machine
    url: str
    asked: list[str]

    def condarc(self, text: str) -> None:
        (self.machine.home / ".condarc").write_text(text, encoding="utf-8")

    def spec(self, *channels: str, dependency: str = "tool") -> str:
        conda = json.dumps({"channels": channels, "dependencies": [dependency]})
        image = f"{self.machine.env['REGISTRY']}/shell:1"
        text = f"name: x\nplatforms: [linux/amd64]\nimage: {image}\nconda_file: {conda}\n"
        return str(self.machine.write("x.yaml", text))

    def pins(self) -> list[str]:
        lock = json.loads((self.machine.project / "lockfiles" / "x" / "envbuild.lock").read_text())
        return [pin["url"] for pin in lock["platforms"]["linux/amd64"]["conda"]]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    channels = tmp_path / "channels"
    for name, package in (("conda-forge", TOOL), ("other", NEWER), ("main", TOOL)):
        make_package(package, channels / name)
        index_channel(channels / name, [package])
    with serve(channels) as (url, asked), shell_machine(tmp_path) as machine:
        yield Site(machine, url, asked)


def test_an_alias_is_asked_and_the_lock_names_the_public_channel(site: Site) -> None:
    site.condarc(f"channel_alias: {site.url}/\n")
    spec = site.spec("conda-forge")
    locked = site.machine.run("lock", "-v", spec)
    assert locked.status == 0, locked.stderr
    assert f"https://conda.anaconda.org is asked at {site.url}" in locked.stderr
    assert site.pins() == ["https://conda.anaconda.org/conda-forge/noarch/tool-1.0-0.conda"]
    assert site.machine.run("build", "--locked", spec).status == 0
    assert "/conda-forge/noarch/tool-1.0-0.conda" in site.asked
    assert "127.0.0.1" not in (site.machine.project / "lockfiles" / "x" / "conda-lock.yml").read_text()
    doctor = site.machine.run("doctor")
    assert f"https://conda.anaconda.org is asked at {site.url}" in doctor.stdout


@pytest.mark.parametrize(
    ("condarc", "channels", "pin"),
    [
        (
            "default_channels: [{url}/main]",
            ("defaults",),
            "https://repo.anaconda.com/pkgs/main/noarch/tool-1.0-0.conda",
        ),
        ("custom_channels: {{other: '{url}'}}", ("other",), "{url}/other/noarch/tool-2.0-0.conda"),
        ("custom_multichannels: {{both: ['{url}/other']}}", ("both",), "{url}/other/noarch/tool-2.0-0.conda"),
        (
            "mirrored_channels: {{conda-forge: ['{url}/conda-forge']}}",
            ("conda-forge",),
            "https://conda.anaconda.org/conda-forge/noarch/tool-1.0-0.conda",
        ),
        ("pinned_packages: [tool <2]", ("{url}/other", "{url}/conda-forge"), ""),
        (
            "pinned_packages: [tool <2]\nchannel_priority: flexible",
            ("{url}/other", "{url}/conda-forge"),
            "{url}/conda-forge/noarch/tool-1.0-0.conda",
        ),
    ],
)
def test_each_key_means_what_conda_means(
    site: Site, condarc: str, channels: tuple[str, ...], pin: str
) -> None:
    site.condarc(condarc.format(url=site.url) + "\n")
    spec = site.spec(*(channel.format(url=site.url) for channel in channels))
    locked = site.machine.run("lock", spec)
    if not pin:
        locked.failed(4, "tool")
        return
    assert locked.status == 0, locked.stderr
    assert site.pins() == [pin.format(url=site.url)]
    assert site.machine.run("build", "--locked", spec).status == 0


def test_our_own_settings_and_variables_go_before_files(site: Site) -> None:
    site.condarc("channel_alias: http://127.0.0.1:9/nobody\n")
    spec = site.spec("conda-forge")
    env = {"CONDA_CHANNEL_ALIAS": site.url}
    assert site.machine.run("lock", spec, env=env).status == 0
    mirrors = f"https://conda.anaconda.org/conda-forge={site.url}/conda-forge"
    built = site.machine.run("build", "--no-cache", spec, env={"ENVBUILD_CONDA_MIRRORS": mirrors})
    assert built.status == 0, built.stderr


@pytest.mark.parametrize(
    ("condarc", "said"),
    [
        ("channel_alias: [a]\n", ".condarc:1: channel_alias must be text, is a list"),
        (
            "a: 1\ndefault_channels: {a: b}\n",
            ".condarc:2: default_channels must be a list of texts, is a mapping",
        ),
        ("channel_alias: 'no address'\n", "'no address' is no address of channels"),
        ("channel_priority: often\n", "channel_priority 'often' isn't known"),
        ("channel_alias: a\nchannel_alias: b\n", ".condarc:2: "),
        ("- a\n", ".condarc:1: must be a mapping, is a list"),
    ],
)
def test_a_mistake_is_named_with_its_line(site: Site, condarc: str, said: str) -> None:
    site.condarc(condarc)
    site.machine.run("lock", site.spec("conda-forge")).failed(4, said)


def test_a_token_of_the_alias_is_asked_with_and_never_kept(site: Site) -> None:
    site.condarc(f"channel_alias: {site.url}/t/s3cret-token\n")
    said = site.machine.run("lock", "-v", site.spec("conda-forge"))
    assert "s3cret-token" not in said.stderr + said.stdout
    assert any(path.startswith("/t/s3cret-token/") for path in site.asked)
