"""What ``load_spec`` picks, and what it says about files it can't use."""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.platforms import LINUX_AMD64
from envbuild.specs.definition import canonical_definition, definition_digest
from envbuild.specs.exporters.native import dump_native
from envbuild.specs.importers.conda.environment import conda_python
from envbuild.specs.importers.native.model import json_schema
from envbuild.specs.load import NAMES, importers, load_spec, markers
from envbuild.specs.model import (
    ActivationScripts,
    BuildContextSpec,
    BuildDependencies,
    Bytecode,
    Clashes,
    CondaSpec,
    EnvironmentType,
    ImageBaseSpec,
    PythonProvider,
    Spec,
    SystemRequirement,
)
from envbuild.specs.plugins import Importer
from envbuild.specs.text.source import SourceFile


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path) -> SpecError:
    with pytest.raises(SpecError) as raised:
        load_spec(path)
    return raised.value


def test_directory_gives_the_first_known_name(tmp_path: Path) -> None:
    plain = [
        each for each in NAMES if Path(each).stem in ("envbuild", "environment", "conda", "requirements")
    ]
    assert len(plain) == 8
    for name in reversed(plain):
        write(tmp_path / name, "name: x\n" if name.endswith(("yaml", "yml")) else "numpy\n")
        if name.startswith("conda"):
            write(tmp_path / name, "dependencies: [numpy]\n")
        assert load_spec(tmp_path).source == tmp_path / name


def test_every_marker_of_our_importers_has_a_deliberate_place() -> None:
    own = [name for importer in importers() for name in importer.markers]
    assert set(own) <= set(NAMES)
    assert [name for name in NAMES if name in own] == list(markers(importers()))


class Foreign:
    """A third party's format."""

    name = "foreign"
    markers: tuple[str, ...] = ("foreign.cfg", "envbuild.yaml")

    def recognises(self, file: SourceFile) -> bool:
        return file.path.name == "foreign.cfg"

    def load(self, file: SourceFile) -> Spec:
        return Spec(name="foreign", source=file.path)


def test_a_marker_without_a_place_comes_last(tmp_path: Path) -> None:
    formats: tuple[Importer, ...] = (Foreign(), *importers())
    assert markers(formats)[0] == "envbuild.yaml"
    assert markers(formats)[-1] == "foreign.cfg"
    write(tmp_path / "foreign.cfg", "")
    assert load_spec(tmp_path, formats=formats).name == "foreign"
    write(tmp_path / "requirements.txt", "six\n")
    assert load_spec(tmp_path, formats=formats).source == tmp_path / "requirements.txt"


def test_directory_without_a_spec_says_what_was_looked_for(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert error.message == f"{tmp_path}: no spec in this directory"
    assert error.hint == f"looked for {', '.join(markers(importers()))}"
    assert error.exit_code == 3


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("proj/requirements.txt", "proj"),
        ("proj/environment.yml", "proj"),
        ("proj/train.yml", "train"),
        ("my env (2)/requirements.in", "my-env-2"),
        ("proj/dev-requirements.txt", "dev-requirements"),
    ],
)
def test_name_comes_from_the_file_or_its_directory(tmp_path: Path, file: str, name: str) -> None:
    text = "dependencies: [numpy]\n" if file.endswith("yml") else "numpy\n"
    assert load_spec(write(tmp_path / file, text)).name == name


@pytest.mark.parametrize("name", ["gone.yaml", "gone.txt", "gone"])
def test_missing_file_is_named(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path / name).message == f"{tmp_path / name}: no such file or directory"


def test_unknown_format_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "setup.cfg", "[metadata]\n")
    assert refused(path).message == f"{path}: its format isn't known by its name"


def test_special_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "requirements.txt")
    assert refused(tmp_path / "requirements.txt").message.endswith("requirements.txt: is not a regular file")


def test_oversized_yaml_is_refused_unread(tmp_path: Path) -> None:
    path = write(tmp_path / "envbuild.yaml", "#" * ((4 << 20) + 1))
    assert refused(path).message == f"{path}: is larger than 4 MiB"


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes(b"numpy\n# caf\xe9\n")
    assert refused(path).message == f"{path}:2: is not UTF-8 text; save it as UTF-8"


