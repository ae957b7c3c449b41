"""Commits are fetched by a git that runs nothing else, and their trees packed alike everywhere."""

from __future__ import annotations

import base64
import os
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.git.repository import GitRepositories, submodule_address
from envbuild.specs.git import GitAddress, parse_git_address
from envbuild.store.content import Store
from tests.fakes.git import GitRepository, serve_files, serve_git


@pytest.fixture
def repository(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "served" / "demo.git")


@pytest.fixture
def server(repository: GitRepository) -> Iterator[str]:
    with serve_git(repository.directory.parent) as url:
        yield f"git+{url}/demo.git"


@pytest.fixture
def repositories(tmp_path: Path) -> GitRepositories:
    home = tmp_path / "home"
    home.mkdir()
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "TOKEN": "hunter2"}
    return GitRepositories(store=Store(tmp_path / "store"), env=env, patience=30)


def address(text: str) -> GitAddress:
    return parse_git_address(text)[0]


def names(repositories: GitRepositories, sha256: str) -> dict[str, bytes]:
    with tarfile.open(repositories.store.artifact(sha256)) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()[1:]}
        return {
            name: member.linkname.encode() if member.issym() else archive.extractfile(member).read()  # type: ignore[union-attr]
            for name, member in members.items()
        }


def refusal(repositories: GitRepositories, text: str) -> tuple[str, str]:
    with pytest.raises(ResolveError) as caught:
        repositories.fetch("demo", address(text))
    assert list(repositories.store.directory("scratch").iterdir()) == []
    return caught.value.message, caught.value.hint or ""


def test_a_revision_is_a_branch_a_tag_a_commit_its_beginning_or_the_default_branch(
    repository: GitRepository, repositories: GitRepositories, server: str
) -> None:
    first = repository.commit({"a": "1"}, tag="v1")
    second = repository.commit({"a": "2"})
    commits = {
        revision: repositories.fetch("demo", address(server + revision)).commit
        for revision in ("", "@main", "@v1", f"@{first}", f"@{first[:9]}", "@refs/heads/main")
    }
    assert commits == {
        "": second,
        "@main": second,
        "@v1": first,
        f"@{first}": first,
        f"@{first[:9]}": first,
        "@refs/heads/main": second,
    }
    message, hint = refusal(repositories, f"{server}@mian")
    assert message == f"{server}@mian: it has no branch, tag or commit 'mian'"
    assert hint == "did you mean main?"


def test_one_commit_is_one_archive_whichever_store_server_and_protocol_it_comes_from(
    tmp_path: Path, repository: GitRepository, repositories: GitRepositories, server: str
) -> None:
    # Attributes, a filter and line endings are the repository's, and change no byte.
    repository.commit(
        {
            ".gitattributes": "* text=auto eol=crlf ident filter=lfs export-ignore\n",
            "a": "$Id$\nx\n",
            "z/b": "",
        }
    )
    (repository.work / "link").symlink_to("z/b")
    (repository.work / "run").write_text("")
    (repository.work / "run").chmod(0o755)
    commit = repository.commit({})
    archive = repositories.fetch("demo", address(server))
    assert archive.tree == repository.git("rev-parse", f"{commit}^{{tree}}")
    assert archive.file == f"demo-{commit[:12]}.tar.gz"
    assert names(repositories, archive.sha256) == {
        ".gitattributes": b"* text=auto eol=crlf ident filter=lfs export-ignore\n",
        "a": b"$Id$\nx\n",
        "link": b"z/b",
        "run": b"",
        "z/b": b"",
    }
    elsewhere = replace(repositories, store=Store(tmp_path / "elsewhere"))
    assert elsewhere.fetch("demo", address(f"git+file://{repository.directory}"), commit) == archive
    assert archive.sha256 == "d187f6b5669752eb4684dbbb81603d885850b260768b9a02169fa574603e0de2"


def test_a_repository_of_plain_files_is_fetched_too(
    repository: GitRepository, repositories: GitRepositories
) -> None:
    commit = repository.commit({"a": "1"})
    repository.commit({"a": "2"})
    with serve_files(repository.directory.parent) as url:
        archive = repositories.fetch("demo", address(f"git+{url}/demo.git@{commit}"))
    assert names(repositories, archive.sha256) == {"a": b"1"}


def test_no_configuration_hook_or_helper_of_the_user_runs(
    tmp_path: Path, repository: GitRepository, repositories: GitRepositories, server: str
) -> None:
    repository.commit({"a": "1"})
    ran = tmp_path / "ran"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    script = f"#!/bin/sh\ntouch {ran}\n"
    for name in ("post-checkout", "reference-transaction", "post-rewrite", "fsmonitor"):
        (hooks / name).write_text(script)
        (hooks / name).chmod(0o755)
    home = Path(repositories.env["HOME"])
    (home / ".gitconfig").write_text(
        f'[core]\nhooksPath = {hooks}\nfsmonitor = {hooks}/fsmonitor\n[credential]\nhelper = "!touch {ran}"\n'
        f'[url "file:///nonexistent/"]\ninsteadOf = {server.removeprefix("git+")}\n'
    )
    hostile = {
        "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        "GIT_CONFIG_PARAMETERS": f"'core.hooksPath={hooks}'",
        "GIT_EXTERNAL_DIFF": str(hooks / "fsmonitor"),
        "GIT_TEMPLATE_DIR": str(tmp_path),
        "GIT_DIR": "/nonexistent",
        "GIT_ASKPASS": str(hooks / "fsmonitor"),
    }
    repositories = replace(repositories, env={**repositories.env, **hostile})
    assert names(repositories, repositories.fetch("demo", address(server)).sha256) == {"a": b"1"}
    assert not ran.exists()


