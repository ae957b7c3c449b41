"""What the installing stages of a Dockerfile are given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import PurePosixPath

import pytest
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

from envbuild.errors import BuildError
from envbuild.lock.model import CondaPin, PipPin
from envbuild.lock.pip.requirements import load_requirements
from envbuild.platforms import PLATFORMS, Platform
from envbuild.render.installer import (
    conda_records,
    dump_pins,
    explicit_list,
    install_script,
    load_pins,
    pip_pin,
    rattler_pins,
)
from envbuild.resources import resource_directory

LINUX = Platform.parse("linux-64")
CHANNEL = "https://channel.test/main"


def a_pin(name: str, *depends: str, subdir: str = "linux-64", **changes: object) -> CondaPin:
    values: dict[str, object] = {
        "name": name,
        "version": "1.0",
        "build": "h0_0",
        "subdir": subdir,
        "url": f"{CHANNEL}/{subdir}/{name}-1.0-h0_0.conda",
        "size": 10,
        "sha256": name[0] * 64,
        "md5": "",
        "depends": depends,
        "channel": CHANNEL,
    }
    return CondaPin(**{**values, **changes})  # type: ignore[arg-type]


def test_pip_is_one_wheel_for_every_machine() -> None:
    pin = pip_pin()
    assert pin.name == "pip"
    assert pin.file == f"pip-{pin.version}-py3-none-any.whl"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_py_rattler_fits_every_python_and_base_of_an_installing_stage(platform: Platform) -> None:
    (pin,) = rattler_pins(platform)
    tags = parse_wheel_filename(pin.file)[3]
    fitting = {Tag("cp310", "abi3", f"manylinux_2_{minor}_{platform.machine}") for minor in (17, 28)}
    assert tags & fitting
    assert {rattler_pin.version for every in PLATFORMS for rattler_pin in rattler_pins(every)} == {
        pin.version
    }


def test_pins_are_requirements_that_name_no_index() -> None:
    for path in (resource_directory("templates") / "installer").glob("*.txt"):
        text = path.read_text()
        pins = load_pins(text)
        assert [
            (requirement.name, requirement.version, requirement.sha256s)
            for requirement in load_requirements(text)
        ] == [(pin.name, pin.version, (pin.sha256,)) for pin in pins]
        assert "://" not in text
        assert dump_pins(pins).decode() == text


def test_loading_what_was_dumped_gives_the_same() -> None:
    pins = [
        PipPin(
            name="b-c", version="1!2.0+x.1", file="b_c-1!2.0+x.1-py3-none-any.whl", size=1, sha256="0" * 64
        ),
        PipPin(name="a", version="1.0", file="a-1.0-py3-none-any.whl", size=2, sha256="1" * 64),
    ]
    assert load_pins(dump_pins(pins).decode()) == (pins[1], pins[0])
    assert dump_pins(pins) == dump_pins(pins[::-1])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text + "more==1.0\n",
        lambda text: text.replace("sha256:", "md5:"),
        lambda text: text.replace("bytes", ""),
        lambda text: "--index-url https://index.test\n" + text,
    ],
)
def test_any_other_text_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(ValueError, match="not a file of pinned tools"):
        load_pins(change(dump_pins([pip_pin()]).decode()))


def test_the_list_of_conda_packages_holds_what_conda_meta_does() -> None:
    pin = a_pin(
        "tool",
        "python >=3.9",
        "libtool >=1",
        noarch="python",
        subdir="noarch",
        constrains=("z <2", "a <1"),
        md5="0" * 32,
        build_number=3,
        timestamp=1_700_000_000_000,
        python_site_packages_path="lib/python3.13/site-packages",
    )
    document = json.loads(conda_records([pin, a_pin("libtool")], [CHANNEL]))
    assert document["channels"] == [CHANNEL]
    assert [each["name"] for each in document["packages"]] == ["libtool", "tool"]
    assert document["packages"][1] == {
        "build": "h0_0",
        "build_number": 3,
        "channel": CHANNEL,
        "constrains": ["a <1", "z <2"],
        "depends": ["libtool >=1", "python >=3.9"],
        "fn": "tool-1.0-h0_0.conda",
        "md5": "0" * 32,
        "name": "tool",
        "noarch": "python",
        "python_site_packages_path": "lib/python3.13/site-packages",
        "sha256": "t" * 64,
        "size": 10,
        "subdir": "noarch",
        "timestamp": 1_700_000_000_000,
        "url": f"{CHANNEL}/noarch/tool-1.0-h0_0.conda",
        "version": "1.0",
    }
    assert set(document["packages"][0]) == {
        *("build", "build_number", "channel", "constrains", "depends", "fn", "name", "sha256", "size"),
        *("subdir", "url", "version"),
    }


def test_shuffled_pins_give_the_same_bytes() -> None:
    pins = [a_pin("a", "b"), a_pin("b"), a_pin("c", "a")]
    assert conda_records(pins, []) == conda_records(pins[::-1], [])
    assert explicit_list(pins) == explicit_list(pins[::-1])


def test_an_explicit_list_has_every_package_after_what_it_needs() -> None:
    pins = [
        a_pin("app", "python >=3", "six", subdir="noarch"),
        a_pin("six", "python", subdir="noarch"),
        a_pin("python", "libc", "pip", "absent"),
        a_pin("pip", "python >=3.13,<3.14.0a0", subdir="noarch"),
        a_pin("libc", "one"),
        a_pin("one", "two"),
        a_pin("two", "one"),
    ]
    assert explicit_list(pins).decode().splitlines() == [
        "@EXPLICIT",
        f"{CHANNEL}/linux-64/one-1.0-h0_0.conda#sha256:{'o' * 64}",
        f"{CHANNEL}/linux-64/libc-1.0-h0_0.conda#sha256:{'l' * 64}",
        f"{CHANNEL}/linux-64/two-1.0-h0_0.conda#sha256:{'t' * 64}",
        f"{CHANNEL}/linux-64/python-1.0-h0_0.conda#sha256:{'p' * 64}",
        f"{CHANNEL}/noarch/pip-1.0-h0_0.conda#sha256:{'p' * 64}",
        f"{CHANNEL}/noarch/six-1.0-h0_0.conda#sha256:{'s' * 64}",
        f"{CHANNEL}/noarch/app-1.0-h0_0.conda#sha256:{'a' * 64}",
    ]


def test_an_explicit_list_may_name_files_of_a_directory() -> None:
    pin = a_pin("tool", url=f"{CHANNEL}/linux-64/tool-1.0-a_b.conda")
    text = explicit_list([pin], directory=PurePosixPath("/installer/my packages")).decode()
    assert text == (
        f"@EXPLICIT\nfile:///installer/my%20packages/linux-64/tool-1.0-a_b.conda#sha256:{'t' * 64}\n"
    )


@pytest.mark.parametrize("end", ["\nhttps://evil.test/x.conda", " --no-deps", "#0" * 16, "\t", "é"])
def test_an_address_that_is_more_than_one_is_refused(end: str) -> None:
    pin = a_pin("tool")
    with pytest.raises(BuildError, match=r"conda package tool 1\.0: .* is no address"):
        explicit_list([replace(pin, url=pin.url + end)])


def test_the_script_that_installs_is_shipped_and_stands_alone() -> None:
    text = install_script().read_text()
    compile(text, "install_conda.py", "exec")
    assert "envbuild" not in text
