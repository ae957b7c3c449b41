"""``envbuild target`` and what ``envbuild run --target`` refuses, in this process with a real workspace."""

from __future__ import annotations

import json

import pytest

from tests.unit.cli.conftest import CommandLine


def test_target_is_added_shown_listed_and_removed(envbuild: CommandLine) -> None:
    added = envbuild("target", "add", "box", "docker", "gpus=true", "host=ssh://ann@box", "--json")
    assert (added.status, added.err) == (0, "box is a target of the kind docker\n")
    record = {"name": "box", "kind": "docker", "options": {"gpus": "true", "host": "ssh://ann@box"}}
    assert json.loads(added.out) == record
    assert json.loads(envbuild("target", "show", "box", "--json").out) == record
    local = {"name": "local", "kind": "local", "options": {}}
    assert json.loads(envbuild("target", "list", "--json").out) == {"targets": [record, local]}
    assert envbuild("target", "list").out.splitlines() == [
        "name   kind    options",
        "box    docker  gpus=true host=ssh://ann@box",
        "local  local",
    ]
    assert envbuild("target", "show", "box").out.splitlines() == [
        "name  box",
        "kind  docker",
        "gpus  true",
        "host  ssh://ann@box",
    ]
    removed = envbuild("target", "remove", "box", "--json")
    assert (removed.status, json.loads(removed.out)) == (0, {"removed": "box"})
    assert removed.err == "box is no target any more\n"
    assert json.loads(envbuild("target", "list", "--json").out) == {"targets": [local]}


def test_this_machine_is_there_without_a_workspace(envbuild: CommandLine) -> None:
    assert envbuild("target", "show", "local").out == "name  local\nkind  local\n"


def test_another_one_of_the_name_needs_to_be_asked_for(envbuild: CommandLine) -> None:
    envbuild("target", "add", "box", "docker", "gpus=true")
    again = envbuild("target", "add", "box", "docker", "gpus=true")
    assert again.status == 0
    refused = envbuild("target", "add", "box", "local")
    assert (refused.status, refused.err) == (
        8,
        "error: there is a target box already, of the kind docker\n"
        "hint: replace it with --replace, or choose another name\n",
    )
    assert envbuild("target", "add", "box", "local", "--replace").status == 0
    assert envbuild("target", "show", "box").out == "name  box\nkind  local\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("add", "box", "dokcer"), 2, "error: unknown kind of target 'dokcer'; did you mean docker?"),
        (("add", "box", "docker", "gpus"), 2, "error: 'gpus' is not KEY=VALUE"),
        (("add", "box", "docker", "=x"), 2, "error: '=x' is not KEY=VALUE"),
        (("add", "box", "docker", "gpus=true", "gpus=false"), 2, "error: the option gpus is given twice"),
        (("add", "box", "docker", "gpu=true"), 2, "a docker target has no option 'gpu'; did you mean gpus?"),
        (("add", "box", "docker", "host=tcp://a:hunter2@b:1"), 2, "host: looks like a secret"),
        (("add", "../box", "docker"), 8, "error: "),
        (("show", "box"), 8, "error: there is no target 'box'"),
        (("remove", "local"), 8, "error: there is no target 'local'"),
        (("kinds", "dokcer"), 2, "did you mean docker?"),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_is_kept(
    envbuild: CommandLine, arguments: tuple[str, ...], status: int, said: str
) -> None:
    shown = envbuild("target", *arguments)
    assert (shown.status, shown.out) == (status, "")
    assert said in shown.err
    assert "hunter2" not in shown.err
    assert "Traceback" not in shown.err
    assert len(json.loads(envbuild("target", "list", "--json").out)["targets"]) == 1


def test_near_names_are_offered(envbuild: CommandLine) -> None:
    envbuild("target", "add", "cluster", "docker")
    assert "hint: did you mean cluster?" in envbuild("target", "show", "clutser").err


def test_kinds_and_their_options(envbuild: CommandLine) -> None:
    kinds = envbuild("target", "kinds").out.splitlines()
    assert kinds[:2] == ["local", "docker"]
    assert json.loads(envbuild("target", "kinds", "--json").out)["kinds"] == kinds
    lines = envbuild("target", "kinds", "docker").out.splitlines()
    assert lines[0].split() == ["option", "default"]
    assert [line.split()[0] for line in lines[1:4]] == ["host", "context", "gpus"]
    found = json.loads(envbuild("target", "kinds", "local", "--json").out)
    assert found["options"][0] == {
        "name": "backend",
        "help": "auto, docker or userns",
        "required": False,
        "default": "auto",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--target", "local", "--mount", "/tmp:/x"), "--target and --mount"),
        (("--target", "local", "--workdir", "."), "--target and --workdir"),
        (("--target", "local", "--backend", "userns"), "--target and --backend"),
        (("--outputs", "out"), "--code, --outputs and --dry-run are for targets"),
    ],
)
def test_what_a_job_does_not_take_is_refused(
    envbuild: CommandLine, arguments: tuple[str, ...], said: str
) -> None:
    shown = envbuild("run", ".", *arguments, "--", "true")
    assert (shown.status, shown.out) == (2, "")
    assert said in shown.err
    assert envbuild.answers.asked == []


def test_runs_of_nothing(envbuild: CommandLine) -> None:
    assert envbuild("runs", "list").err == "nothing was run\n"
    assert json.loads(envbuild("runs", "list", "--json").out) == {"runs": []}
    assert "there is no run 'x'" in envbuild("runs", "show", "x").err
    assert envbuild("runs", "logs", "x").status == 8
