"""The environment that serves what another one is: itself where it can, else with what it lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.specs.model import (
    CondaSpec,
    EnvironmentType,
    ImageBaseSpec,
    InferenceConfig,
    Origin,
    PipRequirement,
    PipSpec,
    Route,
    Spec,
)
from envbuild.specs.serving import DEFAULT_ROUTES, served

ON_8080 = InferenceConfig(
    liveness_route=Route(path="/", port=8080),
    readiness_route=Route(path="/", port=8080),
    scoring_route=Route(path="/score", port=8080),
)


def spec(*requirements: str, routes: InferenceConfig | None = None) -> Spec:
    pip = PipSpec(
        requirements=tuple(
            PipRequirement(text=requirement, origin=Origin(file="x")) for requirement in requirements
        )
    )
    return Spec(name="iris", source=Path("iris.yaml"), version="3", pip=pip, inference_config=routes)


def texts(found: Spec) -> list[str]:
    return [requirement.text for requirement in found.pip.requirements]


@pytest.mark.parametrize("server", ["azureml-inference-server-http>=1.2", "azureml-defaults>=1.45"])
def test_an_environment_that_can_serve_is_one_for_both_uses(server: str) -> None:
    asked = spec("six", server, routes=ON_8080)
    assert served(asked) is asked


def test_what_lacks_all_gets_the_server_and_its_own_name() -> None:
    found = served(spec("six"))
    assert (found.name, found.version) == ("iris-serving", None)
    assert texts(found) == ["six", "azureml-inference-server-http>=1"]
    assert found.inference_config == DEFAULT_ROUTES


def test_what_lacks_the_server_alone_keeps_its_routes() -> None:
    # This one is too old to bring it.
    found = served(spec("azureml-defaults==1.0.40", routes=ON_8080))
    assert texts(found) == ["azureml-defaults==1.0.40", "azureml-inference-server-http>=1"]
    assert found.inference_config == ON_8080


def test_what_lacks_routes_alone_gets_no_second_server() -> None:
    found = served(spec("azureml-inference-server-http==1.4"))
    assert (found.name, texts(found)) == ("iris-serving", ["azureml-inference-server-http==1.4"])


@pytest.mark.parametrize(
    "asked", ["azureml-inference-server-http >=1", "conda-forge::azureml-inference-server-http"]
)
def test_a_server_from_conda_counts(asked: str) -> None:
    conda = CondaSpec(channels=("conda-forge",), dependencies=("python=3.12", asked))
    both = replace(spec(routes=ON_8080), conda=conda)
    assert served(both) is both
    other = replace(both, conda=replace(conda, dependencies=("azureml-inference-server-http-extra",)))
    assert texts(served(other)) == ["azureml-inference-server-http>=1"]


def test_nothing_is_added_to_an_image_that_is_taken_as_it_is() -> None:
    image = replace(spec(), type=EnvironmentType.USER_MANAGED, base=ImageBaseSpec(reference="x:1"))
    assert served(replace(image, inference_config=ON_8080)).name == "iris"
    found = served(image)
    assert (found.name, texts(found), found.inference_config) == ("iris-serving", [], DEFAULT_ROUTES)


def test_a_curated_one_becomes_system_managed() -> None:
    assert served(replace(spec(), type=EnvironmentType.CURATED)).type is EnvironmentType.SYSTEM_MANAGED


def test_nothing_can_be_added_to_a_complete_list() -> None:
    asked = spec("six==1.17.0")
    with pytest.raises(SpecError, match="iris is what a lock lists and no more") as caught:
        served(replace(asked, pip=replace(asked.pip, complete=True)))
    assert caught.value.hint == "add azureml-inference-server-http where that lock is made"


def test_routes_that_the_server_has_not_are_named() -> None:
    routes = replace(
        ON_8080, liveness_route=Route(path="/healthz", port=8080), readiness_route=Route(path="/", port=9000)
    )
    with pytest.raises(SpecError) as caught:
        served(spec("azureml-inference-server-http", routes=routes))
    assert caught.value.problems == (
        "inference_config.liveness_route: azureml-inference-server-http answers at /, not at /healthz",
        "inference_config.readiness_route: azureml-inference-server-http answers on one port, "
        "and 9000 isn't the scoring route's 8080",
    )
