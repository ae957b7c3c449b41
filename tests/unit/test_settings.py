"""Where a setting comes from, and what is refused."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from envbuild.errors import UsageError
from envbuild.settings import Settings, load_settings


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    (path / ".config" / "envbuild").mkdir(parents=True)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "project"
    path.mkdir()
    return path


def test_defaults_need_no_file_and_write_none(home: Path, project: Path) -> None:
    assert load_settings({}, {"HOME": str(home)}, project) == Settings(
        cache_dir=home / ".cache" / "envbuild",
        workspace=home / ".local" / "share" / "envbuild" / "workspace.db",
    )
    assert not (home / ".cache").exists()
    assert not (home / ".local").exists()


def test_workspace_is_a_file_or_a_url_that_no_message_shows(home: Path, project: Path) -> None:
    env = {"HOME": str(home), "XDG_DATA_HOME": "/data"}
    assert load_settings({}, env, project).workspace == Path("/data/envbuild/workspace.db")
    assert load_settings({"workspace": "own.db"}, env, project).workspace == project / "own.db"
    url = "postgresql://me:secret@host/db"
    found = load_settings({}, {**env, "ENVBUILD_WORKSPACE": url}, project)
    assert found.workspace == url
    assert "secret" not in repr(found)
    with pytest.raises(UsageError) as raised:
        load_settings({}, {**env, "ENVBUILD_WORKSPACE": "mysql://me:secret@host/db"}, project)
    assert raised.value.message == (
        "ENVBUILD_WORKSPACE must be a file or a URL that begins with sqlite:// or postgresql://"
    )


def test_flag_goes_before_environment_before_project_before_config(home: Path, project: Path) -> None:
    (home / ".config/envbuild/config.toml").write_text("workers = 1\n")
    env = {"HOME": str(home)}
    assert load_settings({}, env, project).workers == 1
    (project / "envbuild.toml").write_text("workers = 2\n")
    assert load_settings({}, env, project).workers == 2
    env["ENVBUILD_WORKERS"] = "3"
    assert load_settings({}, env, project).workers == 3
    assert load_settings({"workers": 4}, env, project).workers == 4
    assert load_settings({"workers": None}, env, project).workers == 3


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Makes the file or link another user's, and says whose, as a warning does."""
    if os.geteuid() == 0:
        os.chown(path, 4711, 4711, follow_symlinks=False)
        return "uid 4711"
    import pwd

    user = os.getuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    return f"{pwd.getpwuid(user).pw_name} (uid {user})"


def skipped(path: Path, owner: str) -> str:
    return (
        f"{path} is skipped: it belongs to {owner}; make it yours (chown), or give its settings as options "
        "or as ENVBUILD_ variables"
    )


