"""Specs that go into a workspace and come back as what every stage takes."""

from __future__ import annotations

import io
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.app.context_archive import pack_context, unpack_context
from envbuild.app.environments import VersionReference, Workspace
from envbuild.errors import UsageError, WorkspaceError
from envbuild.lock.files import dump_lock, read_lock, write_lock
from envbuild.oci.digest import digest_bytes
from envbuild.settings import Settings
from envbuild.specs.definition import definition_digest
from envbuild.specs.load import load_spec
from envbuild.specs.model import BuildContextSpec
from envbuild.workspace.base import NewVersion
from tests.unit.app.conftest import SPEC, write
from tests.unit.lock.sample import LOCK


@pytest.mark.parametrize(
    ("text", "name", "version", "label"),
    [
        ("train", "train", None, None),
        ("train:2", "train", "2", None),
        ("train@latest", "train", None, "latest"),
        ("a.b-c_d:v1.0", "a.b-c_d", "v1.0", None),
    ],
)
def test_a_reference_says_name_and_version_or_label(
    text: str, name: str, version: str | None, label: str | None
) -> None:
    assert VersionReference.parse(text) == VersionReference(name=name, version=version, label=label)


@pytest.mark.parametrize("text", ["", "a/b", "./a", "a:", "a@", "a:1@b", "a b", "-a", "../a", "a:b:c", "a\n"])
def test_what_can_be_no_reference_is_refused(text: str) -> None:
    assert VersionReference.of(text) is None
    with pytest.raises(UsageError, match="names no version"):
        VersionReference.parse(text)


def test_asking_a_workspace_that_is_not_there_makes_none(workspace: Workspace, settings: Settings) -> None:
    assert workspace.find("train") is None
    assert workspace.names() == ()
    assert isinstance(settings.workspace, Path)
    assert not settings.workspace.parent.exists()


def test_a_registered_spec_comes_back_with_its_definition(workspace: Workspace, tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path / "a"))
    found = workspace.register(spec, description="mine", tags=[("team", "x")], labels=["prod"])
    assert (found.created, found.version.reference, found.version.creator) == (True, "train:1", "ann")
    again = workspace.register(replace(spec, description="other"))
    assert (again.created, again.version.version, again.version.description) == (False, "1", "other")
    loaded = workspace.spec(workspace.get("train@prod"))
    assert definition_digest(loaded) == definition_digest(spec)
    assert (loaded.name, loaded.version, loaded.tags) == ("train", "1", (("team", "x"),))
    assert loaded.directory.parent == tmp_path / "cache" / "metadata" / "versions"


def test_find_knows_nothing_of_what_was_only_built_unless_it_is_named(
    workspace: Workspace, tmp_path: Path
) -> None:
    spec = load_spec(write(tmp_path / "a"))
    definition = definition_digest(spec)
    version = workspace.environments.register(
        NewVersion(environment="train", definition=definition, content=SPEC, anonymous=True)
    ).version
    assert workspace.find("train") is None
    assert workspace.find(f"train:{version.version}") == version
    assert workspace.find("other") is None
    with pytest.raises(WorkspaceError, match="train has no version '7'"):
        workspace.find("train:7")


def test_a_spec_that_needs_a_file_beside_it_is_not_registered(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "a", "x\n", "six-1.0-py3-none-any.whl")
    spec = load_spec(write(tmp_path / "a", "name: a\nrequirements: [./six-1.0-py3-none-any.whl]\n"))
    with pytest.raises(WorkspaceError) as raised:
        workspace.register(spec)
    first, *problems = raised.value.message.splitlines()
    assert first == "a can't be registered: it needs files that stand beside it"
    assert problems == ["requirements: 'six @ file:six-1.0-py3-none-any.whl' is a file beside the spec"]
    assert workspace.environments.list() == ()


def test_a_build_context_travels_with_its_version(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "a"
    write(source, "FROM scratch\nCOPY . /\n", "Dockerfile")
    write(source / "sub", "#!/bin/sh\n", "run.sh").chmod(0o755)
    (source / "empty").mkdir()
    (source / "link").symlink_to("/nowhere")
    write(source, "*.log\n", ".dockerignore")
    write(source, "no\n", "x.log")
    spec = load_spec(write(source, "name: img\nbuild: {path: .}\n", "envbuild.yaml"))
    found = workspace.register(spec).version
    assert isinstance(spec.base, BuildContextSpec)
    assert found.context == spec.base.digest
    loaded = workspace.spec(found)
    assert definition_digest(loaded) == definition_digest(spec)
    context = loaded.directory / "context"
    assert (context / "sub" / "run.sh").stat().st_mode & 0o111 == 0o111
    assert (context / "link").readlink() == Path("/nowhere")
    assert (context / "empty").is_dir()
    assert not (context / "x.log").exists()
    assert pack_context(loaded) == pack_context(spec)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("../out", tarfile.REGTYPE, "holds the path '../out'"),
        ("/tmp/out", tarfile.REGTYPE, "holds the path '/tmp/out'"),
        ("device", tarfile.CHRTYPE, "holds 'device', no file"),
        ("hard", tarfile.LNKTYPE, "holds 'hard', no file"),
    ],
)
def test_an_archive_writes_nothing_elsewhere(name: str, kind: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match=said):
        unpack_context(_archive((name, kind, "x")), tmp_path / "in" / "context")
    assert not (tmp_path / "in" / "out").exists()