def test_a_coding_line_of_requirements_and_scripts_counts(tmp_path: Path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes(b"# caf\xe9 -*- coding: latin-1 -*-\nnumpy # caf\xe9\n")
    assert [requirement.text for requirement in load_spec(path).pip.requirements] == ["numpy"]
    path.write_bytes(b"#\n#\n# coding: latin-1\n# caf\xe9\n")
    assert refused(path).message == f"{path}:4: is not UTF-8 text; save it as UTF-8"
    path.write_bytes(b"# coding: rot13\nnumpy\n")
    assert refused(path).message == f"{path}: its coding line names 'rot13', which is no encoding of text"
    script = tmp_path / "run.py"
    script.write_bytes(
        b"#!/usr/bin/env python\n# vim: set fileencoding=cp1252 :\n"
        b'# /// script\n# dependencies = ["six"]\n# ///\n"\x80"\n'
    )
    assert [requirement.text for requirement in load_spec(script).pip.requirements] == ["six"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_are_understood(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes("numpy\r\nscipy\r\n".encode(encoding))
    assert [requirement.text for requirement in load_spec(path).pip.requirements] == ["numpy", "scipy"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- a\n", "must be a mapping, is a list"),
        ("name: a\n---\nname: b\n", "a second YAML document; a spec is one document"),
        ("name: !!python/object/apply:os.system [x]\n", "the tag"),
        ("a: *x\n", "the alias *x stands for nothing that came before"),
        ("a: &a [*a]\n", "the alias *a stands for nothing that came before"),
        ("[" * 5000, "nested deeper than 32 levels"),
        ("a:\tb:\tc\n\t-", "bad YAML"),
        ("\0", "bad YAML"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in str(refused(write(tmp_path / "envbuild.yaml", text)))


@pytest.mark.parametrize("written", ["3.10", "3.1", "3", "3.12.0", "'3.10'", "!!str 3.10", ">=3.10,<3.13"])
def test_python_is_the_text_that_was_written(tmp_path: Path, written: str) -> None:
    expected = written.removeprefix("!!str ").strip("'")
    quoted = f'"{written}"' if written.startswith(">") else written
    assert load_spec(write(tmp_path / "envbuild.yaml", f"python: {quoted}\n")).python == expected


@pytest.mark.parametrize(
    ("written", "user"),
    [("1000", "1000:1000"), ("root", "0:0"), ("root:root", "0:0"), ("5:7", "5:7"), ("007", "7:7")],
)
def test_user_is_two_numbers(tmp_path: Path, written: str, user: str) -> None:
    assert load_spec(write(tmp_path / "envbuild.yaml", f"user: {written}\n")).user == user


def test_merge_keys_are_understood(tmp_path: Path) -> None:
    text = "environment_variables: &e {A: 1, B: 2}\ntags: {<<: *e, B: 3}\n"
    assert load_spec(write(tmp_path / "envbuild.yaml", text)).tags == (("A", "1"), ("B", "3"))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("image: debian\n", EnvironmentType.USER_MANAGED),
        ("image: debian\npython: 3.11\n", EnvironmentType.SYSTEM_MANAGED),
        ("image: debian\nrequirements: [numpy]\n", EnvironmentType.SYSTEM_MANAGED),
        ("image: debian\ntype: system-managed\n", EnvironmentType.SYSTEM_MANAGED),
        ("requirements: [numpy]\n", EnvironmentType.SYSTEM_MANAGED),
    ],
)
def test_type_follows_from_what_there_is_to_install(tmp_path: Path, text: str, kind: EnvironmentType) -> None:
    assert load_spec(write(tmp_path / "envbuild.yaml", text)).type is kind


@pytest.mark.parametrize(
    ("dependencies", "python"),
    [
        (("numpy",), None),
        (("python",), "*"),
        (("python=3.11",), "3.11"),
        (("python=3.8.*",), "3.8.*"),
        (("python==3.11.4",), "==3.11.4"),
        (("python>=3.10,<3.13",), ">=3.10,<3.13"),
        (("python 3.11.*",), "3.11.*"),
        (("python=3.11=*_cpython",), "3.11"),
        (("conda-forge::python=3.12",), "3.12"),
        (("python[version='>=3.9']",), ">=3.9"),
        (("python>=3.10", "numpy", "python<3.13"), ">=3.10,<3.13"),
    ],
)
def test_conda_python_is_as_written(dependencies: tuple[str, ...], python: str | None) -> None:
    conda = CondaSpec(channels=("conda-forge",), dependencies=dependencies)
    assert conda_python(Spec(name="x", source=Path("x"), conda=conda)) == python


def test_selectors_leave_out_what_no_platform_has(tmp_path: Path) -> None:
    text = (
        "dependencies:\n- a # [osx]\n- b # [linux]\n- c # see [docs]\n- d # [linux64]\n"
        "channels: [x]\nplatforms: [linux-64]\n"
    )
    conda = load_spec(write(tmp_path / "environment.yml", text)).conda
    assert conda is not None
    assert conda.dependencies == ("b", "c", "d")


@pytest.mark.parametrize(
    ("runtime", "python", "left_out"),
    [
        ("python-3.12", "3.12", []),
        ("python-3", "3", []),
        ("python", None, []),
        ("python-", None, []),
        ("", None, []),
        ("python-3.10.4\n", "3.10", ["runtime.txt: Python 3.10.4: repo2docker takes 3.10, of any patch"]),
        ("python-3.10-2023-01-01", "3.10", ["runtime.txt: 2023-01-01: a date is for R alone"]),
    ],
)
def test_each_form_of_a_runtime(
    tmp_path: Path, runtime: str, python: str | None, left_out: list[str]
) -> None:
    write(tmp_path / "runtime.txt", runtime)
    spec = load_spec(tmp_path)
    assert (spec.python, list(spec.left_out[:-1])) == (python, left_out)


@pytest.mark.parametrize("runtime", ["r-4.3-2024-01-10", "r", "ruby-3", "3.12", "python-3.x", "python3.12"])
def test_a_runtime_that_is_no_python_is_refused(tmp_path: Path, runtime: str) -> None:
    write(tmp_path / "runtime.txt", runtime)
    assert f"runtime.txt:1: {runtime!r}" in refused(tmp_path).message


def texts(spec: Spec) -> list[str]:
    return [requirement.text for requirement in spec.pip.requirements]


PROJECT = '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["idna"]\n'


def test_a_project_that_repo2docker_installs_brings_what_it_depends_on(tmp_path: Path) -> None:
    (tmp_path / "apt.txt").write_text("git\n")
    (tmp_path / "requirements.txt").write_text("six\n")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    spec = load_spec(tmp_path)
    assert (texts(spec), spec.python) == (["six"], ">=3.11")
    assert "pyproject.toml: repo2docker installs no project without a build-system" in spec.left_out
    (tmp_path / "pyproject.toml").write_text(f"{PROJECT}[build-system]\nrequires = []\n")
    spec = load_spec(tmp_path)
    assert (texts(spec), spec.python) == (["six", "idna"], ">=3.11")
    (tmp_path / "runtime.txt").write_text("python-3.12")
    assert load_spec(tmp_path).python == "3.12"
    # Where there is a directory of its own, the project isn't looked at.
    (tmp_path / "binder").mkdir()
    (tmp_path / "binder/environment.yaml").write_text("dependencies: [numpy]\n")
    spec = load_spec(tmp_path)
    assert (texts(spec), spec.python) == ([], None)
    assert "binder/environment.yaml: repo2docker reads environment.yml alone" in spec.left_out


def test_a_setup_py_that_alone_says_what_is_needed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "apt.txt").write_text("git\n")
    (tmp_path / "setup.py").write_text("from setuptools import setup\nsetup(install_requires=['six'])\n")
    with pytest.raises(SpecError, match=r"setup\.py: .* list what it depends on in requirements\.txt"):
        load_spec(tmp_path)
    (tmp_path / "requirements.txt").write_text("six\n")
    assert texts(load_spec(tmp_path)) == ["six"]


@pytest.mark.parametrize("channels", ["channels: []\n", "channels:\n", ""])
def test_no_channels_are_conda_s_own(channels: str, tmp_path: Path) -> None:
    (tmp_path / "environment.yml").write_text(f"{channels}dependencies: [python=3.12]\n")
    conda = load_spec(tmp_path).conda
    assert conda is not None
    assert conda.channels == ("defaults",)


def test_links_of_a_repo2docker_directory_are_followed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "binder").symlink_to("docs")
    write(tmp_path / "environment.yml", "dependencies: [numpy]\n")
    (tmp_path / "docs/environment.yml").symlink_to("../environment.yml")
    (tmp_path / "docs/apt.txt").symlink_to("nowhere")
    conda = load_spec(tmp_path).conda
    assert conda == CondaSpec(channels=("conda-forge",), dependencies=("numpy",))
    write(tmp_path / "Dockerfile", "FROM scratch\n")
    (tmp_path / "docs/Dockerfile").symlink_to("../Dockerfile")
    base = load_spec(tmp_path).base
    assert isinstance(base, BuildContextSpec)
    assert base.dockerfile_path == "Dockerfile"


def test_what_conda_only_warns_of_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = "channels: [x]\ndependencies: [a]\nplatforms: [win-64, linux-ppc64le]\n"
    text += "chanels: [y]\nchannel_priority: strict\n"
    path = write(tmp_path / "environment.yml", text)
    with caplog.at_level(logging.WARNING, "envbuild"):
        spec = load_spec(path)
    assert (spec.platforms, spec.conda) == ((LINUX_AMD64,), CondaSpec(channels=("x",), dependencies=("a",)))
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}:4: chanels: unknown key, ignored as conda does; did you mean 'channels'?",
        f"{path}:5: channel_priority: unknown key, ignored as conda does; known keys: name, channels, "
        "dependencies, variables, platforms, prefix, category",
        f"{path}:3: platforms: no images for win-64, linux-ppc64le: linux-64 is taken",
    ]


