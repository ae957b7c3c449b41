"""Files of kinds alone: compose, GitHub's, their headers, and YAML that every reader reads the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from envbuild.errors import UsageError
from envbuild.progress import Silent
from envbuild.store.content import Store
from envbuild.targets.azureml import AzureTarget
from envbuild.targets.base import EnvironmentFiles, TargetFile
from envbuild.targets.files.base import FilesOnly, add_header, check_file_kind, file_target, has_header
from envbuild.targets.kinds import TargetContext
from envbuild.targets.yaml import yaml_text
from tests.unit.targets.test_azureml import JOB, PUBLISHED, REFERENCE, SERVICE


@pytest.fixture
def surroundings(tmp_path: Path) -> TargetContext:
    return TargetContext(store=Store(tmp_path / "store"), progress=Silent(), state=tmp_path, environ={})


def test_compose_job(surroundings: TargetContext) -> None:
    (file,) = file_target("compose", surroundings).job_files(replace(JOB, env=(("A", "$x"),)))
    assert file.name == "compose.yaml"
    assert (
        file.content
        == f"""\
name: demo-0123abcd
services:
  main:
    image: {REFERENCE}
    command:
    - python
    - train.py
    - --note
    - it's $$HOME
    restart: 'no'
    environment:
      A: $$x
"""
    )


def test_compose_service(surroundings: TargetContext) -> None:
    (file,) = file_target("compose", surroundings).service_files(SERVICE)
    main = yaml.safe_load(file.content)["services"]["main"]
    assert (main["image"], main["ports"]) == (REFERENCE, ["5001:5001"])


def test_github_environment(surroundings: TargetContext) -> None:
    made = file_target("github", surroundings)
    assert isinstance(made, EnvironmentFiles)
    (file,) = made.environment_files(PUBLISHED)
    assert (
        file.content
        == f"""\
container:
  image: {REFERENCE}
  options: --user root
"""
    )


def test_github_job(surroundings: TargetContext) -> None:
    job = replace(JOB, env=(("EPOCHS", "1e3"),), code_digest="sha256:" + "c" * 64)
    (file,) = file_target("github", surroundings).job_files(job)
    assert (
        file.content
        == f"""\
demo-0123abcd:
  runs-on: ubuntu-latest
  container:
    image: {REFERENCE}
    options: --user root
    env:
      EPOCHS: '1e3'
  steps:
  - run: python train.py --note 'it'"'"'s $HOME'
    working-directory: /workspace
"""
    )


@pytest.mark.parametrize(
    "job",
    [
        replace(JOB, command=("echo", "${{ secrets.X }}")),
        replace(JOB, env=(("A", "${{ github.token }}"),)),
    ],
)
def test_what_github_would_replace_is_refused(surroundings: TargetContext, job: object) -> None:
    with pytest.raises(UsageError, match="which GitHub replaces"):
        file_target("github", surroundings).job_files(job)  # type: ignore[arg-type]


def test_github_serves_nothing(surroundings: TargetContext) -> None:
    with pytest.raises(UsageError, match="serves nothing"):
        file_target("github", surroundings).service_files(SERVICE)


def test_a_kind_of_file_starts_nothing(surroundings: TargetContext) -> None:
    made = file_target("compose", surroundings)
    assert isinstance(made, FilesOnly)
    with pytest.raises(UsageError, match="starts nothing"):
        made.submit(JOB)


def test_a_kind_of_target_is_one_without_options(surroundings: TargetContext) -> None:
    made = file_target("azureml", surroundings)
    assert isinstance(made, AzureTarget)
    assert (made.record.name, made.record.options) == ("azureml", ())
    made = file_target("azureml", surroundings, registry="r.example.org/team")
    assert made.registry == "r.example.org/team"


@pytest.mark.parametrize(
    ("name", "near"), [("compse", "compose"), ("sbach", "sbatch"), ("clustr", "cluster"), ("githb", "github")]
)
def test_unknown_one_is_answered_by_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is neither .*did you mean {near}"):
        check_file_kind(name, ["cluster"])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.yaml", "x: 1\n", "# environment demo:1, lock L, image I\nx: 1\n"),
        ("run.sbatch", "#!/bin/bash\necho\n", "#!/bin/bash\n# environment demo:1, lock L, image I\necho\n"),
        ("run.sh", "#!/bin/sh", "#!/bin/sh\n# environment demo:1, lock L, image I\n"),
    ],
)
def test_header_leads_back_to_the_environment(name: str, content: str, expected: str) -> None:
    made = add_header(TargetFile(name=name, content=content, executable=True), "demo:1, lock L, image I")
    assert made == TargetFile(name=name, content=expected, executable=True)
    assert has_header(made.content)


def test_header_is_one_line_whatever_it_says() -> None:
    made = add_header(TargetFile(name="a.yaml", content="x: 1\n"), "demo\nevil: true\r\nx")
    assert made.content == "# environment demo evil: true x\nx: 1\n"


def test_a_file_that_takes_no_comment_has_none() -> None:
    file = TargetFile(name="job.json", content="{}")
    assert add_header(file, "demo:1") == file
    assert not has_header(file.content)


@pytest.mark.parametrize(
    "text",
    ["1e3", "12345e678901", "0o17", "0x1f", ".5", "+1", "1.", "yes", "NO", "null", "~", "", "a: b", "- a"],
)
def test_yaml_quotes_what_any_reader_takes_for_something_else(text: str) -> None:
    assert yaml_text({"key": text}) == f"key: '{text}'\n"


def test_yaml_reads_back_as_it_was() -> None:
    value = {"lines": "a\n  b\n", "é": "\x00\x1b[31m", "n": 7, "f": 1.5, "t": True, "none": None}
    assert yaml.safe_load(yaml_text(value)) == value


def test_yaml_has_no_aliases() -> None:
    shared = {"path": "/"}
    assert yaml_text({"a": shared, "b": shared}) == "a:\n  path: /\nb:\n  path: /\n"
