"""The serving rule: what is listed, and what is installed."""

from __future__ import annotations

import pytest

from envbuild.specs.serving import promises, serves


@pytest.mark.parametrize(
    ("requirement", "promised"),
    [
        ("azureml-inference-server-http", True),
        ("AzureML_Inference.Server-HTTP==1.0", True),
        ("azureml-defaults", True),
        ("azureml-defaults>=1.0.45", True),
        ("azureml-defaults==1.60.0", True),
        ("azureml-defaults==1.0.*", True),
        ("azureml-defaults~=1.0.40", True),
        ("azureml-defaults>1.0.45,<1.1", True),
        ("azureml-defaults @ https://example.org/azureml_defaults-1.60.0-py3-none-any.whl", True),
        ("azureml-defaults==1.0.44", False),
        ("azureml-defaults==0.9.*", False),
        ("azureml-defaults~=0.9.1", False),
        ("azureml-defaults<1.0.45", False),
        ("azureml-defaults<=1.0.44", False),
        ("azureml-defaults===odd", False),
        ("azureml-defaults-extra", False),
        ("numpy", False),
        ("not a requirement", False),
    ],
)
def test_a_requirement_promises_the_server_or_not(requirement: str, promised: bool) -> None:
    assert promises(["six", requirement]) is promised


@pytest.mark.parametrize(
    ("name", "version", "serving"),
    [
        ("azureml-inference-server-http", "0.1", True),
        ("AzureML_Inference_Server_HTTP", "odd", True),
        ("azureml-defaults", "1.0.45", True),
        ("azureml-defaults", "1.60.0.post1", True),
        ("azureml-defaults", "1.0.44", False),
        ("azureml-defaults", "1.0.45rc1", False),
        ("azureml-defaults", "odd", False),
        ("azureml-core", "1.60", False),
    ],
)
def test_what_is_installed_serves_or_not(name: str, version: str, serving: bool) -> None:
    assert serves([("six", "1.17"), (name, version)]) is serving