def test_a_conda_file_without_its_dependencies_is_no_empty_environment(tmp_path: Path) -> None:
    path = write(tmp_path / "environment.yml", "channels: [x]\ndependancies: [a]\n")
    assert refused(path).message == f"{path}:2: dependancies: unknown key; did you mean 'dependencies'?"


def test_missing_channels_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "environment.yml", "dependencies: [numpy]\n")
    with caplog.at_level(logging.WARNING, "envbuild"):
        load_spec(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: channels: no channels, so conda's own (defaults) are taken; name them, e.g. "
        "channels: [conda-forge]"
    ]


def test_values_of_environment_variables_reach_no_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2")
    path = write(tmp_path / "requirements.txt", "-i https://${TOKEN}@index.example/simple\nnumpy\n")
    spec = load_spec(path)
    assert spec.pip.options == ("--index-url https://${TOKEN}@index.example/simple",)
    assert "hunter2" not in repr(spec)


def test_the_directory_of_a_spec_is_not_in_its_digest(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        write(tmp_path / name / "wheels" / "own-1.0-py3-none-any.whl", "")
        path = write(tmp_path / name / "requirements.txt", "./wheels/own-1.0-py3-none-any.whl\nnumpy\n")
        digests.add(definition_digest(load_spec(path)))
    assert len(digests) == 1


def test_channel_and_index_order_count(tmp_path: Path) -> None:
    def conda(channels: str) -> str:
        text = f"channels: {channels}\ndependencies: [a]\n"
        return definition_digest(load_spec(write(tmp_path / "environment.yml", text)))

    def pip(*indexes: str) -> str:
        text = "".join(f"--extra-index-url https://{index}.example/simple\n" for index in indexes)
        return definition_digest(load_spec(write(tmp_path / "requirements.txt", f"{text}numpy\n")))

    assert conda("[x, y]") != conda("[y, x]")
    assert pip("x", "y") != pip("y", "x")


@pytest.mark.parametrize("form", ["oci", "oci-archive", "docker-archive"])
def test_an_image_may_lie_on_this_machine(form: str, tmp_path: Path) -> None:
    (tmp_path / "envbuild.yaml").write_text(f"image: {form}:../base:app:1\n")
    assert load_spec(tmp_path).base == ImageBaseSpec(reference=f"{form}:../base:app:1")
    (tmp_path / "envbuild.yaml").write_text(f"image: '{form}:'\n")
    with pytest.raises(SpecError, match="names no image on this machine; write oci:DIR, oci-archive:FILE"):
        load_spec(tmp_path)


def test_definition_names_every_field_but_the_labels() -> None:
    fields = set(Spec.__dataclass_fields__)
    labels = {"name", "source", "version", "description", "tags", "named", "left_out", "unrelated"}
    said = Spec(
        name="x",
        source=Path("x"),
        activation=ActivationScripts.IGNORE,
        clashes=Clashes.ERROR,
        bytecode=Bytecode.UNCHECKED,
        python_provider=PythonProvider.BASE,
        system_requirements=(SystemRequirement(name="cuda", version="12.9"),),
    )
    assert set(canonical_definition(said)) == fields - labels
    # Keys that came later: a spec without them is the one it was.
    plain = canonical_definition(Spec(name="x", source=Path("x")))
    later = {"activation", "clashes", "bytecode", "python_provider", "system_requirements"}
    assert later & set(plain) == set()


def test_schema_knows_exactly_the_keys_that_are_read() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    assert sorted(schema["properties"]) == sorted(
        [
            "$schema",
            "activation",
            "add_pip_as_python_dependency",
            "as_of",
            "base",
            "build",
            "build_constraints",
            "bytecode",
            "clashes",
            "conda_file",
            "constraints",
            "datastore",
            "description",
            "environment_variables",
            "extra_build_dependencies",
            "image",
            "index_strategy",
            "indexes",
            "inference_config",
            "name",
            "os_type",
            "platforms",
            "properties",
            "python",
            "python_provider",
            "requirements",
            "requirements_complete",
            "runtime",
            "spark",
            "system_requirements",
            "tags",
            "type",
            "user",
            "version",
        ]
    )
    assert schema["$defs"]["RouteModel"]["required"] == ["path", "port"]
    assert schema["properties"]["python"]["anyOf"][0]["type"] == ["string", "number"]


@pytest.mark.parametrize(
    ("file", "text", "named"),
    [
        ("envbuild.yaml", "name: a\nrequirements: [six]\n", True),
        ("envbuild.yaml", "requirements: [six]\n", False),
        ("environment.yml", "name: a\nchannels: [c]\ndependencies: [python]\n", True),
        ("environment.yml", "channels: [c]\ndependencies: [python]\n", False),
        ("requirements.txt", "six\n", False),
        ("pyproject.toml", "[project]\nname = 'a'\nversion = '1'\ndependencies = ['six']\n", True),
        ("MLproject", "name: a\npython_env: python_env.yaml\n", True),
        ("MLproject", "python_env: python_env.yaml\n", False),
        ("Dockerfile", "FROM scratch\n", False),
        ("azureml_environment.json", '{"name": "a", "docker": {"baseImage": "b:1"}}', True),
    ],
)
def test_spec_says_whether_its_source_names_it(file: str, text: str, named: bool, tmp_path: Path) -> None:
    (tmp_path / "python_env.yaml").write_text("python: '3.11'\ndependencies: [six]\n")
    (tmp_path / file).write_text(text)
    assert load_spec(tmp_path / file).named is named


BUILD = {
    "envbuild.yaml": "requirements: [demo]\nbuild_constraints: [setuptools<80]\n"
    "extra_build_dependencies: {Demo_X: [wheel, Setuptools<70]}\n",
    "pyproject.toml": "[project]\nname = 'a'\nversion = '1'\ndependencies = ['demo']\n[tool.uv]\n"
    "build-constraint-dependencies = ['setuptools<80']\n"
    "extra-build-dependencies = { Demo_X = ['wheel', 'Setuptools<70'] }\n",
    "script.py": "# /// script\n# dependencies = ['demo']\n# [tool.uv]\n"
    "# build-constraint-dependencies = ['setuptools<80']\n"
    "# extra-build-dependencies = { Demo_X = ['wheel', 'Setuptools<70'] }\n# ///\n",
}


def test_whether_conda_adds_pip_is_part_of_the_definition(tmp_path: Path) -> None:
    text = "name: x\nconda_file: {channels: [c], dependencies: [python]}\n"
    file = tmp_path / "envbuild.yaml"
    file.write_text(text)
    with_pip = load_spec(file)
    file.write_text(f"{text}add_pip_as_python_dependency: false\n")
    without = load_spec(file)
    assert with_pip.conda is not None
    assert without.conda is not None
    assert (with_pip.conda.add_pip, without.conda.add_pip) == (True, False)
    assert definition_digest(with_pip) != definition_digest(without)
    file.write_text(dump_native(without))
    assert definition_digest(load_spec(file)) == definition_digest(without)
    (tmp_path / "pixi.toml").write_text(
        "[workspace]\nchannels = ['c']\nplatforms = ['linux-64']\n[dependencies]\npython = '3.12.*'\n"
    )
    pixi = load_spec(tmp_path / "pixi.toml").conda
    assert pixi is not None
    assert pixi.add_pip is False


@pytest.mark.parametrize("file", sorted(BUILD))
def test_what_builds_take_is_part_of_the_definition(file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(BUILD[file])
    spec = load_spec(tmp_path / file)
    assert [line.text for line in spec.pip.build.constraints] == ["setuptools<80"]
    assert spec.pip.build.extra == (("demo-x", ("setuptools<70", "wheel")),)
    assert spec.left_out == () or not any("build" in line for line in spec.left_out)
    without = replace(spec, pip=replace(spec.pip, build=BuildDependencies()))
    assert definition_digest(without) != definition_digest(spec)
    written = tmp_path / "written.yaml"
    written.write_text(dump_native(spec))
    assert definition_digest(load_spec(written)) == definition_digest(spec)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("build_constraints: none.txt", "build_constraints: "),
        ("extra_build_dependencies: {a b: [x]}", "'a b' is no name of a distribution"),
        (
            "extra_build_dependencies: {a: ['x @ https://h/x.whl']}",
            "has an address; name a version of an index",
        ),
        ("extra_build_dependencies: {a: ['???']}", "'???' is no requirement"),
    ],
)
def test_what_no_build_can_take_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "envbuild.yaml").write_text(f"requirements: [demo]\n{text}\n")
    with pytest.raises(SpecError, match=re.escape(said)):
        load_spec(tmp_path)


