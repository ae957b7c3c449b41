"""The lock's files: what is written is read back, and damage is found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envbuild.errors import LockError
from envbuild.lock.files import dump_lock, parse_lock, read_lock, write_lock
from envbuild.lock.model import ContextBase, GitCommit, ImageBase, Lock, MavenPin, RuntimeSettings, Sdist
from envbuild.lock.values import check_values
from tests.unit.lock.sample import AMD64, ARM64, BASE, IDNA, LIBC, LOCK, PYTHON, SIX, STANDALONE, TZDATA, ZLIB


def test_a_lock_that_is_written_is_read_back_equal(tmp_path: Path) -> None:
    assert write_lock(tmp_path / "new", LOCK) is True
    assert read_lock(tmp_path / "new") == LOCK


def test_a_git_pin_is_read_back_equal_and_its_requirement_is_at_its_commit() -> None:
    git = GitCommit(commit="c" * 40, tree="7" * 40)
    pin = replace(SIX, url="git+https://${TOKEN}@h/six@main#subdirectory=a", git=git)
    lock = replace(LOCK, platforms=(replace(AMD64, pip=(pin,)),))
    files = dump_lock(lock)
    assert parse_lock(files["envbuild.lock"])[0] == lock
    text = files["requirements.linux-64.txt"].decode()
    assert f"six @ git+https://${{TOKEN}}@h/six@{git.commit}#subdirectory=a \\\n" in text
    assert "git" not in dump_lock(LOCK)["envbuild.lock"].decode()


@pytest.mark.parametrize(
    "url", ["https://h/six", "git+ext::sh", "git+https://u:p@h/x", "git+https://h/x@-c", None]
)
def test_a_commit_is_of_a_git_address(url: str | None) -> None:
    pin = replace(SIX, url=url, git=GitCommit(commit="c" * 40, tree="7" * 40))
    with pytest.raises(LockError):
        check_values(replace(LOCK, platforms=(replace(AMD64, pip=(pin,)),)))


def test_writing_what_is_there_changes_nothing(tmp_path: Path) -> None:
    write_lock(tmp_path, LOCK)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert write_lock(tmp_path, LOCK) is False
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_the_files_are_those_of_their_fields() -> None:
    files = dump_lock(LOCK)
    assert sorted(files) == ["conda-lock.yml", "envbuild.lock", "requirements.linux-64.txt"]
    assert b"idna==3.10 \\\n    --hash=sha256:" + b"1" * 64 in files["requirements.linux-64.txt"]


def test_the_order_of_pins_and_platforms_does_not_show() -> None:
    shuffled = replace(
        LOCK,
        platforms=(
            ARM64,
            replace(AMD64, pip=(SIX, IDNA), base=replace(BASE, packages=(TZDATA, LIBC))),
        ),
    )
    assert dump_lock(shuffled) == dump_lock(LOCK)


def test_a_file_that_is_no_longer_needed_goes(tmp_path: Path) -> None:
    write_lock(tmp_path, LOCK)
    write_lock(tmp_path, replace(LOCK, platforms=(replace(AMD64, pip=()),)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["envbuild.lock"]


def test_no_lock_is_none(tmp_path: Path) -> None:
    assert read_lock(tmp_path) is None


def test_a_newer_format_is_refused_by_name() -> None:
    with pytest.raises(LockError) as caught:
        parse_lock(json.dumps({"format": 2, "anything": "else"}).encode())
    assert str(caught.value) == (
        "envbuild.lock: lock format 2 is newer than 1, the newest this envbuild reads"
    )
    assert caught.value.hint == "upgrade envbuild"


@pytest.mark.parametrize("name", ["envbuild.lock", "requirements.linux-64.txt", "conda-lock.yml"])
def test_an_edit_by_hand_is_found(tmp_path: Path, name: str) -> None:
    write_lock(tmp_path, LOCK)
    path = tmp_path / name
    path.write_text(path.read_text().replace("3" * 64, "4" * 64).replace("1.17.0", "1.16.0"))
    with pytest.raises(LockError, match=f"{name} was changed after"):
        read_lock(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_lock(tmp_path, LOCK)
    (tmp_path / "conda-lock.yml").unlink()
    with pytest.raises(LockError, match=r"conda-lock\.yml is missing, though envbuild\.lock names it"):
        read_lock(tmp_path)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b'{"format": true}', b'{"format": "1"}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_lock_is_a_lock_error(data: bytes) -> None:
    with pytest.raises(LockError):
        parse_lock(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"definition": "sha256:1"}, "definition: must be a digest"),
        ({"bytecode": 1}, "bytecode: must be true or false"),
        ({"platforms": {}}, "platforms: none"),
        ({"platforms": {"plan9/mips": {}}}, "platforms: unknown platform 'plan9/mips'"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"files": {"../x": "sha256:" + "1" * 64}}, "files: '../x' isn't a file name with its digest"),
    ],
)
def test_a_body_that_does_not_fit_names_its_key(change: dict[str, object], message: str) -> None:
    from envbuild.oci.digest import canonical_digest

    body = json.loads(dump_lock(LOCK)["envbuild.lock"]) | change
    del body["integrity"]
    body["integrity"] = canonical_digest("lock-file", 1, body)
    with pytest.raises(LockError) as caught:
        parse_lock(json.dumps(body).encode())
    assert str(caught.value) == f"envbuild.lock: {message}"


@pytest.mark.parametrize("file", ["../../etc/passwd", "/etc/passwd", "pool/../../x.deb"])
def test_a_package_path_never_leaves_the_archive(file: str) -> None:
    bad = replace(
        LOCK,
        platforms=(replace(AMD64, base=replace(BASE, packages=(replace(LIBC, file=file),))),),
    )
    with pytest.raises(LockError, match="leaves the archive"):
        parse_lock(dump_lock(bad)["envbuild.lock"])


def changed(pin: Any, field: str, value: object) -> Any:
    return replace(pin, **{field: value})


def bad_values() -> Iterator[tuple[str, Lock, str]]:
    line = "x\nRUN touch /owned"
    image = ARM64.base
    assert isinstance(image, ImageBase)
    first, second = "platforms.linux/amd64", "platforms.linux/arm64"

    def amd64(**changes: Any) -> Lock:
        return replace(LOCK, platforms=(replace(AMD64, **changes), ARM64))

    def arm64(**changes: Any) -> Lock:
        return replace(LOCK, platforms=(AMD64, replace(ARM64, **changes)))

    def runtime(**changes: Any) -> Lock:
        return replace(LOCK, runtime=replace(LOCK.runtime, **changes))

    for executable in (
        line,
        "/usr/bin/python3; touch x",
        "$(id)",
        "--root=/x",
        "python3",
        "/usr/../x",
        "/a b",
    ):
        bad = replace(PYTHON, executable=executable)
        yield f"executable {executable!r}", amd64(python=bad), f"{first}.python: {executable!r}"
    yield "python version", amd64(python=replace(PYTHON, version="3.13; x")), f"{first}.python: "
    yield "python provider", amd64(python=replace(PYTHON, provider="x")), f"{first}.python: "
    yield "no build", amd64(python=replace(STANDALONE, build=None)), f"{first}.python.build: a standalone"
    build = STANDALONE.build
    assert build is not None
    yield (
        "a build of Debian's",
        amd64(python=replace(PYTHON, build=build)),
        f"{first}.python.build: a standalone",
    )
    elsewhere = replace(STANDALONE, executable="/usr/bin/python3.10")
    yield "a build elsewhere", amd64(python=elsewhere), f"{first}.python.build: it isn't of python 3.10.13"
    other = replace(STANDALONE, build=replace(build, version="3.10.12"))
    yield "a build of another", amd64(python=other), f"{first}.python.build: it isn't of python 3.10.13"
    for url in (line, "https://h/x.zip", "https://h/..%2fx.tar.gz", "-x.tar.gz", "https://h/a b.tar.gz"):
        bad = replace(STANDALONE, build=replace(build, url=url))
        yield f"build {url!r}", amd64(python=bad), f"{first}"
    huge = replace(STANDALONE, build=replace(build, size=10**30))
    yield "size of a build", amd64(python=huge), f"{first}: 'cpython-3.10.13+20260101"
    for suite in (line, "a b", "../x", "--x"):
        yield f"suite {suite!r}", amd64(base=replace(BASE, suite=suite)), f"{first}.base.debian: {suite!r}"
    yield "glibc", amd64(base=replace(BASE, glibc=line)), f"{first}.base.glibc: "
    for field in ("name", "version", "architecture", "archive", "file"):
        deb = changed(LIBC, field, line)
        yield f"Debian {field}", amd64(base=replace(BASE, packages=(deb,))), f"{first}.base: "
    for reference in (line, "a b", "--platform=x y", "x AS y", "x@sha256:1", "${X}", "../x", "", "oci:a\nb"):
        base = replace(image, reference=reference)
        yield f"reference {reference!r}", arm64(base=base), f"{second}.base.image.reference: "
    for field in ("name", "version", "build", "subdir", "url", "channel", "noarch", "md5", "depends"):
        value: Any = (line,) if field == "depends" else line
        yield f"conda {field}", arm64(conda=(changed(ZLIB, field, value),)), f"{second}.conda: "
    yield "conda file", arm64(conda=(replace(ZLIB, url="https://h/-x"),)), f"{second}.conda: "
    yield "pip file", amd64(pip=(replace(SIX, file=line),)), f"{first}: {line!r}: {line!r} isn't a file name"
    for field in ("name", "version", "url", "via"):
        value = (line,) if field == "via" else line
        yield f"pip {field}", amd64(pip=(changed(SIX, field, value),)), f"{first}.pip: "
    yield "pip file, an option", amd64(pip=(replace(SIX, file="--x.whl"),)), f"{first}.pip: "
    yield "pip url, an option", amd64(pip=(replace(SIX, url="--x"),)), f"{first}.pip: "
    git = GitCommit(commit="c" * 40, tree="7" * 40)
    at = "git+https://h/six@main"
    for field in ("commit", "tree"):
        for text in (line, "main", "c" * 39, "--upload-pack=x"):
            bad_pin = replace(SIX, url=at, git=changed(git, field, text))
            yield f"git {field} {text!r}", amd64(pip=(bad_pin,)), f"{first}.pip: "
    sdist = Sdist(file="six-1.tar.gz", size=1, sha256="1" * 64, requires=(f"wheel==1 --hash=sha256:{line}",))
    yield "sdist requires", amd64(pip=(replace(SIX, sdist=sdist),)), f"{first}.pip: "
    jar = MavenPin(group="g", artifact="a", version="1", file="g/a/1/a-1.jar", size=1, sha256="1" * 64)
    for field in ("group", "artifact", "version", "file"):
        yield f"maven {field}", amd64(maven=(changed(jar, field, line),)), f"{first}.maven: "
    yield "size", amd64(pip=(replace(SIX, size=10**30),)), f"{first}: 'six"
    yield "channels", replace(LOCK, channels=(f"https://h/{line}",)), "channels[0]: "
    yield "as_of", replace(LOCK, as_of=line), "as_of: "
    yield "engines", replace(LOCK, engines=(("uv", line),)), "engines: "
    for user in ("", line, "root", "1000", "-1:0", "1:2:3", "9999999999:1", "$U"):
        yield f"user {user!r}", runtime(user=user), f"runtime.user: {user!r}"
    for port in (0, -5, 70000):
        yield f"port {port}", runtime(ports=(port,)), f"runtime.ports: {port}"
    yield "type", runtime(type="../x"), "runtime.type: '../x'"
    yield "runtime", runtime(runtime="../x"), "runtime.runtime: '../x'"
    for name in ("", "A=B", "A B", line, "1A"):
        variables = ((name, "v"),)
        yield (
            f"variable {name!r}",
            runtime(environment_variables=variables),
            "runtime.environment_variables: ",
        )
    yield (
        "variable's value",
        runtime(environment_variables=(("A", "\0"),)),
        "runtime.environment_variables.A: ",
    )
    yield "spark package", runtime(spark_packages=(f"a:b:{line}",)), "runtime.spark_packages: "
    for address in (f"https://h/{line}", "https://a,https://b"):
        yield (
            f"repository {address!r}",
            runtime(spark_repositories=(address,)),
            "runtime.spark_repositories: ",
        )
    context = ContextBase(digest="sha256:" + "1" * 64, dockerfile="Dockerfile")
    yield "context, not user-managed", amd64(base=context, pip=(), python=None), f"{first}.base: "
    own = replace(AMD64, base=replace(context, dockerfile=line), pip=(), python=None)
    yield (
        "Dockerfile",
        replace(runtime(type="user-managed"), platforms=(own,)),
        f"{first}.base.context.dockerfile",
    )
    yield "user-managed of packages", runtime(type="user-managed"), f"{first}.base: "
    yield "toolchain of a context", replace(LOCK, toolchain=(own,)), "toolchain.linux/amd64"


@pytest.mark.parametrize(
    ("lock", "message"), [pytest.param(lock, message, id=name) for name, lock, message in bad_values()]
)
def test_a_value_that_could_be_something_else_is_refused(lock: Lock, message: str) -> None:
    with pytest.raises(LockError) as caught:
        parse_lock(dump_lock(lock)["envbuild.lock"])
    assert str(caught.value).startswith(f"envbuild.lock: {message}")
    assert caught.value.hint == (
        "take the file back from version control, or make it anew with: envbuild lock --upgrade"
    )


def test_a_standalone_python_is_read_back_equal_and_other_locks_say_nothing_of_one() -> None:
    lock = replace(LOCK, platforms=(replace(AMD64, python=STANDALONE), ARM64))
    data = dump_lock(lock)["envbuild.lock"]
    assert parse_lock(data)[0] == lock
    assert json.loads(data)["platforms"]["linux/amd64"]["python"] == {
        "build": {
            "sha256": "6" * 64,
            "size": 30000000,
            "url": "https://python.example/20260101/"
            "cpython-3.10.13%2B20260101-x86_64-unknown-linux-gnu-install_only.tar.gz",
            "version": "3.10.13",
        },
        "executable": "/opt/python/bin/python3.10",
        "provider": "standalone",
        "version": "3.10.13",
    }
    assert b'"build"' not in dump_lock(replace(LOCK, platforms=(AMD64,)))["envbuild.lock"]


def test_a_lock_of_an_own_dockerfile_is_read_back_equal() -> None:
    context = ContextBase(digest="sha256:" + "1" * 64, dockerfile="sub dir/Dockerfile ä")
    lock = Lock(
        definition=LOCK.definition,
        platforms=(replace(AMD64, base=context, pip=(), python=None),),
        runtime=RuntimeSettings(type="user-managed", user=""),
    )
    assert parse_lock(dump_lock(lock)["envbuild.lock"])[0] == lock
