"""What each command asks of the pipeline, and what it writes where."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from envbuild.app.requests import BuildRequest, LockRequest, PinChange, RenderRequest, RunRequest
from envbuild.errors import StaleLockError
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from tests.unit.cli.conftest import (
    BOTH,
    DEFINITION,
    DIFF_ID,
    IMAGE,
    INDEX,
    LAYER,
    LOCK,
    REFERENCE,
    CommandLine,
)

UPDATE = PinChange(platform="linux/amd64", kind="pip", name="numpy", before="2.3.4", after="2.3.5")


def test_build_prints_the_reference_and_nothing_else(envbuild: CommandLine) -> None:
    shown = envbuild("build")
    assert (shown.status, shown.out) == (0, REFERENCE + "\n")
    assert envbuild.answers.asked == [("load", "."), ("build", BuildRequest())]


def test_build_passes_every_option_on(envbuild: CommandLine) -> None:
    envbuild(
        *[
            "build",
            "spec.yaml",
            "-p",
            "linux-64",
            "-p",
            "linux/arm64",
            "-p",
            "linux/amd64",
            "-t",
            "a:1",
            "-t",
            "b:2",
            "-o",
            "oci:x",
            "-o",
            "oci-archive:y.tar",
            "--push",
            "r.example/a",
            "--push",
            "r.example/b:1",
        ],
        *["--load", "--no-cache", "-P", "numpy", "-P", "scipy", "--as-of", "2026-11-01"],
    )
    assert envbuild.answers.asked == [
        ("load", "spec.yaml"),
        (
            "build",
            BuildRequest(
                platforms=(LINUX_AMD64, LINUX_ARM64),
                tags=("a:1", "b:2"),
                outputs=("oci:x", "oci-archive:y.tar"),
                push=("r.example/a", "r.example/b:1"),
                load=True,
                no_cache=True,
                lock=LockRequest(upgrade_packages=("numpy", "scipy"), as_of=date(2026, 11, 1)),
            ),
        ),
    ]


def test_build_json_has_the_keys_of_the_design(envbuild: CommandLine) -> None:
    shown = envbuild("build", "--json")
    layer = {"digest": LAYER, "diff_id": DIFF_ID, "size": 18_000_000, "artifacts": ["numpy 2.3.5"]}
    assert json.loads(shown.out) == {
        "reference": REFERENCE,
        "digest": IMAGE,
        "platform": "linux/amd64",
        "level": "L3",
        "lock_digest": LOCK,
        "definition_digest": DEFINITION,
        "layers": [layer],
        "engine": "native",
        "cached": False,
        "seconds": 4.25,
        "published": ["oci layout at out"],
        "pushed": [],
        "found": [],
    }


def test_an_engine_of_another_kind_is_named(envbuild: CommandLine) -> None:
    envbuild.answers.engine = "buildx"
    assert "built by the buildx engine in 4.2 s" in envbuild("build").err


def test_build_passes_engine_and_secrets_on(envbuild: CommandLine) -> None:
    envbuild("build", "--engine", "buildx", "--secret", "id=a,src=f", "--secret", "id=b,env=B")
    assert envbuild.answers.asked[1] == ("build", BuildRequest(secrets=("id=a,src=f", "id=b,env=B")))
    assert envbuild.answers.settings[-1].engine == "buildx"


def test_render_prints_the_directory_and_nothing_else(envbuild: CommandLine) -> None:
    shown = envbuild("render", "spec.yaml", "-o", "out", "--offline-context", "--locked")
    assert (shown.status, shown.out) == (0, f"{envbuild.directory / 'out'}\n")
    request = RenderRequest(
        output=envbuild.directory / "out", offline_context=True, build=BuildRequest(locked=True)
    )
    assert envbuild.answers.asked == [("load", "spec.yaml"), ("render", request)]
    assert "linux/amd64  L2  7 files, 32.8 MB, lock 111111111111" in shown.err


def test_render_json_lists_every_platform(envbuild: CommandLine) -> None:
    envbuild.answers.platforms = BOTH
    value = json.loads(envbuild("render", "-o", "out", "--json").out)
    assert [(each["platform"], Path(each["directory"]).name) for each in value["contexts"]] == [
        ("linux/amd64", "linux-64"),
        ("linux/arm64", "linux-aarch64"),
    ]
    assert value["contexts"][0]["lock_digest"] == LOCK


def test_render_needs_a_directory(envbuild: CommandLine) -> None:
    shown = envbuild("render")
    assert (shown.status, shown.out) == (2, "")
    assert "'-o' / '--output'" in shown.err


def test_build_json_of_several_platforms_lists_all_images(envbuild: CommandLine) -> None:
    envbuild.answers.platforms = BOTH
    value = json.loads(envbuild("build", "--json").out)
    assert value["digest"] == INDEX
    assert value["platform"] == "linux/amd64"
    assert [(each["platform"], each["digest"]) for each in value["images"]] == [
        ("linux/amd64", IMAGE),
        ("linux/arm64", IMAGE),
    ]


def test_metadata_file_is_what_json_prints(envbuild: CommandLine) -> None:
    shown = envbuild("build", "--json", "--metadata-file", "meta.json")
    assert (envbuild.directory / "meta.json").read_text() == shown.out
    assert [path.name for path in envbuild.directory.iterdir()] == ["meta.json"]


def test_metadata_file_that_cannot_be_written_is_said(envbuild: CommandLine) -> None:
    shown = envbuild("build", "--metadata-file", "absent/meta.json")
    assert (shown.status, shown.out) == (7, "")
    assert "meta.json: No such file or directory" in shown.err


def test_build_dry_run_shows_the_plan_and_builds_nothing(envbuild: CommandLine) -> None:
    shown = envbuild("build", "--dry-run")
    assert [kind for kind, _ in envbuild.answers.asked] == ["load", "lock", "described", "plan"]
    assert envbuild.answers.of("lock") == LockRequest(dry_run=True)
    assert "numpy 2.3.5" in shown.out
    assert "linux/amd64  L2  " in shown.out


def test_quiet_says_nothing_but_the_reference(envbuild: CommandLine) -> None:
    shown = envbuild("build", "-q", "-v")
    assert (shown.out, shown.err) == (REFERENCE + "\n", "")


def test_display_options_may_stand_before_the_command(envbuild: CommandLine) -> None:
    assert envbuild("-q", "build").err == ""


def test_people_read_what_was_built_on_stderr(envbuild: CommandLine) -> None:
    assert envbuild("build").err.splitlines() == [
        "linux/amd64  L3  1 layer, 18.0 MB, lock 111111111111",
        "composed in 4.2 s",
        "oci layout at out",
    ]


@pytest.mark.parametrize(
    "options",
    [
        "--locked --frozen",
        "--locked --upgrade",
        "--frozen -P x",
        "--frozen --as-of 2026-01-01",
        "--upgrade -P x",
    ],
)
def test_options_that_exclude_each_other_are_refused(envbuild: CommandLine, options: str) -> None:
    shown = envbuild("build", *options.split())
    assert shown.status == 2
    assert "exclude each other" in shown.err
    assert envbuild.answers.asked == []


def test_file_option_names_the_spec_too(envbuild: CommandLine) -> None:
    envbuild("build", "-f", "other.yml")
    assert envbuild.answers.of("load") == "other.yml"
    assert envbuild("build", "a", "-f", "b").status == 2


def test_lock_passes_every_option_on(envbuild: CommandLine) -> None:
    envbuild(
        "lock",
        "--upgrade",
        "--as-of",
        "2026-11-01",
        "--no-bytecode",
        "--dry-run",
        "--pip-engine",
        "pip-tools",
    )
    assert envbuild.answers.of("lock") == LockRequest(
        upgrade=True, as_of=date(2026, 11, 1), bytecode=False, dry_run=True
    )
    assert envbuild.answers.settings[0].pip_engine == "pip-tools"


def test_lock_check_is_offline_work_of_check_alone(envbuild: CommandLine) -> None:
    shown = envbuild("lock", "--check")
    assert (shown.status, shown.out, shown.err) == (0, "", "the lock of train answers its spec\n")
    assert [kind for kind, _ in envbuild.answers.asked] == ["load", "check"]


@pytest.mark.parametrize(("kept", "origin"), [(True, "an earlier --as-of"), (False, "its spec")])
def test_lock_check_says_which_day_bounds_the_lock(envbuild: CommandLine, kept: bool, origin: str) -> None:
    envbuild.answers.bound = ("2026-11-01", kept)
    shown = envbuild("lock", "--check")
    assert shown.err == f"the lock of train answers its spec; as of 2026-11-01, as {origin} says\n"


def test_stale_lock_is_exit_one_with_all_reasons(envbuild: CommandLine) -> None:
    envbuild.answers.fault = StaleLockError(
        "scipy is not pinned\nnumpy 1.0 doesn't fit >=2", hint="envbuild lock"
    )
    shown = envbuild("lock", "--check")
    assert shown.status == 1
    assert shown.err.splitlines() == [
        "error: scipy is not pinned",
        "       numpy 1.0 doesn't fit >=2",
        "hint: envbuild lock",
    ]


def test_lock_dry_run_prints_the_difference_on_stdout(envbuild: CommandLine) -> None:
    envbuild.answers.changes = (
        UPDATE,
        PinChange(platform="linux/amd64", kind="debian", name="zlib1g", before=None, after="1.3"),
        PinChange(platform="linux/arm64", kind="pip", name="numpy", before="2.3.4", after="2.3.5"),
        PinChange(platform="linux/amd64", kind="pip", name="scipy", before="1.15", after=None),
    )
    shown = envbuild("lock", "--dry-run")
    assert shown.out.splitlines() == [
        "linux/amd64, linux/arm64",
        "  ~  pip  numpy  2.3.4 -> 2.3.5",
        "linux/amd64",
        "  +  debian  zlib1g  1.3",
        "  -  pip     scipy   1.15",
    ]
    assert shown.err == (
        "/specs/lockfiles/train would change: "
        "1 platform, 1 debian, 1 pip; 1 pin added, 1 removed, 2 changed\n"
    )


def test_lock_tells_the_difference_on_stderr_once_written(envbuild: CommandLine) -> None:
    envbuild.answers.changes = (UPDATE,)
    shown = envbuild("lock")
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "linux/amd64",
        "  ~  pip  numpy  2.3.4 -> 2.3.5",
        "/specs/lockfiles/train written: 1 platform, 1 debian, 1 pip; 1 pin changed",
    ]


def test_lock_json_has_the_changes(envbuild: CommandLine) -> None:
    envbuild.answers.changes = (UPDATE,)
    value = json.loads(envbuild("lock", "--json").out)
    assert value["written"] is True
    assert value["changes"] == [
        {"platform": "linux/amd64", "kind": "pip", "name": "numpy", "before": "2.3.4", "after": "2.3.5"}
    ]


def test_plan_shows_layers_artifacts_sizes_and_level(envbuild: CommandLine) -> None:
    assert envbuild("plan", "-v", "-p", "linux-64").out.splitlines() == [
        "linux/amd64  L3  lock 111111111111, python 3.13.5 from debian",
        "  1  numpy  18.2 MB  numpy 2.3.5",
        "            18.2 MB  numpy 2.3.5",
        "  1 layer, 1 artifact, 18.2 MB to download where nothing is cached",
    ]


def test_plan_of_hostile_names_cannot_drive_the_terminal(envbuild: CommandLine) -> None:
    envbuild.answers.package = "evil\x1b]0;title\x07\u202e"
    shown = envbuild("plan")
    assert "evil\\x1b]0;title\\x07\\u202e" in shown.out
    assert "\x1b" not in shown.out + shown.err


def test_plan_covers_all_platforms_of_the_lock(envbuild: CommandLine) -> None:
    envbuild.answers.platforms = BOTH
    value = json.loads(envbuild("plan", "--json").out)
    assert [each["platform"] for each in value["plans"]] == ["linux/amd64", "linux/arm64"]
    assert value["plans"][0]["layers"][0]["artifacts"][0]["sha256"] == "3" * 64


def test_plan_locked_checks_first(envbuild: CommandLine) -> None:
    envbuild("plan", "--locked")
    assert [kind for kind, _ in envbuild.answers.asked] == ["load", "check", "lock", "plan"]


def test_run_gives_the_command_untouched_and_returns_its_status(envbuild: CommandLine) -> None:
    envbuild.answers.status = 42
    envbuild.environ["TOKEN"] = "t"
    shown = envbuild(
        *[
            "run",
            "spec.yaml",
            "-e",
            "B=2",
            "-e",
            "A=1",
            "-e",
            "B=3=4",
            "-e",
            "TOKEN",
            "-e",
            "ABSENT",
            "--mount",
            "/d:/d:ro",
            "--backend",
            "userns",
            "--",
        ],
        *["python", "-c", "pass", "-e", "X=1", "--", "--help"],
    )
    assert (shown.status, shown.out) == (42, "")
    assert envbuild.answers.of("run") == RunRequest(
        command=("python", "-c", "pass", "-e", "X=1", "--", "--help"),
        env=(("A", "1"), ("B", "3=4"), ("TOKEN", "t")),
        backend="userns",
        workdir=envbuild.directory,
        mounts=("/d:/d:ro",),
    )


def test_run_needs_no_spec_but_a_command(envbuild: CommandLine) -> None:
    envbuild("run", "--", "true")
    assert envbuild.answers.of("load") == "."
    shown = envbuild("run", "spec.yaml")
    assert shown.status == 2
    assert "no command to run is given" in shown.err


def test_run_refuses_a_variable_without_a_name(envbuild: CommandLine) -> None:
    assert envbuild("run", "-e", "=x", "--", "true").status == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script_asks_envbuild(envbuild: CommandLine, shell: str) -> None:
    shown = envbuild("completion", shell)
    assert shown.status == 0
    assert f"_ENVBUILD_COMPLETE={shell}_complete" in shown.out


def test_doctor_tells_of_a_store_that_cannot_be_written(envbuild: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    envbuild.environ["DOCKER_HOST"] = f"unix://{tmp_path}/absent.sock"
    shown = envbuild("doctor", "--json", "--cache-dir", "file/store")
    found = json.loads(shown.out)
    assert list(found) == [
        *("envbuild", "uv", "indexes", "conda channels", "engine", "buildkit"),
        *("user namespaces", "debian mirror", "store"),
    ]  # fmt: skip
    assert found["uv"]["state"] == "ok"
    assert found["engine"]["state"] == "absent"
    assert found["buildkit"]["state"] == "absent"
    assert found["buildkit"]["detail"].endswith("; --engine buildx needs it")
    assert found["store"]["state"] == "bad"
    assert shown.status == 1


def test_settings_come_from_the_project_of_the_spec(envbuild: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "envbuild.toml").write_text('layer-budget = 20\ncache-dir = "store"\n')
    envbuild("build", "project/spec.yaml", "--offline", "-j", "3")
    (settings,) = envbuild.answers.settings
    assert (settings.layer_budget, settings.offline, settings.workers) == (20, True, 3)
    assert settings.cache_dir == tmp_path / "project" / "store"
