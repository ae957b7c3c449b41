"""pipenv's files: what is chosen behind ``#``, whose the default index is, and lines that nobody meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.specs.load import load_spec
from envbuild.specs.model import Spec

CASES = Path(__file__).parents[2] / "cases" / "spec"


def texts(spec: Spec) -> list[str]:
    return [requirement.text for requirement in spec.pip.requirements]


def pipfile(directory: Path, text: str) -> Path:
    path = directory / "Pipfile"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("asked", ["dev", "dev-packages", "develop"])
def test_categories_are_asked_for_by_name(asked: str) -> None:
    for case, more in (("pipfile", "pytest"), ("lock-pipfile", "pytest==8.3.4")):
        file = next((CASES / case).glob("Pipfile.lock"), CASES / case / "Pipfile")
        plain, chosen = load_spec(file), load_spec(file.with_name(f"{file.name}#{asked}"))
        assert set(texts(chosen)) - set(texts(plain)) == {more}
        assert chosen.pip.complete == (case == "lock-pipfile")


def test_a_category_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SpecError, match="no category of packages is called 'nothing'; it has: packages"):
        load_spec(CASES / "pipfile" / "Pipfile#nothing")


def test_a_directory_with_a_lock_is_that_lock_but_not_beside_requirements(tmp_path: Path) -> None:
    pipfile(tmp_path, '[packages]\nsix = "1.17.0"\n')
    assert texts(load_spec(tmp_path)) == ["six==1.17.0"]
    (tmp_path / "requirements.txt").write_text("idna\n", encoding="utf-8")
    assert load_spec(tmp_path).source.name == "requirements.txt"
    assert load_spec(CASES / "lock-pipfile").source.name == "Pipfile.lock"


def test_the_source_that_pipenv_writes_is_the_index_of_the_machine(tmp_path: Path) -> None:
    name = "pypi"
    source = f'[[source]]\nname = "{name}"\nurl = "https://{name}.org/simple"\n[packages]\n'
    assert load_spec(pipfile(tmp_path, source)).pip.options == ()
    assert load_spec(pipfile(tmp_path, source.replace(f'"{name}"', "{}"))).pip.options != ()
    mirror = source.replace(f"{name}.org", "mirror.example")
    assert load_spec(pipfile(tmp_path, mirror)).pip.options == ("--index-url https://mirror.example/simple",)


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ('git = "https://code.example/tree.git", ref = "v1"', "'git+https://code.example/tree.git@v1'"),
        ('path = ".", editable = true', "'.' is a source tree without"),
        ('path = "./tree"', "'./tree'"),
    ],
)
def test_what_would_be_built_is_the_line_of_pip(tmp_path: Path, entry: str, line: str) -> None:
    """A reader of such lines says what becomes of them."""
    try:
        spec = load_spec(pipfile(tmp_path, f"[packages]\ntree = {{{entry}}}\n"))
    except SpecError as error:
        assert error.message.startswith(f"{tmp_path}/Pipfile:2: packages.tree: {line}")  # noqa: PT017
    else:
        assert spec.pip.requirements


def test_git_s_short_addresses_are_those_of_ssh(tmp_path: Path) -> None:
    git = 'bar = {git = "git@code.example:team/bar.git", ref = "main", subdirectory = "lib"}'
    assert texts(load_spec(pipfile(tmp_path, f"[packages]\n{git}\n"))) == [
        "bar @ git+ssh://git@code.example/team/bar.git@main#subdirectory=lib"
    ]


def test_a_lock_without_a_hash_and_of_another_format_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "Pipfile.lock"
    lock.write_text('{"_meta": {"pipfile-spec": 6}, "default": {"six": {"version": "==1.17.0"}}}')
    with pytest.raises(SpecError, match=r"default\.six: has no hash; lock again: the file is damaged"):
        load_spec(lock)
    lock.write_text('{"_meta": {"pipfile-spec": 5}, "default": {}}')
    with pytest.raises(SpecError, match="has format version 5; version 6 is read"):
        load_spec(lock)
    lock.write_text('{"default": {}}')
    with pytest.raises(SpecError, match="is no lock of pipenv"):
        load_spec(lock)
