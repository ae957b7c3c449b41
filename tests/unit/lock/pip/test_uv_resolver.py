"""uv resolves to one exact file a distribution, for the target and not for this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from envbuild.errors import ResolveError
from envbuild.lock.base import KEEP, PipRequest, PipTarget, Upgrade
from envbuild.lock.model import PipPin
from envbuild.lock.pip.uv import UvResolver
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.specs.model import Origin, PipRequirement, PipSpec
from tests.fakes.wheelhouse import Wheel, Wheelhouse, sdist

TARGET = PipTarget(platform=LINUX_AMD64, python="3.13.5", glibc="2.41")


def asked(*lines: str, hashes: tuple[str, ...] = ()) -> tuple[PipRequirement, ...]:
    origin = Origin(file="/somewhere/requirements.in", where="1")
    return tuple(PipRequirement(text=line, hashes=hashes, origin=origin) for line in lines)


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
    return {**kept, "UV_CACHE_DIR": str(tmp_path / "uv"), "UV_HTTP_RETRIES": "0", **more}


@pytest.fixture
def house(tmp_path: Path) -> Wheelhouse:
    house = Wheelhouse(tmp_path / "house")
    house.add(
        Wheel(name="app", requires=["fast>=1", "tool"]),
        Wheel(name="tool", version="1.0"),
        Wheel(name="tool", version="2.0"),
        *(
            Wheel(name="fast", tag=tag)
            for tag in (
                "cp313-cp313-manylinux_2_28_x86_64",
                "cp313-cp313-manylinux2014_x86_64",
                "cp312-abi3-manylinux_2_17_x86_64",
                "cp313-cp313-manylinux_2_17_aarch64",
                "py3-none-any",
            )
        ),
    )
    return house


@pytest.fixture
def resolver(tmp_path: Path, house: Wheelhouse) -> UvResolver:
    return UvResolver(env=environment(tmp_path, UV_DEFAULT_INDEX=house.url))


def test_each_distribution_is_pinned_to_the_file_its_target_prefers(resolver: UvResolver) -> None:
    pins = resolver.resolve(PipRequest(spec=PipSpec(requirements=asked("app")), target=TARGET))
    assert [(pin.name, pin.version, pin.file, pin.via) for pin in pins] == [
        ("app", "1.0", "app-1.0-py3-none-any.whl", ("-r requirements.in",)),
        ("fast", "1.0", "fast-1.0-cp313-cp313-manylinux_2_28_x86_64.whl", ("app",)),
        ("tool", "2.0", "tool-2.0-py3-none-any.whl", ("app",)),
    ]
    wheel = Wheel(name="app", requires=["fast>=1", "tool"])
    assert (pins[0].sha256, pins[0].size, pins[0].url) == (wheel.pin().sha256, len(wheel.data()), None)


@pytest.mark.parametrize(
    ("target", "tag"),
    [
        (
            PipTarget(platform=LINUX_AMD64, python="3.13.5", glibc="2.17"),
            "cp313-cp313-manylinux2014_x86_64",
        ),
        (
            PipTarget(platform=LINUX_AMD64, python="3.14.0", glibc="2.41"),
            "cp312-abi3-manylinux_2_17_x86_64",
        ),
        (
            PipTarget(platform=LINUX_ARM64, python="3.13.5", glibc="2.41"),
            "cp313-cp313-manylinux_2_17_aarch64",
        ),
        (PipTarget(platform=LINUX_ARM64, python="3.12.0", glibc="2.36"), "py3-none-any"),
    ],
)
def test_a_pin_is_never_newer_than_the_base_can_load(
    resolver: UvResolver, target: PipTarget, tag: str
) -> None:
    assert [
        pin.file
        for pin in resolver.resolve(PipRequest(spec=PipSpec(requirements=asked("fast")), target=target))
    ] == [f"fast-1.0-{tag}.whl"]


def test_pins_stay_until_an_upgrade_names_them(resolver: UvResolver) -> None:
    spec = PipSpec(requirements=asked("app"))
    old = (Wheel(name="tool", version="1.0").pin(), Wheel(name="fast").pin())

    def files(upgrade: Upgrade) -> list[str]:
        pins = resolver.resolve(PipRequest(spec=spec, target=TARGET, preferred=old, upgrade=upgrade))
        return [pin.file for pin in pins][1:]

    new_fast = "fast-1.0-cp313-cp313-manylinux_2_28_x86_64.whl"
    assert files(KEEP) == ["fast-1.0-py3-none-any.whl", "tool-1.0-py3-none-any.whl"]
    assert files(Upgrade(packages=frozenset({"tool"}))) == [
        "fast-1.0-py3-none-any.whl",
        "tool-2.0-py3-none-any.whl",
    ]
    assert files(Upgrade(everything=True)) == [new_fast, "tool-2.0-py3-none-any.whl"]


def test_order_of_requirements_changes_nothing(resolver: UvResolver) -> None:
    first = resolver.resolve(PipRequest(spec=PipSpec(requirements=asked("app", "tool<2")), target=TARGET))
    assert (
        resolver.resolve(PipRequest(spec=PipSpec(requirements=asked("tool<2", "app")), target=TARGET))
        == first
    )
    assert (
        resolver.resolve(
            PipRequest(spec=PipSpec(requirements=asked("tool<2", "app")), target=TARGET, offline=True)
        )
        == first
    )


def test_what_conda_installs_constrains_and_is_left_out(resolver: UvResolver) -> None:
    spec = PipSpec(requirements=asked("app", "nowhere"))
    pins = resolver.resolve(PipRequest(spec=spec, target=TARGET, provided={"Tool": "1.5", "nowhere": "3"}))
    assert [pin.name for pin in pins] == ["app", "fast"]
    with pytest.raises(ResolveError, match=r"tool>=2") as caught:
        resolver.resolve(
            PipRequest(spec=PipSpec(requirements=asked("tool>=2")), target=TARGET, provided={"tool": "1.5"})
        )
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("conda installs tool 1.5:")


def test_an_sdist_is_pinned_only_where_no_wheel_fits(
    tmp_path: Path, house: Wheelhouse, resolver: UvResolver
) -> None:
    house.add_file("slow", "slow-1.0.tar.gz", sdist("slow"))
    house.add(Wheel(name="slow", tag="cp39-cp39-manylinux2014_x86_64"))
    [pin] = resolver.resolve(PipRequest(spec=PipSpec(requirements=asked("slow")), target=TARGET))
    assert (pin.file, pin.is_wheel) == ("slow-1.0.tar.gz", False)


def test_hashes_of_the_spec_choose_the_file_or_fail(resolver: UvResolver) -> None:
    allowed = Wheel(name="fast").pin().sha256
    [pin] = resolver.resolve(
        PipRequest(
            spec=PipSpec(requirements=asked("fast==1.0", hashes=(f"sha256:{allowed}",))), target=TARGET
        )
    )
    assert pin.file == "fast-1.0-py3-none-any.whl"
    with pytest.raises(ResolveError, match=r"fast 1\.0: none of its files has a hash of the spec"):
        resolver.resolve(
            PipRequest(
                spec=PipSpec(requirements=asked("fast==1.0", hashes=("sha256:" + "0" * 64,))), target=TARGET
            )
        )


def test_an_address_keeps_its_variables_in_the_pin(tmp_path: Path, house: Wheelhouse) -> None:
    wheel = Wheel(name="tool", version="1.0")
    with house.serve() as url:
        host = url.removeprefix("http://")
        resolver = UvResolver(env=environment(tmp_path, UV_DEFAULT_INDEX=url, TOKEN="s3cret"))
        text = f"tool @ http://user:${{TOKEN}}@{host}/tool/{wheel.file}"
        [pin] = resolver.resolve(PipRequest(spec=PipSpec(requirements=asked(text)), target=TARGET))
        assert pin.url == text.removeprefix("tool @ ")
        assert (pin.file, pin.sha256) == (wheel.file, wheel.pin().sha256)
        missing = f"tool @ http://user:${{TOKEN}}@{host}/tool/absent-s3cret-1.0-py3-none-any.whl"
        with pytest.raises(ResolveError) as caught:
            resolver.resolve(PipRequest(spec=PipSpec(requirements=asked(missing)), target=TARGET))
    assert "s3cret" not in caught.value.message
    assert "user:" not in caught.value.message


def test_options_of_the_spec_reach_uv(tmp_path: Path, house: Wheelhouse) -> None:
    resolver = UvResolver(env=environment(tmp_path))
    spec = PipSpec(
        requirements=asked("tool"), options=("--no-index", f"--find-links {house.simple / 'tool'}")
    )
    assert [pin.file for pin in resolver.resolve(PipRequest(spec=spec, target=TARGET))] == [
        "tool-2.0-py3-none-any.whl"
    ]


def test_pip_index_url_counts_where_uv_has_none(tmp_path: Path, house: Wheelhouse) -> None:
    env = environment(
        tmp_path, PIP_INDEX_URL=house.url, UV_RESOLUTION="lowest", UV_EXCLUDE_NEWER="2001-01-01"
    )
    [pin] = UvResolver(env=env).resolve(PipRequest(spec=PipSpec(requirements=asked("tool")), target=TARGET))
    assert pin.version == "2.0"


def test_settings_of_uv_that_anyone_left_among_temporary_files_do_not_count(
    tmp_path: Path, resolver: UvResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uv.toml").write_text("no-index = true\n")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\n[tool.uv]\nno-index = true\n'
        '[tool.uv.workspace]\nmembers = ["*"]\n'
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pins = resolver.resolve(PipRequest(spec=PipSpec(requirements=asked("app")), target=TARGET))
    assert [pin.name for pin in pins] == ["app", "fast", "tool"]


def test_an_unknown_or_impossible_requirement_gives_uvs_reason(resolver: UvResolver) -> None:
    with pytest.raises(ResolveError, match="nosuchthing was not found") as caught:
        resolver.resolve(PipRequest(spec=PipSpec(requirements=asked("nosuchthing")), target=TARGET))
    assert caught.value.hint is not None
    assert "spelling" in caught.value.hint
    with pytest.raises(ResolveError, match=r"tool>=3"):
        resolver.resolve(PipRequest(spec=PipSpec(requirements=asked("tool>=3")), target=TARGET))


def test_an_index_that_does_not_answer_is_named(tmp_path: Path) -> None:
    resolver = UvResolver(env=environment(tmp_path, UV_DEFAULT_INDEX="http://u:pw@127.0.0.1:9/simple"))
    with pytest.raises(ResolveError, match=r"http://127\.0\.0\.1:9/simple") as caught:
        resolver.resolve(PipRequest(spec=PipSpec(requirements=asked("tool")), target=TARGET))
    assert "pw" not in caught.value.message
    assert caught.value.hint is not None
    assert "network" in caught.value.hint


def test_as_of_refuses_what_has_no_date(resolver: UvResolver) -> None:
    spec = PipSpec(requirements=asked("tool"))
    with pytest.raises(ResolveError, match="tool"):
        resolver.resolve(PipRequest(spec=spec, target=TARGET, as_of=date(2020, 1, 1)))


def test_nothing_asked_needs_no_uv(tmp_path: Path) -> None:
    nothing: tuple[PipPin, ...] = ()
    assert (
        UvResolver(env={}, executable="/nonexistent").resolve(PipRequest(spec=PipSpec(), target=TARGET))
        == nothing
    )


def test_a_conda_version_that_pip_cannot_read_is_left_out_all_the_same(resolver: UvResolver) -> None:
    pins = resolver.resolve(
        PipRequest(spec=PipSpec(requirements=asked("app")), target=TARGET, provided={"tool": "2023c_1"})
    )
    assert [pin.name for pin in pins] == ["app", "fast"]


_TWO_PLATFORMS = """
import sys, threading
from envbuild.lock.pip.command import find_uv
from envbuild.lock.pip.uv import UvResolver
import uv
UvResolver(env={})
sys.setswitchinterval(1e-6)
found, start = [], threading.Barrier(4)
def ask():
    start.wait()
    found.append(find_uv())
