"""What ``envbuild lint`` prints where, and how it ends; with the real pipeline on real files."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from envbuild.cli.call import Call
from envbuild.cli.main import main
from tests.fakes.wheelhouse import Wheel, Wheelhouse
from tests.unit.cli.conftest import Shown, Terminal

Lint = Callable[..., Shown]

BAD = "name: x\npython: '3.13'\nenvironment_variables:\n  A_TOKEN: hunter2\nuser: root\n"
GOOD = "name: x\npython: '3.13'\n"


@pytest.fixture
def lint(tmp_path: Path) -> Lint:
    def run(*argv: str, terminal: bool = False) -> Shown:
        out: io.StringIO = Terminal() if terminal else io.StringIO()
        err: io.StringIO = Terminal() if terminal else io.StringIO()
        call = Call(
            environ={"HOME": str(tmp_path / "home")},
            cwd=tmp_path,
            stdout=out,
            stderr=err,
            today=lambda: date(2026, 11, 23),
        )
        paths = [str(tmp_path / each) if each.endswith((".yaml", "specs")) else each for each in argv]
        status = main(["lint", "--progress", "none", *paths], call=call)
        return Shown(status, out.getvalue(), err.getvalue())

    (tmp_path / "bad.yaml").write_text(BAD)
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "broken.yaml").write_text("nme: x\n")
    return run


def test_a_good_spec_has_no_lines(lint: Lint) -> None:
    assert lint("good.yaml") == Shown(0, "", "nothing doubtful in 1 spec\n")


def test_each_finding_is_a_line_with_its_place(lint: Lint) -> None:
    shown = lint("good.yaml", "-f", "bad.yaml")
    first, second = shown.out.splitlines()
    assert first.startswith("bad.yaml:4: EB301 error: A_TOKEN holds a value that by its name is secret")
    assert second == (
        "bad.yaml:5: EB701 warning: everything in the image runs as root; "
        "leave user out: 1000:1000 is the default"
    )
    assert (shown.status, shown.err) == (1, "1 error, 1 warning in 2 specs\n")
    assert "hunter2" not in shown.out


def test_warnings_count_where_one_is_strict(lint: Lint) -> None:
    assert lint("bad.yaml", "--ignore", "EB301").status == 0
    assert lint("bad.yaml", "--ignore", "eb301", "--strict").status == 1
    assert lint("bad.yaml", "--ignore", "EB301,EB7", "--strict") == Shown(
        0, "", "nothing doubtful in 1 spec\n"
    )
    assert lint("bad.yaml", "--select", "EB7").out.startswith("bad.yaml:5: EB701")


def test_json_is_one_object(lint: Lint) -> None:
    shown = lint("bad.yaml", "--json", "--select", "EB7")
    assert json.loads(shown.out) == {
        "findings": [
            {
                "code": "EB701",
                "severity": "warning",
                "message": "everything in the image runs as root",
                "hint": "leave user out: 1000:1000 is the default",
                "file": "bad.yaml",
                "line": 5,
                "key": "user",
            }
        ],
        "errors": 0,
        "warnings": 1,
        "infos": 0,
        "refused": [],
    }
    assert (shown.status, shown.err) == (0, "")


def test_a_spec_that_cant_be_read_ends_with_3_after_the_others(lint: Lint) -> None:
    shown = lint("broken.yaml", "bad.yaml")
    assert shown.status == 3
    assert [line.split()[1] for line in shown.out.splitlines()] == ["EB301", "EB701"]
    assert "broken.yaml:1: nme: unknown key; did you mean 'name'?" in shown.err
    assert "2 warnings" not in shown.err
    assert "in 1 spec\n1 spec can't be read\n" in shown.err


def test_a_spec_that_is_refused_is_never_called_clean(lint: Lint, tmp_path: Path) -> None:
    shown = lint("broken.yaml")
    assert "nothing doubtful" not in shown.err
    assert lint("broken.yaml", "good.yaml").err.startswith(
        "nothing doubtful in 1 spec\n1 spec can't be read\n"
    )
    assert json.loads(lint("broken.yaml", "--json").out)["refused"] == [str(tmp_path / "broken.yaml")]


def test_clean_projects_are_clean_where_one_is_strict(lint: Lint, tmp_path: Path) -> None:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs/pyproject.toml").write_text(
        '[project]\nname = "demo"\nversion = "1"\nrequires-python = "==3.13.*"\n'
        'dependencies = ["six==1.17.0"]\n'
        '[project.optional-dependencies]\nplot = ["seaborn"]\n[dependency-groups]\ndev = ["pytest"]\n'
    )
    (tmp_path / "job.yaml").write_text(
        "type: command\ncommand: python train.py\ncompute: azureml:cpu\ncode: src\nexperiment_name: demo\n"
        f"environment:\n  image: registry.example/base@sha256:{64 * 'a'}\n"
        "  conda_file: {channels: [conda-forge], dependencies: [python=3.13, pip=25.3]}\n"
    )
    shown = lint("specs", "job.yaml", "--strict")
    assert (shown.status, {line.split()[1] for line in shown.out.splitlines()}) == (0, {"EB803"})


def test_an_unknown_code_ends_with_2_before_any_work(lint: Lint) -> None:
    shown = lint("broken.yaml", "--select", "EB999")
    assert (shown.status, shown.out) == (2, "")


def test_a_lock_beside_the_spec_counts(lint: Lint, tmp_path: Path) -> None:
    lock = tmp_path / "locks" / "x"
    lock.mkdir(parents=True)
    (lock / "envbuild.lock").write_text("{}")
    shown = lint("good.yaml", "--lock-dir", str(tmp_path / "locks"))
    assert shown.out.startswith("good.yaml: EB802 warning: the lock can't be read")


def test_text_of_strangers_drives_no_terminal(lint: Lint, tmp_path: Path) -> None:
    directory = tmp_path / "specs"
    directory.mkdir()
    (directory / "c\x1b[31m.yml").write_text("dependencies: [python=3.13]\n")
    (directory / "envbuild.yaml").write_text('conda_file: "c\\x1b[31m.yml"\n')
    shown = lint("specs", terminal=True)
    assert "specs/c\\x1b[31m.yml:1: \x1b[33;1mEB401 warning:\x1b[0m no channels" in shown.out
    assert "\x1b[31m.yml" not in shown.out


def test_online_says_which_names_several_indexes_offer(tmp_path: Path) -> None:
    main_index, more = Wheelhouse(tmp_path / "main"), Wheelhouse(tmp_path / "more")
    main_index.add(*(Wheel(name=name) for name in ("six", "torch", "acme-tools", "numpy")))
    more.add(*(Wheel(name=name) for name in ("torch", "acme-tools", "private")))

    def run(*options: str, extra: str = "", **environ: str) -> Shown:
        out, err = io.StringIO(), io.StringIO()
        (tmp_path / "envbuild.yaml").write_text(
            f"python: '3.13'\nrequirements:\n- --extra-index-url {login}\n- six==1\n- Acme_Tools==1\n"
            f"- torch==1\n{extra}"
        )
        call = Call(
            environ={
                "HOME": str(tmp_path / "home"),
                "PIP_CONFIG_FILE": os.devnull,
                "UV_NO_CONFIG": "1",
                **environ,
            },
            cwd=tmp_path,
            stdout=out,
            stderr=err,
            today=lambda: date(2026, 11, 23),
        )
        file = str(tmp_path / "envbuild.yaml")
        status = main(["lint", file, "--select", "EB404", "--progress", "none", *options], call=call)
        return Shown(status, out.getvalue(), err.getvalue())

    with main_index.serve() as first, more.serve() as second:
        login = second.replace("//", "//me:${TOKEN}@")
        environ = {"UV_DEFAULT_INDEX": first, "TOKEN": "hunter2"}
        offered = f"is offered by {second} and {first}, and the best match of all counts; say which is meant "
        shown = run("--online", extra=f"indexes: [{{url: '{second}', packages: [torch]}}]\n", **environ)
        assert (shown.status, shown.err) == (0, "1 warning in 1 spec\n")
        assert shown.out == (
            f"envbuild.yaml:5: EB404 warning: acme-tools {offered}(indexes: [{{url: …, packages: "
            "[acme-tools]}]), or write index_strategy: first-index\n"
        )
        assert run("--online", "--offline", **environ).status == 2
        assert "EB404 warning: several indexes" in run(**environ).out
    gone = run("--online", **environ)
    assert "can't ask " in gone.err
    assert "hunter2" not in gone.err + gone.out + shown.err + shown.out
