"""Credentials in any field, and variables that do harm. No value of one is ever shown."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.lint.secrets import secret_in, secret_variable
from envbuild.specs.model import (
    CondaSpec,
    ImageBaseSpec,
    Origin,
    PipRequirement,
    PipSpec,
    SparkSpec,
    Spec,
)
from tests.unit.lint.conftest import Looker, look

# Put together here, so that no scanner takes this file for a leak.
SECRETS = {
    "an AWS access key id": "AKIA" + "Q" * 16,
    "a GitHub token": "ghp_" + "a1" * 18,
    "a GitLab token": "glpat-" + "a" * 20,
    "a Slack token": "xoxb-" + "1" * 12,
    "a Hugging Face token": "hf_" + "a" * 34,
    "a PyPI token": "pypi-AgE" + "a" * 60,
    "an npm token": "npm_" + "a" * 36,
    "a Google API key": "AIza" + "a" * 35,
    "an API key": "sk-proj-" + "a" * 40,
    "a JSON web token": "eyJ" + "a" * 20 + ".eyJ" + "b" * 20 + ".c",
    "an Azure account key": "DefaultEndpointsProtocol=https;AccountKey=" + "a" * 40,
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "a credential in an address": "see https://me:hunter2@host.example/x",
}
SPEC = Spec(name="x", source=Path("/nowhere/envbuild.yaml"), python="3.13")
ORIGIN = Origin(file="r.txt", where="7")
ADDRESS = "https://me:hunter2@host.example/a"


@pytest.mark.parametrize("kind", SECRETS)
def test_known_forms_are_known(kind: str) -> None:
    assert secret_in(f"x {SECRETS[kind]}") == kind


@pytest.mark.parametrize(
    "text",
    [
        "https://${USER}:${TOKEN}@host.example",
        "docker://docker.io/library/debian:trixie",
        "sk-learn",
        "task-" + "a" * 40,
        "eyJ",
        "numpy",
        "sha256:" + "a" * 64,
    ],
)
def test_what_is_none_is_none(text: str) -> None:
    assert secret_in(text) is None


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("HF_TOKEN", "abc", True),
        ("PGPASSWORD", "abc", True),
        ("AWS_SECRET_ACCESS_KEY", "abc", True),
        ("AZURE_CLIENT_SECRET", "abc", True),
        ("api_key", "abc", True),
        ("STORAGE_CONNECTION_STRING", "abc", True),
        ("MY_KEY", "a1b2c3d4e5f6g7h8", True),
        ("HF_TOKEN", "", False),
        ("HF_TOKEN", "${HF_TOKEN}", False),
        ("HF_TOKEN", "<your token>", False),
        ("DB_PASSWORD", "/run/secrets/db", False),
        ("USE_TOKEN", "false", False),
        ("PARTITION_KEY", "customer", False),
        ("TOKENIZERS_PARALLELISM", "x1", False),
        ("MAX_TOKENS", "512", False),
        ("PWD", "here", False),
    ],
)
def test_names_of_variables_say_what_is_secret(name: str, value: str, secret: bool) -> None:
    assert secret_variable(name, value) is secret


@pytest.mark.parametrize(
    "spec",
    [
        replace(SPEC, description=f"at {ADDRESS}"),
        replace(SPEC, tags=(("a", ADDRESS),)),
        replace(SPEC, base=ImageBaseSpec(reference="me:hunter2@host.example/a:1")),
        replace(SPEC, pip=PipSpec(requirements=(PipRequirement(text=f"a @ {ADDRESS}", origin=ORIGIN),))),
        replace(SPEC, pip=PipSpec(options=(f"--index-url {ADDRESS}",))),
        replace(SPEC, conda=CondaSpec(channels=(ADDRESS,), dependencies=("python=3.13",))),
        replace(SPEC, conda=CondaSpec(channels=("a",), dependencies=("python=3.13", f"{ADDRESS}::a=1"))),
        replace(SPEC, spark=SparkSpec(repositories=(ADDRESS,))),
        replace(SPEC, environment_variables=(("INDEX", ADDRESS),)),
        replace(SPEC, left_out=(f"a line: {ADDRESS}",)),
    ],
)
def test_a_credential_is_an_error_in_every_field_and_never_shown(spec: Spec) -> None:
    result = look(spec)
    assert result.codes.count("EB301") == 1
    assert "hunter2" not in repr(result)


def test_an_image_with_a_digest_holds_no_credential() -> None:
    assert "EB301" not in look(replace(SPEC, base=ImageBaseSpec(reference="debian@sha256:" + "a" * 64))).codes


def test_variables_are_found_where_they_were_written(found: Looker) -> None:
    token = SECRETS["a GitHub token"]
    conda = f"channels: [c]\ndependencies: [python=3.13]\nvariables:\n  A: b\n  WHAT: {token}\n"
    text = "conda_file: c.yml\nenvironment_variables:\n  EXAMPLE_ENV_VAR: EXAMPLE_VALUE\n  PATH: /bin\n"
    result = found(text + "  DB_PASSWORD: hunter2\n", **{"c.yml": conda})
    assert [(each.code, str(each.where)) for each in result] == [
        ("EB301", "c.yml:5: variables.WHAT"),
        ("EB302", "envbuild.yaml:3: environment_variables.EXAMPLE_ENV_VAR"),
        ("EB303", "envbuild.yaml:4: environment_variables.PATH"),
        ("EB301", "envbuild.yaml:5: environment_variables.DB_PASSWORD"),
    ]
    assert "hunter2" not in repr(result)
    assert token not in repr(result)


def test_a_path_that_keeps_the_prefix_first_is_fine(found: Looker) -> None:
    text = "python: '3.13'\nenvironment_variables: {PATH: '/opt/env/bin:/usr/bin', OMP_NUM_THREADS: 2}\n"
    assert found(text) == []


def test_a_long_text_is_looked_through_once() -> None:
    begin = time.process_time()
    for text in ("eyJ" * 300_000, "eyJaaaaaaaa." * 80_000, "https://" * 100_000, "sk-" * 300_000):
        secret_in(text)
    secret_variable("A_TOKEN", "/" * 1_000_000 + " ")
    assert time.process_time() - begin < 5
