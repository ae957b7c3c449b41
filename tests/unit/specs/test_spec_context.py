"""Build contexts: what belongs to one, what is left out, and what changes its digest."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.oci.digest import digest_bytes
from envbuild.specs.cache import remembered_spec
from envbuild.specs.context import ContextLimits, read_context
from envbuild.specs.definition import definition_digest
from envbuild.specs.load import load_spec
from envbuild.specs.model import BuildContextSpec


def fill(root: Path, files: Mapping[str, str]) -> Path:
    """``root`` with these files; a name that ends with a slash is an empty directory."""
    for name, text in {"Dockerfile": "FROM scratch\n", **files}.items():
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return root


def held(root: Path, dockerfile: str = "Dockerfile") -> list[str]:
    return [entry.path for entry in read_context(root, dockerfile).entries]


def digest(root: Path) -> str:
    return read_context(root, "Dockerfile").digest


# --- what it holds ------------------------------------------------------------------------------------


def test_a_context_is_paths_modes_contents_links_and_empty_directories(tmp_path: Path) -> None:
    fill(tmp_path, {"a/f.txt": "1", "b/f.txt": "22", "empty/": ""})
    (tmp_path / "b/f.txt").chmod(0o700)
    (tmp_path / "out").symlink_to("/etc")
    assert [entry.canonical for entry in read_context(tmp_path, "Dockerfile").entries] == [
        ["Dockerfile", "0644", digest_bytes(b"FROM scratch\n").removeprefix("sha256:")],
        ["a/f.txt", "0644", digest_bytes(b"1").removeprefix("sha256:")],
        ["b/f.txt", "0755", digest_bytes(b"22").removeprefix("sha256:")],
        ["empty", "directory"],
        ["out", "link", "/etc"],
    ]


def test_the_digest_is_this_one(tmp_path: Path) -> None:
    fill(tmp_path, {"a/f.txt": "1"})
    assert digest(tmp_path) == "sha256:a1986b5f9177dc32f7919b4a7ecd82733ed7d35028d51ba5ac0182fc04c29322"


def test_time_place_owner_and_other_bits_of_the_mode_do_not_count(tmp_path: Path) -> None:
    one = fill(tmp_path / "one", {"a/f.txt": "1", "e/": ""})
    two = fill(tmp_path / "deeper/two", {"e/": "", "a/f.txt": "1"})
    os.utime(two / "a/f.txt", (1, 1))
    (two / "a/f.txt").chmod(0o466)
    (two / "a").chmod(0o777)
    assert digest(two) == digest(one)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a/f.txt").write_text("2"),
        lambda root: (root / "a/f.txt").chmod(0o755),
        lambda root: (root / "a/f.txt").rename(root / "b/f.txt"),
        lambda root: (root / "b").rmdir(),
        lambda root: ((root / "link").unlink(), (root / "link").symlink_to("b")),
        lambda root: ((root / "link").unlink(), (root / "link").write_text("a")),
        lambda root: (root / "new").mkdir(),
    ],
    ids=["content", "mode", "path", "directory", "target", "kind", "new"],
)
def test_everything_an_image_can_show_counts(tmp_path: Path, change: object) -> None:
    fill(tmp_path, {"a/f.txt": "1", "b/": ""})
    (tmp_path / "link").symlink_to("a")
    before = digest(tmp_path)
    assert callable(change)
    change(tmp_path)
    assert digest(tmp_path) != before


def test_equal_names_in_two_directories_are_two_files(tmp_path: Path) -> None:
    one = fill(tmp_path / "one", {"a/f.txt": "1", "b/f.txt": "2"})
    two = fill(tmp_path / "two", {"a/f.txt": "2", "b/f.txt": "1"})
    assert digest(one) != digest(two)


# --- what is left out ---------------------------------------------------------------------------------

TREE = {
    "README.md": "",
    "src/a.py": "",
    "src/a.pyc": "",
    "src/deep/b.pyc": "",
    "src/deep/c.txt": "",
    "temp/x": "",
    "tempa": "",
}
ALL = ["Dockerfile", *sorted(TREE)]


@pytest.mark.parametrize(
    ("lines", "out"),
    [
        ("# a comment\n\n", set()),
        ("*.pyc", set()),
        ("src/*.pyc", {"src/a.pyc"}),
        ("**/*.pyc", {"src/a.pyc", "src/deep/b.pyc"}),
        ("*/*.pyc", {"src/a.pyc"}),
        ("temp?", {"tempa"}),
        ("temp", {"temp/x"}),
        ("/temp/", {"temp/x"}),
        ("./temp/../temp", {"temp/x"}),
        ("  temp\t\r", {"temp/x"}),
        ("temp*", {"temp/x", "tempa"}),
        ("src/**", {"src/a.py", "src/a.pyc", "src/deep/b.pyc", "src/deep/c.txt"}),
        ("src/**/c.txt", {"src/deep/c.txt"}),
        ("**c.txt", {"src/deep/c.txt"}),
        ("**.txt", set()),
        ("**/a.py", {"src/a.py"}),
        ("src/[a-b].py", {"src/a.py"}),
        ("src/[^b].py", {"src/a.py"}),
        ("src/\\a.py", {"src/a.py"}),
        ("a.py", set()),
        (".", set()),
        ("../src", set()),
        ("*\n!README.md", {*TREE, "tempa"} - {"README.md"}),
        ("src\n!src/deep/c.txt", {"src/a.py", "src/a.pyc", "src/deep/b.pyc"}),
        ("src\n!src/deep", {"src/a.py", "src/a.pyc"}),
        ("*\n!**/*.txt", {*TREE} - {"src/deep/c.txt"}),
        ("!README.md\n*.md", {"README.md"}),
        ("*.md\n!README.md", set()),
        ("*.md\n! README.md", set()),
        (" # no comment\ntemp", {"temp/x"}),
        ("\ufefftemp", {"temp/x"}),
    ],
)
def test_dockers_patterns_are_dockers(tmp_path: Path, lines: str, out: set[str]) -> None:
    fill(tmp_path, {**TREE, ".dockerignore": lines})
    found = [entry.path for entry in read_context(tmp_path, "Dockerfile").entries if not entry.directory]
    assert found == [".dockerignore", *(each for each in ALL if each not in out)]


def test_a_directory_whose_files_docker_leaves_out_stays_as_it_does_there(tmp_path: Path) -> None:
    fill(tmp_path, {"logs/a": "", ".dockerignore": "logs/*"})
    assert held(tmp_path) == [".dockerignore", "Dockerfile", "logs"]


def test_the_dockerfile_and_its_ignore_file_are_never_left_out(tmp_path: Path) -> None:
    fill(tmp_path, {".dockerignore": "*", "docker/Dockerfile.cpu": "FROM x", "docker/other": ""})
    assert held(tmp_path, "docker/Dockerfile.cpu") == [".dockerignore", "docker/Dockerfile.cpu"]
    (tmp_path / ".dockerignore").unlink()
    fill(tmp_path, {".gitignore": "*"})
    assert held(tmp_path, "docker/Dockerfile.cpu") == ["docker/Dockerfile.cpu"]


def test_the_dockerfiles_own_ignore_file_wins(tmp_path: Path) -> None:
    fill(tmp_path, {"d/F": "FROM x", "d/F.dockerignore": "a", ".dockerignore": "b", "a": "", "b": ""})
    assert held(tmp_path, "d/F") == [".dockerignore", "Dockerfile", "b", "d/F", "d/F.dockerignore"]


def test_amlignore_has_a_say_beside_the_dockerignore_and_gitignore_has_none(tmp_path: Path) -> None:
    fill(tmp_path, {".amlignore": "*.a\n", ".gitignore": "*.g\n", "x.a": "", "x.g": "", "x.d": ""})
    assert held(tmp_path) == [".amlignore", ".gitignore", "Dockerfile", "x.d", "x.g"]
    fill(tmp_path, {".dockerignore": "*.d\n"})
    assert held(tmp_path) == [".amlignore", ".dockerignore", ".gitignore", "Dockerfile", "x.g"]
    (tmp_path / ".amlignore").unlink()
    assert held(tmp_path) == [".dockerignore", ".gitignore", "Dockerfile", "x.a", "x.g"]


def test_gitignore_files_mean_what_git_takes_them_for(tmp_path: Path) -> None:
    files = {
        ".gitignore": "*.log\n!keep.log\n/build\ncache/\n\\#odd\ndocs/**/draft\n",
        "a.log": "",
        "keep.log": "",
        "build/x": "",
        "sub/build/x": "",
        "sub/cache/x": "",
        "sub/.gitignore": "!b.log\n*.tmp\n",
        "sub/b.log": "",
        "sub/c.log": "",
        "sub/c.tmp": "",
        "c.tmp": "",
        "#odd": "",
        "docs/a/b/draft": "",
        "docs/draft": "",
    }
    fill(tmp_path, files)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    listed = subprocess.run(
        ["git", "-c", "core.excludesFile=", "ls-files", "-o", "--exclude-standard"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert held(tmp_path) == sorted(listed.splitlines())
    kept = [".gitignore", "Dockerfile", "c.tmp", "keep.log", "sub/.gitignore", "sub/b.log", "sub/build/x"]
    assert held(tmp_path) == kept


def test_a_line_that_git_could_not_use_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, {".gitignore": "*.log\n!\n", "a.log": ""})
    assert held(tmp_path) == [".gitignore", "Dockerfile"]
    assert [record.getMessage() for record in caplog.records] == [".gitignore:2: no pattern, left out: '!'"]


def test_git_is_left_out_unless_the_dockerignore_names_it(tmp_path: Path) -> None:
    fill(tmp_path, {".git/HEAD": "", "sub/.git": "gitdir: x", "sub/x": ""})
    assert held(tmp_path) == ["Dockerfile", "sub/x"]
    fill(tmp_path, {".dockerignore": "!**/x\n"})
    assert held(tmp_path) == [".dockerignore", "Dockerfile", "sub/x"]
    fill(tmp_path, {".dockerignore": "!.git\n"})
    assert held(tmp_path) == [".dockerignore", ".git/HEAD", "Dockerfile", "sub/.git", "sub/x"]


def test_making_a_lock_in_the_context_does_not_change_it(tmp_path: Path) -> None:
    before = digest(fill(tmp_path, {"a/x": ""}))
    fill(tmp_path, {"lockfiles/app/envbuild.lock": "{}", "lockfiles/app/.envbuild.lock.0af3.part": ""})
    assert digest(tmp_path) == before
    fill(tmp_path, {"lockfiles/app/requirements.linux-64.txt": ""})
    assert held(tmp_path) == ["Dockerfile", "a/x", "lockfiles/app/requirements.linux-64.txt"]


# --- what is refused ----------------------------------------------------------------------------------


def refused(root: Path, dockerfile: str = "Dockerfile", limits: ContextLimits | None = None) -> str:
    with pytest.raises(SpecError) as raised:
        read_context(root, dockerfile, limits=limits)
    return str(raised.value)


def test_what_no_context_can_hold_is_refused_by_name(tmp_path: Path) -> None:
    fill(tmp_path, {"a": ""})
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        (tmp_path / os.fsdecode(b"na\xffme")).write_text("")
        (tmp_path / "to").symlink_to(os.fsdecode(b"\xfe"))
        assert refused(tmp_path).splitlines() == [
            "na\\xffme: its name isn't UTF-8",
            "pipe: is a FIFO, which no build context can hold",
            "socket: is a socket, which no build context can hold",
            "to: points at a name that isn't UTF-8",
        ]
    fill(tmp_path, {".dockerignore": "pipe\nsocket\nna*\nto\n"})
    assert held(tmp_path) == [".dockerignore", "Dockerfile", "a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    fill(tmp_path, {"a": "", "d/b": ""})
    (tmp_path / "a").chmod(0)
    assert refused(tmp_path) == "a: can't be read: Permission denied"


def test_a_context_that_was_not_meant_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"a": "12345", "b": "67890", "d/e/f": ""})
    assert refused(tmp_path, limits=ContextLimits(entries=2)).endswith("has more than 2 files")
    assert refused(tmp_path, limits=ContextLimits(size=20)).endswith("is larger than 20 bytes")
    assert refused(tmp_path, limits=ContextLimits(depth=1)) == "d/e: lies deeper than 1 directories"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a\n!\n", ".dockerignore:2: '!' names nothing to keep"),
        ("a[", ".dockerignore:1: the pattern 'a[' can't be read: its '[' has no end"),
        ("[]a]", ".dockerignore:1: the pattern '[]a]' can't be read: ']' within '['"),
        ("a\\", ".dockerignore:1: the pattern 'a\\\\' can't be read: it ends with '\\'"),
        ("\n" * 10_001, ".dockerignore: has more than 10000 lines"),
        ("x" * (1 << 20) + "y", ".dockerignore: is larger than 1 MiB"),
    ],
)
def test_an_ignore_file_that_means_nothing_is_refused(tmp_path: Path, lines: str, message: str) -> None:
    assert refused(fill(tmp_path, {".dockerignore": lines})) == message


def test_an_ignore_file_elsewhere_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("[hunter2")
    root = fill(tmp_path / "root", {})
    (root / ".dockerignore").symlink_to("../secret")
    assert refused(root) == ".dockerignore: links to a file outside of the build context"


def test_the_dockerfile_is_a_file_of_the_context(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", {"docker/real": "FROM x", "other/": ""})
    (tmp_path / "Outside").write_text("FROM x")
    (root / "inside").symlink_to("docker/../docker/real")
    (root / "leads-out").symlink_to("../Outside")
    (root / "linked").symlink_to("docker")
    (root / "loop").symlink_to("loop")
    assert "inside" in held(root, "inside")
    for name in ("leads-out", "linked/real", "missing", "docker", "loop"):
        assert refused(root, name).startswith(f"{name}: is no file of the build context")


def test_links_are_never_followed(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", {})
    fill(tmp_path / "elsewhere", {"secret": "x"})
    (root / "dir").symlink_to("../elsewhere")
    (root / "up").symlink_to("..")
    assert held(root) == ["Dockerfile", "dir", "up"]


# --- copies -------------------------------------------------------------------------------------------


def test_copies_are_what_was_hashed(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", {"a": "same", "b": "same", "c": "x" * 3_000_000})
    copies = tmp_path / "copies"
    copies.mkdir()
    entries = read_context(root, "Dockerfile", copies=copies).entries
    shutil.rmtree(root)
    assert {path.name for path in copies.iterdir()} == {entry.sha256 for entry in entries}
    assert all(digest_bytes((copies / entry.sha256).read_bytes()).endswith(entry.sha256) for entry in entries)


def test_a_copy_that_cannot_be_made_is_no_fault_of_the_context(tmp_path: Path) -> None:
    root = fill(tmp_path / "root", {})
    with pytest.raises(SpecError, match=r"^can't copy the build context: No such file or directory$"):
        read_context(root, "Dockerfile", copies=tmp_path / "missing")


# --- specs --------------------------------------------------------------------------------------------


def spec_at(root: Path, text: str = "build: {path: ctx}\n") -> Path:
    fill(root / "ctx", {"a/f.txt": "1"})
    (root / "envbuild.yaml").write_text(text)
    return root


def test_a_specs_digest_is_its_contexts_and_not_its_place(tmp_path: Path) -> None:
    one = load_spec(spec_at(tmp_path / "one"))
    two = load_spec(spec_at(tmp_path / "two"))
    assert isinstance(one.base, BuildContextSpec)
    assert one.base.digest == digest(tmp_path / "one/ctx")
    (tmp_path / "two/ctx").rename(tmp_path / "two/moved")
    (tmp_path / "two/envbuild.yaml").write_text("build: {path: ./moved/, dockerfile_path: ./Dockerfile}\n")
    assert definition_digest(load_spec(tmp_path / "two")) == definition_digest(two) == definition_digest(one)
    (tmp_path / "one/ctx/a/f.txt").write_text("2")
    assert definition_digest(load_spec(tmp_path / "one")) != definition_digest(one)


def test_a_remembered_spec_knows_a_changed_context(tmp_path: Path) -> None:
    root, memory = spec_at(tmp_path / "one"), tmp_path / "memory"
    first = remembered_spec(root, memory)
    assert remembered_spec(root, memory) == first
    (root / "ctx/a/new").write_text("")
    second = remembered_spec(root, memory)
    assert second == load_spec(root)
    assert second != first
    (root / "ctx/Dockerfile").unlink()
    with pytest.raises(SpecError, match=r"dockerfile_path: .*ctx/Dockerfile: no such file"):
        remembered_spec(root, memory)


def test_a_context_with_problems_is_one_of_the_specs(tmp_path: Path) -> None:
    root = spec_at(tmp_path)
    os.mkfifo(root / "ctx/pipe")
    with pytest.raises(SpecError) as raised:
        load_spec(root)
    assert str(raised.value) == (
        f"{root}/envbuild.yaml:1: build.path: pipe: is a FIFO, which no build context can hold; "
        "leave out with a .dockerignore what the build doesn't need"
    )
