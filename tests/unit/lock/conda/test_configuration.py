"""Which of conda's configuration counts, and what a name of a channel comes to by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.conda.channels import DEFAULT_CHANNELS
from envbuild.lock.conda.configuration import CondaConfiguration, conda_configuration
from envbuild.settings import Settings

FORGE = "https://conda.anaconda.org/conda-forge"


def configuration(
    home: Path, files: dict[str, str], env: dict[str, str] | None = None, **settings: Any
) -> CondaConfiguration:
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")
    made = Settings(cache_dir=home / "cache", **settings)
    return conda_configuration(made, {"HOME": str(home), **(env or {})})


def test_without_any_nothing_differs(tmp_path: Path) -> None:
    found = configuration(tmp_path, {})
    assert found == CondaConfiguration()
    assert found.lines() == ()
    assert found.names.addresses("conda-forge") == (FORGE,)


def test_the_file_that_counts_more_goes_first(tmp_path: Path) -> None:
    found = configuration(
        tmp_path,
        {
            ".config/conda/.condarc": "channel_alias: https://a.example\ndefault_channels: [https://a.example/x]\n",
            ".conda/condarc.d/10.yml": "custom_channels: {one: https://one.example, two: https://a.example}\n",
            ".condarc": "channel_alias: https://b.example/\ndefault_channels: [https://b.example/y]\n",
            "own": "custom_channels: {two: https://two.example/}\n",
        },
        {"CONDARC": str(tmp_path / "own")},
    )
    assert found.mirrors == {"https://conda.anaconda.org/": ("https://b.example",)}
    assert found.names.addresses("defaults") == ("https://b.example/y", "https://a.example/x")
    assert found.names.addresses("one") == ("https://one.example/one",)
    assert found.names.addresses("two") == ("https://two.example/two",)
    assert [path.name for path in found.files] == [".condarc", "10.yml", ".condarc", "own"]


def test_variables_go_before_files_and_settings_before_both(tmp_path: Path) -> None:
    files = {".condarc": "channel_alias: https://file.example\nchannel_priority: strict\n"}
    env = {"CONDA_CHANNEL_ALIAS": "https://variable.example", "CONDA_CHANNEL_PRIORITY": "flexible"}
    assert configuration(tmp_path, files, env).mirrors == {
        "https://conda.anaconda.org/": ("https://variable.example",)
    }
    assert configuration(tmp_path, files, env).priority == "flexible"
    own = configuration(tmp_path, files, env, conda_channel_alias="https://setting.example")
    assert own.mirrors == {"https://conda.anaconda.org/": ("https://setting.example",)}


def test_copies_of_the_public_channels_are_asked_in_their_place(tmp_path: Path) -> None:
    found = configuration(
        tmp_path,
        {
            ".condarc": "default_channels: [https://m.example/main, https://m.example/r, https://m.example/own]\n"
            "mirrored_channels: {conda-forge: [https://m.example/cf, https://n.example/cf]}\n"
        },
        conda_mirrors=(("https://conda.anaconda.org/bioconda", "https://m.example/bio/"),),
    )
    assert found.names.defaults == (*DEFAULT_CHANNELS, "https://m.example/own")
    assert found.mirrors == {
        f"{DEFAULT_CHANNELS[0]}/": ("https://m.example/main",),
        f"{DEFAULT_CHANNELS[1]}/": ("https://m.example/r",),
        f"{FORGE}/": ("https://m.example/cf", "https://n.example/cf"),
        "https://conda.anaconda.org/bioconda/": ("https://m.example/bio",),
    }


def test_variables_in_a_file_are_filled_in_and_no_secret_is_shown(tmp_path: Path) -> None:
    found = configuration(
        tmp_path,
        {".condarc": "channel_alias: https://u:${SECRET}@m.example/t/tk-123\n"},
        {"SECRET": "hunter2"},
    )
    assert found.mirrors == {"https://conda.anaconda.org/": ("https://u:hunter2@m.example/t/tk-123",)}
    shown = "\n".join(found.lines())
    assert "hunter2" not in shown
    assert "tk-123" not in shown
    assert "m.example" in shown


def test_what_has_no_like_here_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    configuration(tmp_path, {".condarc": "auto_update_conda: false\nssl_verify: /etc/ca.pem\n"})
    (message,) = caplog.messages
    assert message.endswith(
        ".condarc:2: ssl_verify isn't used: certificates are always checked; the setting ca-bundle names an "
        "own authority"
    )


@pytest.mark.parametrize(
    "text", ["custom_channels: [a]", "custom_multichannels: {a: b}", "mirrored_channels: 1"]
)
def test_a_value_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ResolveError, match=r"\.condarc:1: "):
        configuration(tmp_path, {".condarc": f"{text}\n"})
