"""Rendered contexts: golden Dockerfiles, the rules they keep, and which files stand beside them."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import BuildError
from envbuild.lock.model import GitCommit, ImageBase, Sdist
from envbuild.render.base import BuildContext
from envbuild.render.templates import Templates
from tests.unit.lock.sample import AMD64, IDNA, SIX
from tests.unit.render.rules import broken_rules, instructions
from tests.unit.render.sample import DIGEST, LOCKS, lock, plan_of, small_renderer

GOLDEN = Path(__file__).parents[2] / "cases" / "render"
MICROMAMBA = "registry.example/mamba/micromamba:2.3@" + DIGEST


def context_of(
    name: str, tmp_path: Path, *, offline: bool = False, micromamba: str | None = None
) -> BuildContext:
    renderer = small_renderer(tmp_path, micromamba=micromamba)
    return renderer.context(renderer.describe(plan_of(LOCKS[name]), "dockerfile"), offline=offline)


def content(context: BuildContext, path: str) -> str:
    (found,) = (file.content for file in context.files if file.path == path)
    return (found if isinstance(found, bytes) else found.read_bytes()).decode()


CASES = [
    *((name, False, None) for name in LOCKS),
    ("system-managed-python", True, None),
    ("system-managed-python-conda", True, None),
    ("system-managed-python-conda", False, MICROMAMBA),
    ("system-managed-python-conda", True, MICROMAMBA),
    ("system-managed-spark", True, None),
]


@pytest.mark.parametrize(("name", "offline", "micromamba"), CASES)
def test_the_dockerfile_is_the_one_that_was_reviewed(
    name: str, offline: bool, micromamba: str | None, tmp_path: Path
) -> None:
    text = content(context_of(name, tmp_path, offline=offline, micromamba=micromamba), "Dockerfile")
    words = [name, *(["micromamba"] if micromamba else []), *(["offline"] if offline else [])]
    golden = GOLDEN / f"{'-'.join(words)}.Dockerfile"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(_reviewed(text))
    assert _reviewed(text) == golden.read_text()
    assert broken_rules(text, taken_as_is=name.startswith("user-managed")) == []


def _reviewed(text: str) -> str:
    """``text`` without the digests that every word of a template's comment changes; the samples' own stay."""
    return re.sub(
        r"sha256:[0-9a-f]{64}", lambda match: match[0] if len(set(match[0][7:])) == 1 else "sha256:…", text
    )


@pytest.mark.parametrize("name", LOCKS)
@pytest.mark.parametrize("offline", [False, True])
def test_same_lock_same_bytes(name: str, offline: bool, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    one = context_of(name, tmp_path / "one", offline=offline)
    assert one.digest == context_of(name, tmp_path / "other", offline=offline).digest


@pytest.mark.parametrize("offline", [False, True])
def test_everything_the_build_needs_and_nothing_else(offline: bool, tmp_path: Path) -> None:
    found = [file.path for file in context_of("system-managed-python", tmp_path, offline=offline).files]
    wheels = ["wheels/idna-3.10-py3-none-any.whl", "wheels/six-1.17.0-py2.py3-none-any.whl"]
    assert found == [
        ".dockerignore",
        "Dockerfile",
        "base.tar.gz",
        "installer/pip-26.3-py3-none-any.whl",
        "lock/envbuild.lock",
        "lock/requirements.linux-64.txt",
        "requirements.txt",
        *(wheels if offline else []),
    ]


@pytest.mark.parametrize(("name", "offline", "micromamba"), CASES)
def test_every_file_that_a_step_takes_is_there_and_every_file_is_taken(
    name: str, offline: bool, micromamba: str | None, tmp_path: Path
) -> None:
    context = context_of(name, tmp_path, offline=offline, micromamba=micromamba)
    paths = [file.path for file in context.files]
    taken = {"Dockerfile", ".dockerignore"}
    for instruction in instructions(content(context, "Dockerfile")):
        if instruction.name in ("COPY", "ADD") and "--from=" not in instruction.arguments:
            *sources, _ = instruction.arguments.split()
            for source in sources:
                here = {path for path in paths if path == source or path.startswith(source.rstrip("/") + "/")}
                assert here, f"{source} is not in the context"
                taken |= here
    assert taken == set(paths)


def test_a_stray_file_changes_nothing(tmp_path: Path) -> None:
    assert content(context_of("system-managed-python", tmp_path), ".dockerignore").splitlines() == [
        "*", "!base.tar.gz", "!installer", "!lock", "!requirements.txt", "!Dockerfile",
    ]  # fmt: skip


def test_what_no_index_has_goes_into_the_context(tmp_path: Path) -> None:
    built = replace(
        SIX,
        sdist=Sdist(file="six-1.17.0.tar.gz", size=1, sha256="4" * 64),
        url="git+https://git.example/six@main",
        git=GitCommit(commit="c" * 40, tree="7" * 40),
    )
    local = replace(IDNA, url="file:wheels/idna-3.10-py3-none-any.whl")
    renderer = small_renderer(tmp_path)
    plan = plan_of(lock(replace(AMD64, pip=(local, built))))
    context = renderer.context(renderer.describe(plan, "dockerfile"), offline=False)
    assert [file.path for file in context.files if file.path.startswith("wheels/")] == [
        "wheels/idna-3.10-py3-none-any.whl",
        "wheels/six-1.17.0-py2.py3-none-any.whl",
    ]
    lines = content(context, "requirements.txt").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "idna==3.10 \\", f"    --hash=sha256:{IDNA.sha256}",
        "six==1.17.0 \\", f"    --hash=sha256:{SIX.sha256}",
    ]  # fmt: skip


HOSTILE = ["x\nRUN id", 'x"\nUSER 0', "$(id)", "${HOME}", "\\", "'; id; '", "a\\\nb", "`id`", "#"]


@pytest.mark.parametrize("value", HOSTILE)
def test_no_variable_becomes_an_instruction(value: str, tmp_path: Path) -> None:
    harmless = plan_of(LOCKS["system-managed-python"])
    plan = replace(harmless, config=replace(harmless.config, env=(("A", value), *harmless.config.env)))
    renderer = small_renderer(tmp_path)
    if "\n" in value:
        assert renderer.unable(plan) == ["A: a Dockerfile can't hold the character U+000A"]
        with pytest.raises(BuildError, match=r"U\+000A") as caught:
            renderer.context(plan, offline=False)
        assert caught.value.hint == "envbuild build --engine native composes images without a Dockerfile"
        return
    text = content(renderer.context(plan, offline=False), "Dockerfile")
    meant = content(renderer.context(harmless, offline=False), "Dockerfile")
    assert [instruction.name for instruction in instructions(text)] == [
        each.name for each in instructions(meant)
    ]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("field", ["name", "version", "url", "file"])
def test_no_pin_of_a_lock_becomes_an_option_of_pip(field: str, value: str, tmp_path: Path) -> None:
    text = value.replace("RUN id", "--index-url=https://evil.example") if field != "file" else value
    pin = replace(IDNA, **{field: text})  # type: ignore[arg-type]
    renderer = small_renderer(tmp_path)
    plan = plan_of(LOCKS["system-managed-python"])
    artifact = next(artifact for artifact in plan.artifacts if artifact.name == "idna")
    layers = tuple(
        replace(
            layer,
            artifacts=tuple(replace(each, pin=pin) if each is artifact else each for each in layer.artifacts),
        )
        for layer in plan.layers
    )
    try:
        context = renderer.context(replace(plan, layers=layers), offline=False)
    except BuildError:
        return
    for line in content(context, "requirements.txt").splitlines():
        assert line.startswith(("#", "idna", "six==1.17.0 ", "    --hash=sha256:")), line


def test_an_image_of_this_machine_is_no_from(tmp_path: Path) -> None:
    base = ImageBase(reference="oci:base", digest=DIGEST, glibc="2.41")
    plan = replace(plan_of(LOCKS["user-managed-docker"]), base=base)
    assert small_renderer(tmp_path).unable(plan) == [
        "oci:base lies on this machine, and FROM takes images of a registry only"
    ]


def test_conda_packages_need_something_that_installs_them(tmp_path: Path) -> None:
    plan = replace(plan_of(LOCKS["system-managed-python-conda"]), installer=None)
    (reason,) = small_renderer(tmp_path).unable(plan)
    assert reason.startswith("the lock has no python for the stage that installs conda packages")
    assert small_renderer(tmp_path, micromamba=MICROMAMBA).unable(plan) == []


def test_an_image_of_a_dockerfile_has_an_identity_of_its_own(tmp_path: Path) -> None:
    plan = plan_of(LOCKS["system-managed-python"])
    (tmp_path / "macros.j2").write_text("{# own #}")
    mine = small_renderer(tmp_path, templates=Templates(tmp_path))
    ours = small_renderer(tmp_path)
    described = [ours.describe(plan, "docker"), ours.describe(plan, "buildx"), mine.describe(plan, "docker")]
    assert len({plan.lock_digest, *(each.lock_digest for each in described)}) == 4
    for each in described:
        labels = dict(each.config.labels)
        assert (each.level, labels["dev.envbuild.level"], labels["dev.envbuild.lock"]) == (
            "L2", "L2", each.lock_digest,
        )  # fmt: skip
