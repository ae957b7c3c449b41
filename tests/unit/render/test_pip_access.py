"""The access of a build step's pip: which index counts, what stays outside, what is never shown."""

from __future__ import annotations

import configparser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from envbuild.lock.pip.pip_config import pip_config_files
from envbuild.lock.pip.uv_config import uv_config_files
from envbuild.render.access import PipAccess, pip_access
from envbuild.settings import Settings
from envbuild.specs.model import PackageIndex


@dataclass
class Machine:
    """A home and settings files of a test's own."""

    root: Path
    uv_files: Sequence[Path] = ()
    pip_files: Sequence[Path] = ()
    ca_bundle: Path | None = None

    def file(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(text)
        return path

    def access(
        self,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        addresses: Sequence[str] = (),
    ) -> PipAccess:
        return pip_access(
            {"HOME": str(self.root), **(env or {})},
            options,
            Settings(cache_dir=self.root, ca_bundle=self.ca_bundle),
            addresses=addresses,
            uv_files=self.uv_files,
            pip_files=self.pip_files,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(root=tmp_path)


def section(access: PipAccess) -> dict[str, list[str]]:
    """What pip reads of the text, values split as pip splits them."""
    parser = configparser.RawConfigParser()
    parser.read_string(access.pip_conf)
    assert parser.sections() == ["global"]
    return {key: value.split() for key, value in parser["global"].items()}


PLACES = ("option", "uv-default", "uv-index", "pip-as-uv", "uv-file", "pip-file")


@pytest.mark.parametrize("first", range(len(PLACES)))
def test_the_index_is_of_the_first_place_that_names_one(machine: Machine, first: int) -> None:
    there = PLACES[first:]
    env = {}
    if "uv-default" in there:
        env["UV_DEFAULT_INDEX"] = "https://uv-default.test/simple"
    if "uv-index" in there:
        env["UV_INDEX_URL"] = "https://uv-index.test/simple"
    if "pip-as-uv" in there:
        env["PIP_INDEX_URL"] = "https://pip-as-uv.test/simple"
    if "uv-file" in there:
        machine.uv_files = [machine.file("uv.toml", 'index-url = "https://uv-file.test/simple"\n')]
    machine.pip_files = [machine.file("pip.conf", "[global]\nindex-url = https://pip-file.test/simple\n")]
    options = ["--index-url https://option.test/simple"] if "option" in there else []
    assert section(machine.access(env, options))["index-url"] == [f"https://{PLACES[first]}.test/simple"]


def test_pips_variable_counts_behind_a_named_file_of_uv_as_it_does_for_the_resolver(machine: Machine) -> None:
    named = machine.file("named.toml", '[[index]]\nurl = "https://named.test/simple"\ndefault = true\n')
    machine.uv_files = uv_config_files({"UV_CONFIG_FILE": str(named)})
    found = section(
        machine.access({"UV_CONFIG_FILE": str(named), "PIP_INDEX_URL": "https://pip.test/simple"})
    )
    assert found == {
        "index-url": ["https://named.test/simple"],
        "extra-index-url": ["https://pip.test/simple"],
    }


def test_further_indexes_of_all_places_follow_in_order_and_once(machine: Machine) -> None:
    machine.uv_files = [
        machine.file(
            "uv.toml",
            '[[index]]\nurl = "https://a.test/s"\n'
            '[[index]]\nurl = "https://only-named.test/s"\nexplicit = true\n'
            '[[index]]\nurl = "https://main.test/s"\ndefault = true\n'
            '[[index]]\nurl = "https://flat.test/w"\nformat = "flat"\n'
            '[pip]\nextra-index-url = ["https://b.test/s"]\n',
        )
    ]
    machine.pip_files = [
        machine.file("one.conf", "[install]\nextra-index-url =\n  https://c.test/s\n  https://a.test/s\n"),
        machine.file("two.conf", "[download]\nextra-index-url = https://not.test/s\n"),
    ]
    env = {"UV_EXTRA_INDEX_URL": "https://d.test/s", "UV_INDEX": "mine=https://e.test/s https://f.test/s"}
    assert section(machine.access(env, ["--extra-index-url=https://g.test/s", "--pre"])) == {
        "index-url": ["https://main.test/s"],
        "extra-index-url": [f"https://{each}.test/s" for each in "gefdbac"],
        "find-links": ["https://flat.test/w"],
    }


def test_what_no_container_can_reach_is_left_out(machine: Machine) -> None:
    machine.pip_files = [
        machine.file(
            "pip.conf",
            "[global]\nfind-links = /srv/wheels https://links.test/w\n"
            "extra-index-url = file:///srv/simple\n  ftp://x.test/s\n",
        )
    ]
    env = {"UV_DEFAULT_INDEX": "file:///srv/index", "UV_INDEX_URL": "relative/index"}
    assert section(machine.access(env, ["-f ./wheels"])) == {"find-links": ["https://links.test/w"]}


def test_an_address_cant_add_a_line(machine: Machine) -> None:
    env = {
        "UV_DEFAULT_INDEX": "https://x.test/s\ntrusted-host = evil.test",
        "UV_INSECURE_HOST": "a.test,b\tc",
    }
    assert section(machine.access(env)) == {"trusted-host": ["a.test", "b", "c"]}


def test_no_index_of_the_spec_is_kept(machine: Machine) -> None:
    found = section(
        machine.access(
            {"PIP_INDEX_URL": "https://x.test/s"}, ["--no-index", "--find-links=https://links.test/w"]
        )
    )
    assert found["no-index"] == ["true"]
    assert found["find-links"] == ["https://links.test/w"]
    assert "index-url" not in found


def test_variables_in_the_specs_options_are_filled_in(machine: Machine) -> None:
    access = machine.access({"TOKEN": "s3cret"}, ["--index-url https://u:${TOKEN}@x.test/s"])
    assert section(access)["index-url"] == ["https://u:s3cret@x.test/s"]
    assert "s3cret" not in repr(access)


def test_logins_of_named_indexes_are_put_in(machine: Machine) -> None:
    env = {
        "UV_DEFAULT_INDEX": "my-own=https://x.test/s?a=b",
        "UV_INDEX_MY_OWN_USERNAME": "me",
        "UV_INDEX_MY_OWN_PASSWORD": "p@ss/word",
    }
    assert section(machine.access(env))["index-url"] == ["https://me:p%40ss%2Fword@x.test/s?a=b"]


def test_an_index_of_single_packages_is_one_more_with_the_login_of_its_name(machine: Machine) -> None:
    index = PackageIndex(url="https://own.test/simple?page=1", packages=("torch",), name="own")
    env = {"UV_INDEX_OWN_USERNAME": "who", "UV_INDEX_OWN_PASSWORD": "a=b"}
    access = machine.access(env, [index.option])
    assert section(access)["extra-index-url"] == ["https://who:a%3Db@own.test/simple?page=1"]


def test_netrc_has_the_hosts_of_the_indexes_and_no_others(machine: Machine) -> None:
    machine.file(
        ".netrc",
        "machine index.test login a password b\nmachine other.test login c password d\n"
        "machine files.test login e password f\n",
    )
    access = machine.access(
        {"PIP_INDEX_URL": "https://index.test/s"}, addresses=["https://files.test/x-1-py3-none-any.whl"]
    )
    assert access.netrc == ("machine index.test login a password b\nmachine files.test login e password f\n")
    assert machine.access({"PIP_INDEX_URL": "https://elsewhere.test/s"}).netrc is None


def test_the_ca_bundle_is_the_settings_then_the_variables_then_pips(machine: Machine) -> None:
    own, variable, pip = (machine.file(name, "PEM") for name in ("own", "variable", "pip"))
    machine.pip_files = [machine.file("pip.conf", f"[global]\ncert = {pip}\n")]
    assert machine.access().ca_certificates == pip
    assert machine.access({"PIP_CERT": str(variable)}).ca_certificates == variable
    machine.ca_bundle = own
    access = machine.access({"PIP_CERT": str(variable)})
    assert access.ca_certificates == own
    assert section(access) == {"cert": ["/run/secrets/ca-certificates.crt"]}


def test_a_bundle_that_is_no_file_is_not_promised(machine: Machine) -> None:
    access = machine.access({"SSL_CERT_FILE": str(machine.root)})
    assert access.ca_certificates is None
    assert section(access) == {}


@pytest.mark.parametrize(("given", "kept"), [("180", ["180"]), ("30.5", ["30"]), ("soon", None), ("0", None)])
def test_the_timeout_is_whole_seconds(machine: Machine, given: str, kept: list[str] | None) -> None:
    assert section(machine.access({"PIP_DEFAULT_TIMEOUT": given})).get("timeout") == kept


def test_broken_settings_count_as_none_and_are_not_quoted(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.uv_files = [machine.file("uv.toml", "s3cret = = 1")]
    machine.pip_files = [machine.file("pip.conf", "s3cret\n")]
    assert section(machine.access({"PIP_INDEX_URL": "https://x.test/s"})) == {
        "index-url": ["https://x.test/s"]
    }
    assert "s3cret" not in caplog.text
    assert "uv.toml" in caplog.text
    assert "pip.conf" in caplog.text


def test_files_are_looked_for_where_pip_does() -> None:
    env = {"HOME": "/h", "XDG_CONFIG_DIRS": "/etc/one:/etc/two"}
    paths = [str(path) for path in pip_config_files({**env, "PIP_CONFIG_FILE": "/p.conf"})]
    assert paths[0] == "/p.conf"
    assert paths[2:] == [
        "/h/.config/pip/pip.conf",
        "/h/.pip/pip.conf",
        "/etc/pip.conf",
        "/etc/one/pip/pip.conf",
        "/etc/two/pip/pip.conf",
    ]
    assert pip_config_files({**env, "PIP_CONFIG_FILE": "/dev/null"}) == ()