def test_project_file_is_found_upwards_and_only_the_nearest_counts(home: Path, project: Path) -> None:
    (project / ".git").mkdir()
    (project / "pyproject.toml").write_text("[tool.envbuild]\nlayer-budget = 20\nworkers = 2\n")
    inner = project / "a" / "b"
    inner.mkdir(parents=True)
    (project / "a" / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    env = {"HOME": str(home)}
    assert load_settings({}, env, inner).layer_budget == 20
    (inner / "envbuild.toml").write_text("layer-budget = 30\n")
    found = load_settings({}, env, project, start=inner)
    assert (found.layer_budget, found.workers) == (30, None)


@pytest.mark.parametrize("mark", [".git", ".hg", ".jj"])
def test_search_ends_at_the_root_of_the_repository(home: Path, project: Path, mark: str) -> None:
    (project / "envbuild.toml").write_text("workers = 2\n")
    (project / ".git").mkdir()
    repository = project / "repository"
    inner = repository / "a" / "b"
    inner.mkdir(parents=True)
    env = {"HOME": str(home)}
    assert load_settings({}, env, inner).workers == 2
    (repository / mark).mkdir()
    assert load_settings({}, env, inner).workers is None
    (repository / "envbuild.toml").write_text("workers = 3\n")
    assert load_settings({}, env, inner).workers == 3


def test_a_worktree_whose_git_is_a_file_is_a_repository(home: Path, project: Path) -> None:
    (project / "envbuild.toml").write_text("workers = 2\n")
    worktree = project / "worktree"
    (worktree / "inner").mkdir(parents=True)
    (worktree / ".git").write_text("gitdir: ../.git/worktrees/worktree\n")
    (project / ".git").mkdir()
    assert load_settings({}, {"HOME": str(home)}, worktree / "inner").workers is None


def test_outside_of_a_repository_only_the_directory_itself_is_looked_in(home: Path, project: Path) -> None:
    (project / "envbuild.toml").write_text("workers = 2\n")
    (project / "inner").mkdir()
    env = {"HOME": str(home)}
    assert load_settings({}, env, project / "inner").workers is None
    assert load_settings({}, env, project / "inner", start=project).workers == 2
    # The parent is above the spec, though the working directory isn't.
    assert load_settings({}, env, project / "inner", start=project / "inner" / "..").workers == 2


def test_a_directory_behind_a_link_is_where_it_really_is(home: Path, project: Path, tmp_path: Path) -> None:
    (project / ".git").mkdir()
    (project / "envbuild.toml").write_text("workers = 2\n")
    (tmp_path / "elsewhere").mkdir()
    (project / "link").symlink_to(tmp_path / "elsewhere")
    assert load_settings({}, {"HOME": str(home)}, project, start=project / "link").workers is None
    (tmp_path / "back").symlink_to(project)
    assert load_settings({}, {"HOME": str(home)}, tmp_path, start=tmp_path / "back").workers == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [("envbuild.toml", "workers = 3\n"), ("pyproject.toml", "[tool]\nenvbuild = {workers = 3}\n")],
)
def test_another_users_file_is_skipped_with_a_warning(
    home: Path,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    text: str,
) -> None:
    (project / ".git").mkdir()
    (project / "inner").mkdir()
    planted = project / "inner" / name
    planted.write_text(text)
    owner = give_away(planted, monkeypatch)
    with caplog.at_level(logging.WARNING, "envbuild"):
        assert load_settings({}, {"HOME": str(home)}, project / "inner").workers is None
    assert caplog.messages == [skipped(planted, owner)]