threads = [threading.Thread(target=ask) for _ in range(4)]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(len(found), len(set(found)))
"""


def test_uv_is_found_by_several_threads_at_once() -> None:
    """Python's own settings were seen half made by the second thread that asked for them."""
    done = subprocess.run([sys.executable, "-c", _TWO_PLATFORMS], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("4 1\n", "")


def test_a_package_that_asks_for_a_repository_runs_no_git_of_uvs(
    tmp_path: Path, resolver: UvResolver
) -> None:
    wheel = Wheel(name="asks", requires=["other @ git+http://127.0.0.1:9/other.git@main"])
    place = tmp_path / "asks-1.0-py3-none-any.whl"
    place.write_bytes(wheel.data())
    spec = PipSpec(requirements=asked(f"asks @ {place.as_uri()}"))
    with pytest.raises(ResolveError) as raised:
        resolver.resolve(PipRequest(spec=spec, target=TARGET))
    assert "transport 'http' not allowed" in raised.value.message
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("a package asks for a repository by itself")


@pytest.fixture
def two_indexes(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A main index and one more that has an old version of one name, as PyTorch's have."""
    main, more = Wheelhouse(tmp_path / "main"), Wheelhouse(tmp_path / "more")
    main.add(Wheel(name="six", version="1.17.0"))
    more.add(
        Wheel(name="six", version="1.10.0"), Wheel(name="acme", version="2.0+cpu", requires=["six>=1.15"])
    )
    with main.serve() as first, more.serve() as second:
        yield first, second


def resolve_acme(env: dict[str, str], *options: str, strategy: str | None = None) -> list[tuple[str, str]]:
    spec = PipSpec(requirements=asked("acme"), options=options, index_strategy=strategy)
    pins = UvResolver(env=env).resolve(PipRequest(spec=spec, target=TARGET))
    return [(pin.name, pin.version) for pin in pins]


def test_the_best_match_of_all_indexes_counts_as_in_pip(tmp_path: Path, two_indexes: tuple[str, str]) -> None:
    main, more = two_indexes
    env = environment(tmp_path, PIP_CONFIG_FILE=os.devnull, UV_DEFAULT_INDEX=main)
    answer = [("acme", "2.0+cpu"), ("six", "1.17.0")]
    assert resolve_acme(env, f"--extra-index-url {more}") == answer
    with pytest.raises(ResolveError, match="six"):
        resolve_acme(env, f"--extra-index-url {more}", strategy="first-index")
    assert resolve_acme({**env, "UV_INDEX_STRATEGY": "first-index"}, f"--extra-index-url {more}") == answer


def test_indexes_of_pips_variables_and_files_count(tmp_path: Path, two_indexes: tuple[str, str]) -> None:
    main, more = two_indexes
    config = tmp_path / "pip.conf"
    config.write_text(f"[global]\nindex-url = {main}\nextra-index-url = {more}\n")
    answer = [("acme", "2.0+cpu"), ("six", "1.17.0")]
    assert resolve_acme(environment(tmp_path, PIP_CONFIG_FILE=str(config))) == answer
    variables = {"PIP_INDEX_URL": main, "PIP_EXTRA_INDEX_URL": more, "PIP_CONFIG_FILE": os.devnull}
    assert resolve_acme(environment(tmp_path, **variables)) == answer


def test_an_index_that_the_spec_names_takes_the_place_of_pips(
    tmp_path: Path, two_indexes: tuple[str, str]
) -> None:
    main, more = two_indexes
    env = environment(tmp_path, PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL=main, PIP_EXTRA_INDEX_URL=main)
    with pytest.raises(ResolveError, match="six"):
        resolve_acme(env, f"--index-url {more}")
