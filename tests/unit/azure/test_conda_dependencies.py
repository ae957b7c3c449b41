"""Conda and pip packages as the SDK's scripts edit them."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.azure.conda_dependencies import CondaDependencies
from envbuild.azure.unsupported import AzureOnlyError
from envbuild.errors import SpecError, UsageError

CONDA = """
channels: [conda-forge]
dependencies: [python=3.11.*, numpy, {pip: [--pre, six]}]
"""


def test_a_new_one_pins_the_python_that_azure_ml_does() -> None:
    assert CondaDependencies().as_dict() == {
        "name": "project_environment",
        "channels": ["conda-forge"],
        "dependencies": ["python=3.8.13"],
    }
    assert CondaDependencies.create().get_python_version() == "3.10.18"
    assert CondaDependencies().get_default_number_of_packages() == (1, 0)


def test_packages_are_added_and_removed() -> None:
    dependencies = CondaDependencies.create(
        pip_indexurl="https://index.example.org/simple",
        pip_packages=["six==1.16", "idna"],
        conda_packages=["numpy==1.17.0"],
        python_version="3.11",
    )
    dependencies.add_pip_package("Six>=1.17")
    dependencies.add_pip_package("torch[extra]; python_version > '3'")
    dependencies.remove_pip_package("IDNA==3")
    dependencies.add_conda_package("numpy==1.17.0")
    dependencies.add_conda_package("python>=3.12")
    dependencies.add_channel("bioconda")
    dependencies.add_channel("bioconda")
    dependencies.remove_channel("conda-forge")
    assert list(dependencies.conda_channels) == ["bioconda"]
    assert list(dependencies.conda_packages) == ["python>=3.12", "numpy==1.17.0"]
    assert list(dependencies.pip_packages) == ["Six>=1.17", "torch[extra]; python_version > '3'"]
    assert list(dependencies.pip_options) == ["--extra-index-url https://index.example.org/simple"]
    dependencies.remove_conda_package("numpy==1.17.0")
    dependencies.remove_conda_package("scipy")
    assert list(dependencies.conda_packages) == ["python>=3.12"]
    with pytest.raises(UsageError, match="python can't be removed"):
        dependencies.remove_conda_package("python>=3.12")


def test_options_of_pip_are_set_once() -> None:
    dependencies = CondaDependencies()
    dependencies.set_pip_option("--index-url https://one.example.org")
    dependencies.add_pip_package("six")
    dependencies.set_pip_index_url("https://two.example.org")
    assert list(dependencies.pip_options) == ["--index-url https://two.example.org"]
    dependencies.remove_pip_option("--index-url")
    assert (list(dependencies.pip_options), list(dependencies.pip_packages)) == ([], ["six"])
    with pytest.raises(UsageError, match="'six' is no option"):
        dependencies.set_pip_option("six")
    with pytest.raises(UsageError, match="'--pre' is an option"):
        dependencies.add_pip_package("--pre")
    dependencies.set_pip_requirements(["# head", "idna  # why", "", "--pre"])
    assert (list(dependencies.pip_options), list(dependencies.pip_packages)) == (["--pre"], ["idna"])


def test_frameworks_replace_each_other() -> None:
    dependencies = CondaDependencies()
    dependencies.add_tensorflow_pip_package()
    dependencies.add_tensorflow_pip_package("gpu", "2.4.0")
    dependencies.add_cntk_package()
    assert list(dependencies.pip_packages) == ["tensorflow-gpu==2.4.0", "cntk==2.7"]
    dependencies.add_tensorflow_conda_package()
    dependencies.add_tensorflow_conda_package("gpu")
    assert list(dependencies.conda_packages)[1:] == ["tensorflow-gpu=2.2.0"]
    with pytest.raises(UsageError, match="'tpu' is no core type"):
        dependencies.add_cntk_package("tpu")


def test_requirements_of_one_package_are_merged() -> None:
    merged = CondaDependencies.merge_requirements(["a>=1", "b", "a<2"])
    assert merged == ["a>=1,<2", "b"]
    with pytest.raises(AzureOnlyError):
        CondaDependencies.sdk_origin_url()


def test_a_file_is_read_and_written_as_it_was_meant(tmp_path: Path) -> None:
    (tmp_path / "conda.yml").write_text(CONDA)
    dependencies = CondaDependencies(tmp_path / "conda.yml")
    assert dependencies.get_python_version() == "3.11.*"
    assert dependencies.save_to_file(tmp_path) == ".azureml/conda_dependencies.yml"
    again = CondaDependencies(tmp_path / ".azureml" / "conda_dependencies.yml")
    assert again.as_dict() == dependencies.as_dict()
    assert again.serialize_to_string() == (tmp_path / dependencies.save(tmp_path / "x.yml")).read_text()
    with pytest.raises(UsageError, match="not to a directory"):
        dependencies.save(tmp_path)
    with pytest.raises(UsageError, match="no python is named"):
        CondaDependencies(_underlying_structure={"dependencies": ["numpy"]}).save(tmp_path / "y.yml")


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n", "is no conda file"), ("depends: []\n", "unknown key"), ("channels: x\n", "must be a list")],
)
def test_a_file_that_is_none(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "conda.yml").write_text(text)
    with pytest.raises(SpecError, match=message):
        CondaDependencies(tmp_path / "conda.yml")
