"""uv's configuration: which files count, whose login an index has."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.lock.pip.uv_config import load_uv_config, named_index, uv_config_files


def test_files_are_looked_for_where_uv_does() -> None:
    env = {"HOME": "/h", "XDG_CONFIG_DIRS": "/etc/one:/etc/two"}
    assert [str(path) for path in uv_config_files(env)] == [
        "/h/.config/uv/uv.toml",
        "/etc/one/uv/uv.toml",
        "/etc/two/uv/uv.toml",
        "/etc/uv/uv.toml",
    ]
    assert uv_config_files({**env, "UV_NO_CONFIG": "1"}) == ()
    assert uv_config_files({**env, "UV_NO_CONFIG": "0"}) == uv_config_files(env)


def test_a_named_file_counts_alone_even_where_no_configuration_is_wanted() -> None:
    assert uv_config_files({"HOME": "/h", "UV_CONFIG_FILE": "/x.toml", "UV_NO_CONFIG": "1"}) == (
        Path("/x.toml"),
    )


def test_a_broken_file_counts_as_none_and_is_not_quoted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken, sound = tmp_path / "broken.toml", tmp_path / "sound.toml"
    broken.write_text("s3cret = = 1")
    sound.write_text("no-index = true\n")
    assert list(load_uv_config([broken, tmp_path / "absent.toml", sound])) == [{"no-index": True}]
    assert "broken.toml" in caplog.text
    assert "absent.toml" not in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("my-own=https://x.test/s?a=b", "https://me:p%40ss%2Fword@x.test/s?a=b"),
        ("my-own=https://you:old@x.test/s", "https://me:p%40ss%2Fword@x.test/s"),
        ("other=https://you:old@x.test/s", "https://you:old@x.test/s"),
        ("https://x.test/s?a=b", "https://x.test/s?a=b"),
        ("my-own=https://[broken", "https://[broken"),
    ],
)
def test_variables_log_in_to_the_index_they_name(text: str, address: str) -> None:
    env = {"UV_INDEX_MY_OWN_USERNAME": "me", "UV_INDEX_MY_OWN_PASSWORD": "p@ss/word"}
    assert named_index(text, env) == address
