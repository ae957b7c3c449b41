"""Options of targets: each says what is wrong with it, and no secret is kept or shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envbuild.errors import UsageError
from envbuild.platforms import LINUX_ARM64
from envbuild.targets.base import TargetLimits, TargetOption, TargetRecord
from envbuild.targets.docker import KIND as DOCKER
from envbuild.targets.docker import DockerOptions
from envbuild.targets.local import KIND as LOCAL
from envbuild.targets.options import byte_size, check_options, parse_options, repository_prefix, whole


def record(**options: str) -> TargetRecord:
    pairs = tuple(sorted((name.replace("_", "-"), value) for name, value in options.items()))
    return TargetRecord(name="box", kind="docker", options=pairs)


def refused(*own: TargetOption, **options: str) -> UsageError:
    with pytest.raises(UsageError) as raised:
        check_options(record(**options), own or DOCKER.options)
    return raised.value


def test_options_become_limits_and_defaults_are_filled_in() -> None:
    options = parse_options(
        record(
            platform="linux/arm64", glibc="2.31", cuda="12.4", layers="50", size="8 GB", layer_size="1.5M"
        ),
        DockerOptions,
    )
    assert options.gpus is False
    assert options.limits == TargetLimits(
        platform=LINUX_ARM64, glibc="2.31", cuda="12.4", layers=50, size=8_000_000_000, layer_size=1_500_000
    )
    assert parse_options(record(), DockerOptions).limits == TargetLimits()


def test_all_that_does_not_fit_is_told_at_once() -> None:
    error = refused(plattform="linux/amd64", layers="0", gpus="yes", cuda="twelve", zzz="1")
    assert error.message.splitlines() == [
        "target box:",
        "cuda=twelve: must be a version like 12.4",
        "gpus=yes: must be true or false",
        "layers=0: must be a whole number above 0",
        "a docker target has no option 'plattform'; did you mean platform?",
        "a docker target has no option 'zzz'",
    ]
    assert error.hint == (
        "options of docker: context, cuda, glibc, gpus, host, layer-size, layers, platform, registry, size"
    )


def test_option_that_is_needed_is_told() -> None:
    error = refused(TargetOption(name="namespace", help="where jobs go", required=True))
    assert error.message.splitlines()[1:] == ["a docker target needs the option namespace: where jobs go"]


@pytest.mark.parametrize(
    "value",
    [
        "tcp://ann:hunter2@host:2376",
        "unix:///x?password=hunter2",
        "token=hunter2",
        "PASSWD = hunter2",
        "x&api_key=hunter2",
        "-----BEGIN hunter2",
    ],
)
@pytest.mark.parametrize("option", ["host", "context", "registry"])
def test_secret_is_refused_and_not_repeated(option: str, value: str) -> None:
    error = refused(**{option: value})
    assert error.message.splitlines()[1:] == [
        f"{option}: looks like a secret; options only name where secrets are kept"
    ]
    assert "hunter2" not in f"{error.message}{error.hint}"


@pytest.mark.parametrize("value", ["", " ", "a\nb", "a\0", "\x1b[31m", "x" * 4097])
def test_value_is_one_line(value: str) -> None:
    assert refused(context=value).message.splitlines()[1:] == [
        "context: must be one line of 1 to 4096 characters"
    ]


@pytest.mark.parametrize(
    "value",
    [
        "unix:///run/docker.sock",
        "tcp://10.0.0.1:2375",
        "ssh://root@box",
        "ssh://box:2222",
        "ssh://ann@[::1]:22",
    ],
)
def test_addresses_of_engines(value: str) -> None:
    assert check_options(record(host=value), DOCKER.options)["host"] == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("box", "must be unix://PATH, tcp://HOST:PORT or ssh://USER@HOST"),
        ("http://box", "must be unix://PATH, tcp://HOST:PORT or ssh://USER@HOST"),
        ("ssh://", "must be unix://PATH, tcp://HOST:PORT or ssh://USER@HOST"),
        ("ssh://a b@box", "ssh://a b@box is not ssh://USER@HOST:PORT"),
        ("ssh://box/path", "ssh://box/path is not ssh://USER@HOST:PORT"),
        ("ssh://box:22:33", "ssh://box:22:33 is not ssh://USER@HOST:PORT"),
    ],
)
def test_addresses_that_are_none(value: str, message: str) -> None:
    assert refused(host=value).message.splitlines()[1:] == [f"host={value}: {message}"]


def test_password_of_an_address_is_refused() -> None:
    assert "hunter2" not in refused(host="ssh://ann:hunter2@box").message


def test_backend_of_this_machine() -> None:
    with pytest.raises(UsageError, match="backend=podman: must be auto, docker or userns"):
        check_options(
            TargetRecord(name="here", kind="local", options=(("backend", "podman"),)), LOCAL.options
        )


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("registry.example.org/team", "registry.example.org/team"),
        ("localhost/x", "localhost/x"),
        ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b"),
    ],
)
def test_registry_prefix(text: str, prefix: str) -> None:
    assert repository_prefix(text) == prefix


@pytest.mark.parametrize("text", ["team/x", "", "registry.example.org/Team", "a.b/c@sha256:1", "a.b/c d"])
def test_what_is_no_registry_prefix(text: str) -> None:
    with pytest.raises(ValueError, match="registry"):
        repository_prefix(text)


@pytest.mark.parametrize("text", ["0", "0.0001k", "-1", "1 PB", "8 GiB", "1e9", "", "١"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size like 8GB"):
        byte_size(text)


@given(st.integers(1, 999_999), st.sampled_from([("", 1), ("k", 10**3), ("M", 10**6), ("G", 10**9)]))
def test_sizes_are_exact(number: int, unit: tuple[str, int]) -> None:
    assert byte_size(f"{number}{unit[0]}") == number * unit[1]
    assert byte_size(f"{number}.125 {unit[0]}B") == int(number * unit[1] * 1000 + 125 * unit[1]) // 1000


@given(st.text(max_size=12))
def test_whole_numbers_are_plain(text: str) -> None:
    try:
        found = whole(text)
    except ValueError:
        return
    assert found > 0
    assert int(text) == found
    assert text.isascii()


@given(st.dictionaries(st.sampled_from(["host", "context", "cuda", "size", "layers", "registry"]), st.text()))
def test_any_values_are_taken_or_refused_in_words(options: dict[str, str]) -> None:
    given_record = TargetRecord(name="box", kind="docker", options=tuple(sorted(options.items())))
    try:
        found = parse_options(given_record, DockerOptions)
    except UsageError:
        return
    assert all(value is None or value.isprintable() for value in (found.host, found.context, found.registry))
