"""Which indexes are asked, and which goes first: what uv and pip themselves do with the same settings."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from envbuild.errors import ResolveError, SpecError
from envbuild.lock.base import PipRequest, PipTarget
from envbuild.lock.pip.command import find_uv
from envbuild.lock.pip.uv import UvResolver
from envbuild.platforms import Platform
from envbuild.render.access import index_lines
from envbuild.specs.load import load_spec
from tests.fakes.channel import serve
from tests.fakes.wheelhouse import Wheel, Wheelhouse

HOST = PipTarget(
    platform=Platform.host(), python=platform.python_version(), glibc=platform.libc_ver()[1] or "2.28"
)
NAMES = "abcd"


@dataclass(frozen=True, kw_only=True)
class Case:
    """Settings of a machine, and the options of a requirements file. ``{a}`` is an index, ``{links}`` and
    ``{directory}`` are the wheels of the first as a page and as a directory."""

    name: str
    lines: str = ""
    variables: Mapping[str, str]
    config: str = ""


@dataclass(frozen=True)
class Answer:
    version: str | None
    asked: tuple[str, ...]
    """Which indexes were asked for the name, and ``links`` where the page was."""


@dataclass
class Machine:
    """Four indexes, of which each has another version of one distribution, and a home without settings."""

    root: Path

    def __post_init__(self) -> None:
        for number, name in enumerate(NAMES):
            Wheelhouse(self.root / name).add(Wheel(name="pick", version=f"{9 - number}.0"))
        links = self.root / "a" / "links"
        links.mkdir()
        wheel = Wheel(name="pick", version="0.1")
        (links / wheel.file).write_bytes(wheel.data())
        (links / "index.html").write_text(f'<a href="{wheel.file}">{wheel.file}</a>')

    def run(self, case: Case, tool: str, strategy: str = "unsafe-best-match") -> Answer:
        """What ``tool`` takes: ``uv``, ``pip``, or ``envbuild``."""
        work = self.root / f"{tool}-{strategy}"
        work.mkdir()
        with ExitStack() as stack:
            served = {name: stack.enter_context(serve(self.root / name)) for name in NAMES}
            urls = {name: f"{url}/simple" for name, (url, _) in served.items()}
            urls["links"] = f"{served['a'][0]}/links/index.html"
            urls["directory"] = str(self.root / "a" / "links")
            kept = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
            env = {
                **kept,
                "HOME": str(work),
                "XDG_CONFIG_HOME": str(work / "config"),
                "XDG_CONFIG_DIRS": str(work),
                "UV_CACHE_DIR": str(work / "cache"),
                "UV_HTTP_RETRIES": "0",
                "PIP_NO_CACHE_DIR": "1",
                # Whoever asks an index that nobody named.
                "HTTPS_PROXY": "http://127.0.0.1:9",
                "PIP_RETRIES": "0",
                **{key: value.format(**urls) for key, value in case.variables.items()},
            }
            if case.config:
                place = work / "config" / ("pip/pip.conf" if "[global]" in case.config else "uv/uv.toml")
                place.parent.mkdir(parents=True)
                place.write_text(case.config.format(**urls))
            file = work / "spec" / "requirements.in"
            file.parent.mkdir()
            file.write_text(f"{case.lines.format(**urls)}\npick\n")
            version = getattr(self, f"_{tool}")(file, env, strategy)
        asked = [name for name in NAMES if any("/pick/" in path for path in served[name][1])]
        asked += ["links"] if any("/links/index.html" in path for path in served["a"][1]) else []
        return Answer(version, tuple(asked))

    def _uv(self, file: Path, env: dict[str, str], strategy: str) -> str | None:
        options = ["--quiet", "--no-header", "--no-annotate", "--index-strategy", strategy]
        argv = [find_uv(), "pip", "compile", *options, file.name]
        answer = subprocess.run(argv, cwd=file.parent, env=env, capture_output=True, text=True, check=False)
        return answer.stdout.strip().removeprefix("pick==") or None

    def _pip(self, file: Path, env: dict[str, str], _: str) -> str | None:
        argv = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--quiet",
            "-r",
            file.name,
            "-d",
            "taken",
        ]
        subprocess.run(argv, cwd=file.parent, env=env, capture_output=True, check=False)
        return next((path.name.split("-")[1] for path in (file.parent / "taken").glob("*")), None)

    def _envbuild(self, file: Path, env: dict[str, str], strategy: str) -> str | None:
        spec = replace(load_spec(file).pip, index_strategy=strategy)
        try:
            return UvResolver(env=env).resolve(PipRequest(spec=spec, target=HOST))[0].version
        except ResolveError:
            return None


def ini(*lines: str) -> str:
    return "\n".join(["[global]", *lines]) + "\n"


UV = [
    Case(name="default", lines="-i {b}", variables={"UV_DEFAULT_INDEX": "{a}"}),
    Case(name="index-url", lines="-i {b}", variables={"UV_INDEX_URL": "{a}"}),
    Case(name="named", lines="-i {c}", variables={"UV_INDEX": "x={b} y={a}", "UV_DEFAULT_INDEX": "z={d}"}),
    Case(
        name="extra",
        lines="--extra-index-url {d}",
        variables={"UV_EXTRA_INDEX_URL": "{b} {a}", "UV_INDEX_URL": "{c}"},
    ),
    Case(
        name="file",
        lines="--extra-index-url {c}",
        variables={"UV_INDEX": "{d}"},
        config='[[index]]\nurl = "{b}"\n[[index]]\nurl = "{a}"\ndefault = true\n',
    ),
    Case(name="file-index-url", variables={}, config='index-url = "{b}"\nextra-index-url = ["{c}"]\n'),
    Case(name="file-pip", variables={}, config='[pip]\nindex-url = "{b}"\n', lines="-i {c}"),
    Case(
        name="file-no-index",
        lines="-i {b}",
        variables={},
        config='no-index = true\nfind-links = ["{links}"]\n',
    ),
    Case(name="links", variables={"UV_FIND_LINKS": "{links}", "UV_DEFAULT_INDEX": "{b}"}),
    Case(
        name="no-config",
        variables={"UV_NO_CONFIG": "1", "UV_DEFAULT_INDEX": "{c}"},
        config='[[index]]\nurl = "{a}"\n',
    ),
    Case(name="no-index", lines="--no-index\n-f {links}", variables={"UV_DEFAULT_INDEX": "{b}"}),
]
PIP = [
    Case(name="variable", lines="--extra-index-url {c}", variables={"PIP_INDEX_URL": "{d}"}),
    Case(name="line", lines="-i {b}", variables={"PIP_INDEX_URL": "{a}", "PIP_EXTRA_INDEX_URL": "{c}"}),
    Case(name="two-lines", lines="--extra-index-url {a}\n-i {c}", variables={"PIP_INDEX_URL": "{b}"}),
    Case(name="one-line", lines="--extra-index-url {b} -i {c}", variables={"PIP_INDEX_URL": "{a}"}),
    Case(name="file", variables={}, config=ini("index-url = {c}", "extra-index-url = {b}", "  {d}")),
    Case(
        name="variable-and-file",
        variables={"PIP_EXTRA_INDEX_URL": "{d}"},
        config=ini("index-url = {c}", "extra-index-url = {b}"),
    ),
    Case(name="no-index", lines="-i {a}", variables={"PIP_NO_INDEX": "1"}),
    Case(name="no-index-extra", lines="--extra-index-url {a}\n-f {links}", variables={"PIP_NO_INDEX": "1"}),
    Case(name="file-no-index", lines="-f {directory}", variables={}, config=ini("no-index = true")),
    Case(
        name="lines-no-index", lines="--no-index\n-i {c}\n-f {directory}", variables={"PIP_INDEX_URL": "{b}"}
    ),
    Case(name="index", lines="-f {directory}", variables={"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "{b}"}),
]


@pytest.mark.parametrize(
    "strategy", ["unsafe-best-match", pytest.param("first-index", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=() if number % 3 == 0 else pytest.mark.slow)
        for number, case in enumerate(UV)
    ],
)
def test_uvs_settings_mean_what_they_mean_to_uv(case: Case, strategy: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.run(case, "envbuild", strategy) == machine.run(case, "uv", strategy)


@pytest.mark.slow
@pytest.mark.parametrize("case", PIP, ids=[case.name for case in PIP])
def test_pips_settings_mean_what_they_mean_to_pip(case: Case, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.run(case, "envbuild") == machine.run(case, "pip")


def test_a_later_index_takes_the_place_of_what_lines_before_it_name(tmp_path: Path) -> None:
    file = tmp_path / "requirements.in"
    file.write_text(
        "--extra-index-url https://a.test/s\n-i https://b.test/s --extra-index-url https://c.test/s\npick\n"
    )
    assert load_spec(file).pip.options == (
        "--index-url https://b.test/s",
        "--extra-index-url https://c.test/s",
    )
    file.write_text("-f here.whl\npick\n")
    (tmp_path / "here.whl").touch()
    with pytest.raises(SpecError, match=r"--find-links here\.whl is a file of a distribution"):
        load_spec(file)


def test_the_indexes_are_shown_in_the_order_they_are_asked() -> None:
    env = {
        "UV_INDEX": "corp=https://me:s3cret@corp.test/s",
        "UV_DEFAULT_INDEX": "https://mirror.test/s",
        "UV_NO_CONFIG": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_EXTRA_INDEX_URL": "https://pip.test/s file:///opt/simple",
    }
    assert index_lines(env, ("--extra-index-url https://more.test/s",)) == (
        "uv's variables: https://corp.test/s",
        "pip's configuration: https://pip.test/s",
        "spec: https://more.test/s",
        "uv's variables: https://mirror.test/s",
        "pip's configuration: file:///opt/simple doesn't count: only this machine has it",
    )
    assert index_lines({**env, "UV_INDEX": ""}, ("--index-url https://own.test/s",)) == (
        "uv's variables: https://mirror.test/s",
        "spec: https://own.test/s doesn't count: uv's variables name the index",
        "pip's configuration: file:///opt/simple doesn't count: only this machine has it",
    )