def test_our_file_above_another_users_counts(
    home: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs files of two owners")
    (project / ".git").mkdir()
    (project / "inner").mkdir()
    (project / "envbuild.toml").write_text("workers = 2\n")
    (project / "inner" / "envbuild.toml").write_text("workers = 3\n")
    give_away(project / "inner" / "envbuild.toml", monkeypatch)
    assert load_settings({}, {"HOME": str(home)}, project / "inner").workers == 2


def test_another_users_link_to_our_file_is_skipped(
    home: Path,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "ours.toml").write_text("workers = 3\n")
    link = project / "envbuild.toml"
    link.symlink_to(tmp_path / "ours.toml")
    assert load_settings({}, {"HOME": str(home)}, project).workers == 3
    owner = give_away(link, monkeypatch)
    with caplog.at_level(logging.WARNING, "envbuild"):
        assert load_settings({}, {"HOME": str(home)}, project).workers is None
    assert caplog.messages == [skipped(link, owner)]


def test_another_users_file_without_settings_is_passed_by_in_silence(
    home: Path, project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (project / "pyproject.toml").write_text("[tool.ruff]\nline-length = 110\n")
    give_away(project / "pyproject.toml", monkeypatch)
    with caplog.at_level(logging.WARNING, "envbuild"):
        load_settings({}, {"HOME": str(home)}, project)
        (project / "pyproject.toml").write_text("[not TOML")
        load_settings({}, {"HOME": str(home)}, project)
    assert caplog.messages == []


def test_another_users_broken_link_stops_nobody(
    home: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = project / "envbuild.toml"
    loop.symlink_to(loop)
    with pytest.raises(UsageError, match="Too many levels of symbolic links"):
        load_settings({}, {"HOME": str(home)}, project)
    give_away(loop, monkeypatch)
    assert load_settings({}, {"HOME": str(home)}, project).workers is None


def test_a_pipe_of_that_name_is_no_file(home: Path, project: Path) -> None:
    os.mkfifo(project / "envbuild.toml")
    (project / "pyproject.toml").mkdir()
    found: list[Settings] = []
    # Waiting for a pipe's other end would be for ever.
    thread = Thread(target=lambda: found.append(load_settings({}, {"HOME": str(home)}, project)), daemon=True)
    thread.start()
    thread.join(20)
    assert [each.workers for each in found] == [None]


def test_root_is_believed_and_under_sudo_who_called_it(
    home: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs files of two owners")
    (project / "envbuild.toml").write_text("workers = 2\n")
    env = {"HOME": str(home)}
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 4712)
        assert load_settings({}, env, project).workers == 2
    give_away(project / "envbuild.toml", monkeypatch)
    for caller, workers in (("", None), ("4712", None), ("x", None), ("4711", 2)):
        assert load_settings({}, {**env, "SUDO_UID": caller}, project).workers == workers
    # Whoever isn't root can say anything of sudo.
    monkeypatch.setattr(os, "geteuid", lambda: 4712)
    assert load_settings({}, {**env, "SUDO_UID": "4711"}, project).workers is None


def test_envbuild_toml_counts_before_pyproject(
    home: Path, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (project / "pyproject.toml").write_text("[tool.envbuild]\nworkers = 1\n")
    (project / "envbuild.toml").write_text("workers = 2\n")
    with caplog.at_level(logging.WARNING, "envbuild"):
        assert load_settings({}, {"HOME": str(home)}, project).workers == 2
    assert "[tool.envbuild] of pyproject.toml doesn't" in caplog.text


def test_paths_are_relative_to_where_they_are_written(home: Path, project: Path) -> None:
    (project / ".git").mkdir()
    (project / "envbuild.toml").write_text('cache-dir = "../cache"\nlock_dir = "~/locks"\n')
    inner = project / "inner"
    inner.mkdir()
    found = load_settings({}, {"HOME": str(home), "ENVBUILD_CA_BUNDLE": "ca.pem"}, inner)
    assert found.cache_dir == project.parent / "cache"
    assert found.lock_dir == home / "locks"
    assert found.ca_bundle == inner / "ca.pem"
    assert load_settings({"cache_dir": "c"}, {"HOME": str(home)}, inner).cache_dir == inner / "c"


def test_cache_follows_xdg_where_absolute(home: Path, project: Path) -> None:
    env = {"HOME": str(home), "XDG_CACHE_HOME": "/var/tmp/cache"}
    assert load_settings({}, env, project).cache_dir == Path("/var/tmp/cache/envbuild")
    env["XDG_CACHE_HOME"] = "relative"
    assert load_settings({}, env, project).cache_dir == home / ".cache" / "envbuild"


def test_variables_of_the_field_count_behind_our_own(home: Path, project: Path) -> None:
    env = {"HOME": str(home), "SOURCE_DATE_EPOCH": "1700000000", "SSL_CERT_FILE": "/ca.pem"}
    found = load_settings({}, env, project)
    assert (found.source_date_epoch, found.ca_bundle) == (1_700_000_000, Path("/ca.pem"))
    env["ENVBUILD_SOURCE_DATE_EPOCH"] = "5"
    assert load_settings({}, env, project).source_date_epoch == 5


def test_empty_variable_is_unset(home: Path, project: Path) -> None:
    env = {"HOME": str(home), "ENVBUILD_WORKERS": "", "SOURCE_DATE_EPOCH": ""}
    assert load_settings({}, env, project).workers is None


@pytest.mark.parametrize("word", ["1", "true", "YES", "on"])
def test_environment_says_yes_in_many_words(home: Path, project: Path, word: str) -> None:
    assert load_settings({}, {"HOME": str(home), "ENVBUILD_OFFLINE": word}, project).offline is True


def test_all_problems_are_named_at_once(home: Path, project: Path) -> None:
    (project / "envbuild.toml").write_text(
        'worker = 2\ncompression = "bzip2"\noffline = "yes"\nlayer-budget = true\ndebian-mirror = "ftp://x"\n'
    )
    file = project / "envbuild.toml"
    with pytest.raises(UsageError) as caught:
        load_settings({"workers": "many"}, {"HOME": str(home), "ENVBUILD_OFFLINE": "maybe"}, project)
    assert caught.value.message.splitlines() == [
        "--workers must be a whole number from 1 to 1024, not 'many'",
        "ENVBUILD_OFFLINE must be 1 or 0, not 'maybe'",
        f"{file}: worker is not a setting; did you mean workers?",
        f"{file}: compression must be gzip or zstd, not 'bzip2'",
        f"{file}: offline must be true or false, not 'yes'",
        f"{file}: layer-budget must be a whole number from 4 to 120, not True",
        f"{file}: debian-mirror must be an http, https or file URL",
    ]


def test_damaged_file_is_an_error_with_its_name(home: Path, project: Path) -> None:
    (project / "envbuild.toml").write_bytes(b"workers = \xff")
    with pytest.raises(UsageError, match=r"envbuild\.toml: not valid TOML"):
        load_settings({}, {"HOME": str(home)}, project)


def test_table_of_the_wrong_type_is_an_error(home: Path, project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool]\nenvbuild = 1\n")
    with pytest.raises(UsageError, match=r"tool\.envbuild must be a table"):
        load_settings({}, {"HOME": str(home)}, project)


def test_unknown_variable_is_a_warning_with_the_nearest(
    home: Path, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "envbuild"):
        load_settings({}, {"HOME": str(home), "ENVBUILD_CACHEDIR": "/x"}, project)
    assert caplog.messages == [
        "ENVBUILD_CACHEDIR is not a setting of envbuild; did you mean ENVBUILD_CACHE_DIR?"
    ]


def test_message_never_holds_a_mirrors_credential(home: Path, project: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings({}, {"HOME": str(home), "ENVBUILD_DEBIAN_MIRROR": "gopher://me:secret@host"}, project)
    assert "secret" not in caught.value.message


@given(text=st.text(max_size=30))
@example(text="0\x1f")
def test_any_text_is_a_setting_or_a_usage_error(text: str) -> None:
    flags = dict.fromkeys(("cache_dir", "workers", "offline", "debian_mirror", "compression"), text)
    with pytest.raises(UsageError):
        load_settings(flags, {"HOME": "/nowhere"}, Path("/nowhere"))


def test_several_repositories_are_a_list_in_a_file_and_words_in_a_variable(home: Path, project: Path) -> None:
    (project / "envbuild.toml").write_text('cache-from = ["a.test/x", "b.test/y"]\ncache-to = "c.test/z"\n')
    env = {"HOME": str(home)}
    found = load_settings({}, env, project)
    assert (found.cache_from, found.cache_to) == (("a.test/x", "b.test/y"), "c.test/z")
    env["ENVBUILD_CACHE_FROM"] = "d.test:5000/x,e.test/y  f.test/z"
    assert load_settings({}, env, project).cache_from == ("d.test:5000/x", "e.test/y", "f.test/z")
    assert load_settings({"cache_from": ("g.test/x",)}, env, project).cache_from == ("g.test/x",)


@pytest.mark.parametrize("value", ["user:word@host.test/x", "host.test/x y", "", "host.test/\x1b[2J"])
def test_a_repository_that_may_hold_a_login_is_refused_without_showing_it(
    home: Path, project: Path, value: str
) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings({"cache_to": value}, {"HOME": str(home)}, project)
    assert caught.value.message == "--cache-to must be a repository, [HOST/]NAME, without a tag"


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("registry.example.org", "registry.example.org"),
        ("registry.example.org/team/", "registry.example.org/team"),
        ("localhost/team", "localhost/team"),
        ("build:5000/a/b-c", "build:5000/a/b-c"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_a_registry_is_a_host_and_perhaps_a_path(home: Path, project: Path, value: str, meant: str) -> None:
    assert load_settings({}, {"HOME": str(home), "ENVBUILD_REGISTRY": value}, project).registry == meant


@pytest.mark.parametrize(
    "value", ["team", "team/x", "https://r.example", "me:word@r.example", "r.example/Team", "r.example/x:1"]
)
def test_what_is_no_registry_is_refused_without_showing_it(home: Path, project: Path, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings({}, {"HOME": str(home), "ENVBUILD_REGISTRY": value}, project)
    assert caught.value.message == (
        "ENVBUILD_REGISTRY must be a registry with its host, HOST[:PORT][/PATH], without https://"
    )