def test_a_server_that_asks_who_you_are_is_named_and_never_waited_for(
    repository: GitRepository, repositories: GitRepositories
) -> None:
    commit = repository.commit({"a": "1"})
    login = "Basic " + base64.b64encode(b"x-access-token:hunter2").decode()
    with serve_git(repository.directory.parent, login=login) as url:
        plain = f"git+{url}/demo.git"
        message, hint = refusal(repositories, plain)
        assert message.startswith(f"{plain}: git: fatal: could not read Username for 'http://127.0.0.1")
        assert hint.startswith("it asks who you are: keep the login in netrc, write ${VAR} in the address")
        # From the address's variable, whose value stays out of everything that is kept or said.
        secret = plain.replace("://", "://x-access-token:${TOKEN}@")
        assert repositories.fetch("demo", address(secret)).commit == commit
        message, _ = refusal(repositories, secret.replace("demo.git", "gone.git"))
        assert "hunter2" not in message
        netrc = Path(repositories.env["HOME"], ".netrc")
        netrc.write_text("machine 127.0.0.1 login x-access-token password hunter2\n")
        assert repositories.fetch("demo", address(plain)).commit == commit


def test_what_cannot_be_had_is_said_with_what_is_wrong(
    tmp_path: Path, repository: GitRepository, repositories: GitRepositories, server: str
) -> None:
    repository.commit({"a": "1"})
    gone = server.replace("demo.git", "gone.git")
    assert refusal(repositories, gone)[0].startswith(f"{gone}: git: fatal: repository 'http://127.0.0.1")
    message, hint = refusal(repositories, "git+http://127.0.0.1:9/demo.git")
    assert message.startswith("git+http://127.0.0.1:9/demo.git: git: fatal: unable to access")
    assert hint == "check the network, the proxy and the address"
    assert refusal(repositories, f"{server}@{'1' * 40}") == (
        f"{server}@{'1' * 40}: the repository has no commit {'1' * 40} that a branch or a tag leads to",
        "it may have been rewritten since: lock again with --upgrade-package",
    )
    offline = replace(repositories, offline=True)
    assert refusal(offline, server) == (
        f"demo: {server} isn't in the store, and this is offline",
        "run once without --offline, so that it is kept",
    )
    without = replace(repositories, env={"PATH": str(tmp_path)})
    assert refusal(without, server) == (f"{server}: git isn't installed", "install git, or name a wheel")


def add_submodule(repository: GitRepository, path: str, url: str, commit: str) -> str:
    """The commit that has a submodule at ``path``."""
    stated = repository.work / ".gitmodules"
    before = stated.read_text() if stated.exists() else ""
    stated.write_text(f'{before}[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n')
    repository.git("add", ".gitmodules")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    repository.git("commit", "--quiet", "-m", "submodule")
    return repository.git("rev-parse", "HEAD")


def test_submodules_are_fetched_at_the_commits_that_the_tree_names(
    tmp_path: Path, repository: GitRepository, repositories: GitRepositories, server: str
) -> None:
    repository.commit({"a": "1"})
    inner = GitRepository(tmp_path / "served" / "inner.git")
    deepest = GitRepository(tmp_path / "served" / "deepest.git")
    deep = deepest.commit({"c": "3"})
    deepest.commit({"c": "moved on"})
    inner.commit({"b": "2"})
    below = add_submodule(
        inner, "deep", f"{server.removeprefix('git+').rpartition('/')[0]}/deepest.git", deep
    )
    add_submodule(repository, "lib/other", "../inner.git", below)
    first = repositories.fetch("demo", address(server))
    files = names(repositories, first.sha256)
    assert {name: content for name, content in files.items() if ".gitmodules" not in name} == {
        "a": b"1",
        "lib/other/b": b"2",
        "lib/other/deep/c": b"3",
    }
    assert repositories.fetch("demo", address(server), first.commit) == first


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("/etc", "its submodule 'file:///etc' would be a directory of this machine"),
        ("file:///etc", "its submodule 'file:///etc' would be a directory of this machine"),
        ("ext::sh -c touch% /tmp/x", "its submodule: "),
        ("--upload-pack=touch", "its submodule: "),
        ("git://host.example/x", "its submodule: "),
        ("https://user:hunter2@host.example/x", "its submodule: a credential stands in"),
    ],
)
def test_a_submodule_that_is_elsewhere_than_it_may_be_is_refused(
    repository: GitRepository, repositories: GitRepositories, server: str, url: str, said: str
) -> None:
    commit = repository.commit({"a": "1"})
    add_submodule(repository, "lib", url, commit)
    message, hint = refusal(repositories, server)
    assert message.startswith(f"{server}: {said}")
    assert "hunter2" not in message + hint


def test_a_submodule_without_an_address_is_named(
    repository: GitRepository, repositories: GitRepositories, server: str
) -> None:
    commit = repository.commit({"a": "1"})
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},lib/other")
    repository.git("commit", "--quiet", "-m", "submodule")
    message, _ = refusal(repositories, server)
    assert message == f"{server}: no address is stated for the submodule 'lib/other'"


def test_a_submodule_may_be_written_as_ssh_has_it() -> None:
    parent = address("git+https://host.example/team/demo.git")
    assert (
        submodule_address(parent, "git@other.example:team/lib.git").url
        == "ssh://git@other.example/team/lib.git"
    )
    assert submodule_address(parent, "../lib.git").url == "https://host.example/team/lib.git"
    assert submodule_address(parent, "./lib").url == "https://host.example/team/demo.git/lib"