def test_nothing_is_written_through_a_link_of_an_archive(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    archive = _archive(("d", tarfile.SYMTYPE, str(tmp_path / "out")), ("d/file", tarfile.REGTYPE, ""))
    with pytest.raises(WorkspaceError, match="can't be unpacked"):
        unpack_context(archive, tmp_path / "context")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_no_archive_is_said() -> None:
    with pytest.raises(WorkspaceError, match="can't be unpacked"):
        unpack_context(b"nothing", Path("/nonexistent/context"))


def test_the_newest_lock_of_the_workspace_lies_beside_a_version(workspace: Workspace, tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path / "a"))
    version = workspace.register(spec).version
    loaded = workspace.spec(version)
    directory = loaded.directory / "lockfiles" / "train"
    assert not directory.exists()
    lock = replace(LOCK, definition=definition_digest(spec))
    write_lock(tmp_path / "lock", lock)
    kept = workspace.keep_lock(spec, tmp_path / "lock")
    assert kept is not None
    assert kept.digest == digest_bytes(dump_lock(lock)["envbuild.lock"])
    workspace.spec(version)
    assert read_lock(directory) == lock
    newer = replace(lock, as_of="2026-01-01")
    write_lock(tmp_path / "lock", newer)
    workspace.keep_lock(spec, tmp_path / "lock")
    workspace.spec(version)
    assert read_lock(directory) == newer
    assert workspace.lock_of(version) == newer


def test_only_a_lock_that_answers_is_kept_at_registration(workspace: Workspace, tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path / "a"))
    version = workspace.register(spec).version
    write_lock(tmp_path / "lock", LOCK)
    workspace.keep_answering_lock(spec, tmp_path / "lock")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "envbuild.lock").write_text("{}")
    workspace.keep_answering_lock(spec, tmp_path / "damaged")
    assert workspace.environments.lock(version.definition) is None


def test_content_that_is_not_what_its_version_says_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    definition = "sha256:" + "1" * 64
    version = workspace.environments.register(
        NewVersion(environment="train", definition=definition, content=SPEC)
    ).version
    with pytest.raises(WorkspaceError, match=f"train:1 is {definition}, but its content is sha256:"):
        workspace.spec(version)
    version = workspace.environments.register(
        NewVersion(environment="bad", definition=definition, content="x: [")
    ).version
    with pytest.raises(WorkspaceError, match="bad:1 can't be read: "):
        workspace.spec(version)
    # What was refused doesn't stand in the way of what is right.
    spec = load_spec(write(tmp_path / "a"))
    definition = definition_digest(spec)
    wrong = workspace.environments.register(
        NewVersion(environment="wrong", definition=definition, content=SPEC + "user: '7'\n")
    ).version
    with pytest.raises(WorkspaceError, match="wrong:1 is "):
        workspace.spec(wrong)
    assert workspace.spec(workspace.register(spec).version).name == "train"


def test_a_copy_of_a_curated_environment_is_system_managed(workspace: Workspace) -> None:
    from envbuild.resources import curated_names, curated_spec

    path = curated_spec(curated_names()[0])
    assert path is not None
    found = workspace.register(load_spec(path), name="mine").version
    loaded = workspace.spec(found)
    assert (loaded.name, loaded.type.value) == ("mine", "system-managed")


def test_open_takes_a_file_a_url_or_the_settings(tmp_path: Path, settings: Settings) -> None:
    with Workspace.open(tmp_path / "one.db", settings=settings) as found:
        assert found.file == tmp_path / "one.db"
    with Workspace.open(settings=settings) as found:
        assert found.settings == settings
    url = f"sqlite:///{tmp_path}/two.db"
    with Workspace.open(url, settings=settings) as found:
        assert found.environments.location == f"{tmp_path}/two.db"
    with pytest.raises(UsageError, match="no workspace is named"):
        Workspace.open(settings=replace(settings, workspace=None))


def _archive(*members: tuple[str, bytes, str]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return zlib.compress(packed.getvalue())