def test_what_the_machines_have_is_said_for_all_platforms_or_for_each(tmp_path: Path) -> None:
    file = tmp_path / "envbuild.yaml"
    conda = "platforms: [linux/amd64, linux/arm64]\nconda_file: {channels: [c], dependencies: [python]}\n"
    stated = "{cuda: 12.9, glibc: '2.28', archspec: {linux-64: x86_64_v3, linux/arm64: neoverse_n1}}"
    file.write_text(f"name: x\n{conda}system_requirements: {stated}\n", encoding="utf-8")
    spec = load_spec(file)
    assert [(item.name, item.version, item.platform) for item in spec.system_requirements] == [
        ("archspec", "neoverse_n1", "linux/arm64"),
        ("archspec", "x86_64_v3", "linux/amd64"),
        ("cuda", "12.9", ""),
        ("glibc", "2.28", ""),
    ]
    file.write_text(dump_native(spec), encoding="utf-8")
    assert load_spec(file).system_requirements == spec.system_requirements
    file.write_text(f"name: x\n{conda}", encoding="utf-8")
    assert definition_digest(load_spec(file)) != definition_digest(spec)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{cuda: twelve}", "system_requirements.cuda: 'twelve' is no version; write a number in quotes"),
        ("{archspec: X Y}", "system_requirements.archspec: 'X Y' is no microarchitecture"),
        ("{cuda: {windows: '12'}}", "system_requirements.cuda: "),
        ("{rocm: '6'}", "system_requirements.rocm: unknown key; known keys: cuda, glibc, linux, archspec"),
        ("{cuda: '12'}\nconda_file:", "has no effect: only packages of conda ask for them"),
    ],
)
def test_what_can_t_be_asked_of_machines_is_refused(text: str, said: str, tmp_path: Path) -> None:
    conda = "" if "conda_file" in text else "conda_file: {channels: [c], dependencies: [python]}\n"
    (tmp_path / "envbuild.yaml").write_text(f"name: x\n{conda}system_requirements: {text}\n")
    with pytest.raises(SpecError, match=re.escape(said)):
        load_spec(tmp_path)


def test_what_a_build_may_do_are_keys_that_every_writer_keeps(tmp_path: Path) -> None:
    file = tmp_path / "envbuild.yaml"
    file.write_text("name: x\nactivation: ignore\nclashes: error\nbytecode: unchecked\n", encoding="utf-8")
    spec = load_spec(file)
    assert (spec.clashes, spec.bytecode) == (Clashes.ERROR, Bytecode.UNCHECKED)
    assert spec.activation is ActivationScripts.IGNORE
    file.write_text(dump_native(spec), encoding="utf-8")
    assert definition_digest(load_spec(file)) == definition_digest(spec)
