"""Wheels in an image: normalised, the same on every machine, and nothing outside of the prefix."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envbuild.compose.artifacts.wheel.archive import unpack_wheel
from envbuild.compose.artifacts.wheel.index import PackageIndexes
from envbuild.compose.artifacts.wheel.install import WheelInstall, install_options
from envbuild.compose.artifacts.wheel.source import WheelSource
from envbuild.compose.artifacts.wheel.tree import SHEBANG, WheelTree
from envbuild.compose.base import Entry
from envbuild.errors import BuildError
from envbuild.lock.model import PipPin, PythonPin, Sdist
from envbuild.plan.model import Artifact
from envbuild.platforms import LINUX_AMD64
from envbuild.specs.model import PackageIndex
from envbuild.store.content import Store
from tests.fakes.wheelhouse import Wheel, Wheelhouse

PYTHON = PythonPin(version="3.13.5", provider="debian", executable="/usr/bin/python3.13")
SITE = "opt/env/lib/python3.13/site-packages"
FULL = Wheel(
    name="full-demo",
    files={
        "full_demo/__init__.py": b"def main(): return 0\n",
        "full_demo/big.bin": b"x" * 70_000,
        "full_demo/tool.sh": b"#!/bin/sh\n",
        "full_demo-1.0.data/scripts/old": b"#!python\nprint(1)\n",
        "full_demo-1.0.data/scripts/shell": b"#!/bin/sh\necho\n",
        "full_demo-1.0.data/data/share/full/x.txt": b"data",
        "full_demo-1.0.data/headers/h.h": b"h",
        "full_demo-1.0.data/platlib/plat.py": b"1\n",
    },
    executable=["full_demo/tool.sh"],
    entry_points="[console_scripts]\nfull = full_demo:main\n\n[gui_scripts]\nFullGui = full_demo:a.b [x]\n",
)


class Site:
    """A store, an index and uv's cache of one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.house = Wheelhouse(root / "house")
        self.index = self.house.url
        self.index_before = ""
        self.own: dict[str, PackageIndex] = {}

    @contextmanager
    def source(
        self, *, offline: bool = False, cache: str = "uv", build_wheel: Callable[[PipPin], Path] | None = None
    ) -> Iterator[WheelSource]:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
        env |= {
            "UV_CACHE_DIR": str(self.root / cache),
            "UV_DEFAULT_INDEX": self.index,
            "UV_HTTP_RETRIES": "0",
        }
        if self.index_before:
            env["UV_INDEX"] = self.index_before
        with Store(self.root / "store").scratch() as scratch:
            yield WheelSource(
                scratch,
                python=PYTHON,
                install=WheelInstall(
                    options=install_options(PYTHON, LINUX_AMD64, "2.41", offline=offline),
                    indexes=PackageIndexes(env=env, own=self.own, offline=offline),
                ),
                build_wheel=build_wheel,
                fetch_wheel=lambda pin: self.house.simple / pin.name / pin.file,
            )

    def tree(self, *wheels: Wheel, cache: str = "uv") -> dict[str, tuple[int, bytes]]:
        self.house.add(*wheels)
        artifacts = [Artifact.of(wheel.pin()) for wheel in wheels]
        with self.source(cache=cache) as source:
            source.fetch(artifacts)
            found = [entry for each in artifacts for entry in source.entries(each)]
            return {entry.path: (entry.mode, content(entry)) for entry in found}


def content(entry: Entry) -> bytes:
    return entry.content if isinstance(entry.content, bytes) else entry.content.read_bytes()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_wheel_is_spread_over_the_prefix_in_a_normalised_form(site: Site) -> None:
    tree = site.tree(FULL)
    info = f"{SITE}/full_demo-1.0.dist-info"
    assert {path: mode for path, (mode, _) in tree.items()} == {
        "opt/env/bin/FullGui": 0o755,
        "opt/env/bin/full": 0o755,
        "opt/env/bin/old": 0o755,
        "opt/env/bin/shell": 0o755,
        "opt/env/include/site/python3.13/full-demo/h.h": 0o644,
        f"{info}/INSTALLER": 0o644,
        f"{info}/METADATA": 0o644,
        f"{info}/RECORD": 0o644,
        f"{info}/WHEEL": 0o644,
        f"{info}/entry_points.txt": 0o644,
        f"{SITE}/full_demo/__init__.py": 0o644,
        f"{SITE}/full_demo/big.bin": 0o644,
        f"{SITE}/full_demo/tool.sh": 0o755,
        f"{SITE}/plat.py": 0o644,
        "opt/env/share/full/x.txt": 0o644,
    }
    assert list(tree) == sorted(tree)
    assert tree["opt/env/bin/old"][1] == b"#!/opt/env/bin/python\nprint(1)\n"
    assert tree["opt/env/bin/shell"][1] == b"#!/bin/sh\necho\n"
    assert tree["opt/env/bin/FullGui"][1].decode().splitlines() == [
        "#!/opt/env/bin/python",
        "# -*- coding: utf-8 -*-",
        "import sys",
        "from full_demo import a",
        'if __name__ == "__main__":',
        "    sys.exit(a.b())",
    ]
    assert tree[f"{info}/INSTALLER"][1] == b"envbuild\n"


@pytest.mark.parametrize("size", [0, (64 << 10) - 8, 64 << 10, 80_000, 3 << 20])
def test_a_script_of_any_size_has_the_interpreter_of_the_image(site: Site, size: int) -> None:
    rest = b"\n#" + b"x" * size + b"\n"
    tree = site.tree(
        Wheel(
            name="demo",
            files={
                "demo-1.0.data/scripts/plain": b"#!python" + rest,
                "demo-1.0.data/scripts/options": b"#!python -u" + rest,
                "demo-1.0.data/scripts/window": b"#!pythonw" + rest,
                "demo-1.0.data/scripts/shell": b"#!/bin/sh" + rest,
            },
        )
    )
    ours = b"#!/opt/env/bin/python" + rest
    expected = {"plain": ours, "options": ours, "window": ours, "shell": b"#!/bin/sh" + rest}
    scripts = {name: tree[f"opt/env/bin/{name}"] for name in expected}
    assert scripts == {name: (0o755, script) for name, script in expected.items()}
    rows = tree[f"{SITE}/demo-1.0.dist-info/RECORD"][1].decode().splitlines()
    digest = base64.urlsafe_b64encode(hashlib.sha256(ours).digest()).rstrip(b"=").decode()
    assert f"../../../bin/plain,sha256={digest},{len(ours)}" in rows


def test_settings_of_uv_above_the_store_do_not_count(site: Site) -> None:
    (site.root / "uv.toml").write_text("no-index = true\n")
    assert "opt/env/bin/full" in site.tree(FULL)


def test_record_lists_every_file_with_its_hash(site: Site, tmp_path: Path) -> None:
    from importlib.metadata import PathDistribution

    for path, (_, data) in site.tree(FULL).items():
        target = tmp_path / "image" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    info = tmp_path / "image" / SITE / "full_demo-1.0.dist-info"
    files = PathDistribution(info).files
    assert files is not None
    assert len(files) == 15
    for file in files:
        data = Path(str(file.locate())).read_bytes()
        if file.hash is not None:
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (file.hash.mode, file.hash.value, file.size) == ("sha256", digest, len(data))
    assert [str(file) for file in files if file.hash is None] == ["full_demo-1.0.dist-info/RECORD"]


def test_the_entries_do_not_depend_on_umask_cache_or_company(site: Site) -> None:
    first = site.tree(FULL)
    before = os.umask(0o077)
    try:
        assert site.tree(FULL, cache="another") == first
    finally:
        os.umask(before)
    other = Wheel(name="other", requires=["absent"])
    assert {**first, **site.tree(other)} == site.tree(other, FULL)


MAIN = b"def main(): print(1)\n"


@pytest.mark.parametrize(
    ("wheel", "path", "text"),
    [
        (Wheel(name="d", files={"d/a\\b.txt": b"1"}), f"{SITE}/d/a\\b.txt", b"1"),
        (Wheel(name="d", files={"d/a\u00a0\u3000.txt": b"1"}), f"{SITE}/d/a\u00a0\u3000.txt", b"1"),
        (Wheel(name="d", files={"d/a\u200d\u00ad.txt": b"1"}), f"{SITE}/d/a\u200d\u00ad.txt", b"1"),
        (Wheel(name="d", files={'d/"\t\x01\n,.txt': b"1"}), f'{SITE}/d/"\t\x01\n,.txt', b"1"),
        (
            Wheel(name="d", files={"d-1.0.data/scripts/sub/tool": b"#!python -u\nprint(1)\n"}),
            "opt/env/bin/sub/tool",
            b"#!/opt/env/bin/python\nprint(1)\n",
        ),
        (
            Wheel(name="d", files={"d.py": MAIN}, entry_points="\ufeff[console_scripts]\nd = d:main\n"),
            "opt/env/bin/d",
            None,
        ),
        (
            Wheel(name="d", files={"d.py": MAIN}, entry_points="[console_scripts]\nd:x = d:main\n"),
            "opt/env/bin/d:x",
            None,
        ),
        (
            Wheel(name="d", files={"d.py": MAIN}, entry_points="[console_scripts]\nd/x = d:main\n"),
            "opt/env/bin/d/x",
            None,
        ),
        (
            Wheel(
                name="d",
                files={"d.py": MAIN, "d-1.0.data/scripts/d": b"#!python\nprint(2)\n"},
                entry_points="[console_scripts]\nd = d:main\n",
            ),
            "opt/env/bin/d",
            None,
        ),
    ],
)
def test_what_pip_installs_is_installed(site: Site, wheel: Wheel, path: str, text: bytes | None) -> None:
    beside = Wheel(name="beside", files={"beside.py": b"2"})
    tree = site.tree(beside, wheel)
    # The command of an entry point stays, not the script of the same name.
    command = b"#!/opt/env/bin/python\n# -*- coding: utf-8 -*-\nimport sys\nfrom d import main\n"
    command += b'if __name__ == "__main__":\n    sys.exit(main())\n'
    assert tree[path] == (0o755 if path.startswith("opt/env/bin/") else 0o644, text or command)
    assert tree[f"{SITE}/beside.py"] == (0o644, b"2")
    record = tree[f"{SITE}/d-1.0.dist-info/RECORD"][1].decode()
    relative = path.removeprefix(f"{SITE}/").replace("opt/env/bin", "../../../bin")
    assert relative in [row[0] for row in csv.reader(io.StringIO(record, newline=""))]


def test_a_wheel_is_unpacked_to_what_uv_makes_of_it(site: Site, tmp_path: Path) -> None:
    by_uv = site.tree(FULL)
    pin = FULL.pin()
    unpack_wheel(site.house.simple / pin.name / pin.file, pin, PYTHON, tmp_path / "prefix")
    claim = WheelTree(tmp_path / "prefix", shebang=SHEBANG).claim(pin, trusted=True)
    assert {entry.path: (entry.mode, content(entry)) for entry in claim.entries(PYTHON)} == by_uv


def test_two_wheels_with_one_path_each_give_their_own_content(site: Site) -> None:
    """The composer decides about them; it must see what each wheel really holds."""
    wheels = [Wheel(name=name, files={"same.py": name.encode()}) for name in ("one", "two")]
    site.house.add(*wheels)
    artifacts = [Artifact.of(wheel.pin()) for wheel in wheels]
    with site.source() as source:
        source.fetch(artifacts)
        found = [
            content(entry)
            for each in artifacts
            for entry in source.entries(each)
            if entry.path == f"{SITE}/same.py"
        ]
    assert found == [b"one", b"two"]


def test_a_file_changed_in_uvs_cache_is_noticed_and_unpacked_anew(site: Site) -> None:
    first = site.tree(FULL)
    [cached] = list((site.root / "uv").rglob("full_demo/__init__.py"))
    cached.write_bytes(b"evil = 1\n")
    assert site.tree(FULL) == first


@pytest.mark.parametrize("name", ["../../outside.py", "/outside.py"])
def test_a_wheel_that_leads_out_of_the_prefix_is_refused_every_time(site: Site, name: str) -> None:
    wheel = Wheel(name="hostile", files={"hostile.py": b"1\n", name: b"1\n"})
    for _ in range(2):
        with pytest.raises(BuildError, match=r"hostile-1\.0-py3-none-any\.whl"):
            site.tree(Wheel(name="good"), wheel)
    assert not (site.root / "store" / "outside.py").exists()


@pytest.mark.parametrize(
    "wheel",
    [
        Wheel(name="hostile", files={"pkg/.wh.file": b""}),
        Wheel(name="hostile", entry_points="[console_scripts]\n../x = a:b\n"),
        Wheel(name="hostile", entry_points="[console_scripts]\nx = import os\n"),
        Wheel(name="hostile", entry_points="no section\n"),
    ],
)
def test_names_that_would_harm_an_image_are_refused(site: Site, wheel: Wheel) -> None:
    with pytest.raises(BuildError, match=r"hostile-1\.0-py3-none-any\.whl"):
        site.tree(wheel)


def test_a_hash_that_does_not_match_names_the_wheel(site: Site) -> None:
    site.house.add(FULL)
    with (
        site.source() as source,
        pytest.raises(BuildError, match=r"(?s)full_demo-1\.0.*sha256:0{64}") as caught,
    ):
        source.fetch([Artifact.of(FULL.pin(sha256="0" * 64))])
    assert caught.value.hint is not None
    assert "another file than the one that was locked" in caught.value.hint


def test_a_truncated_wheel_is_refused(site: Site) -> None:
    site.house.add_file("full-demo", FULL.file, FULL.data()[:-300])
    with site.source() as source, pytest.raises(BuildError, match=r"full_demo-1\.0-py3-none-any\.whl"):
        source.fetch([Artifact.of(FULL.pin())])


def test_what_is_not_there_says_where_to_look(site: Site) -> None:
    site.index = "http://me:secret@127.0.0.1:9/simple"
    with (
        site.source() as source,
        pytest.raises(BuildError, match=r"full_demo-1\.0.*127\.0\.0\.1:9") as caught,
    ):
        source.fetch([Artifact.of(FULL.pin())])
    assert "secret" not in caught.value.message
    with site.source(offline=True) as source, pytest.raises(BuildError, match="full_demo") as caught:
        source.fetch([Artifact.of(FULL.pin())])
    assert caught.value.hint == "it isn't in uv's cache: run once without --offline"


def test_a_wheel_may_come_from_any_index_that_has_it(site: Site, tmp_path: Path) -> None:
    first = Wheelhouse(tmp_path / "first")
    first.add(Wheel(name=FULL.name, version="0.1"))
    expected = site.tree(FULL, cache="one")
    site.index_before = first.url
    assert site.tree(FULL, cache="two") == expected


def test_a_wheel_with_an_index_of_its_own_is_that_indexs_and_the_others_are_not(site: Site) -> None:
    other = Wheelhouse(site.root / "other")
    inside = {name: Wheel(name=name, files={f"{name}.py": b"other\n"}) for name in ("torch", "six")}
    main = {name: Wheel(name=name, files={f"{name}.py": b"main\n"}) for name in inside}
    other.add(*inside.values())
    site.own = {"torch": PackageIndex(url=other.url, packages=("torch",))}
    site.house.add(*main.values())
    with site.source() as source:
        artifacts = [Artifact.of(inside["torch"].pin()), Artifact.of(main["six"].pin())]
        source.fetch(artifacts)
        entries = {entry.path: content(entry) for artifact in artifacts for entry in source.entries(artifact)}
    assert entries[f"{SITE}/torch.py"] == b"other\n"
    assert entries[f"{SITE}/six.py"] == b"main\n"
    with site.source(cache="other") as source, pytest.raises(BuildError, match=r"torch-1\.0") as raised:
        source.fetch([Artifact.of(main["torch"].pin())])
    assert raised.value.hint is not None
    assert "serves another file than the one that was locked" in raised.value.hint


def test_a_pinned_wheel_is_not_another_indexs_local_version(site: Site) -> None:
    other = Wheelhouse(site.root / "other")
    other.add(Wheel(name="torch", version="2.9.0+cpu"))
    site.index_before = other.url
    assert f"{SITE}/torch.py" in site.tree(Wheel(name="torch", version="2.9.0"))


def test_offline_takes_what_an_earlier_build_brought(site: Site) -> None:
    with site.house.serve() as url:
        site.index = url
        first = site.tree(FULL)
    with site.source(offline=True) as source:
        source.fetch([Artifact.of(FULL.pin())])
        again = {
            entry.path: (entry.mode, content(entry)) for entry in source.entries(Artifact.of(FULL.pin()))
        }
    assert again == first


def test_an_sdist_is_refused_by_name(site: Site) -> None:
    pin = FULL.pin(file="full_demo-1.0.tar.gz")
    with site.source() as source, pytest.raises(BuildError, match=r"full_demo-1\.0\.tar\.gz") as caught:
        source.fetch([Artifact.of(pin)])
    assert caught.value.hint is not None
    assert "lock again, so that a wheel is built from it" in caught.value.hint


def test_a_wheel_that_was_built_is_installed_from_its_file(site: Site) -> None:
    pin = FULL.pin(
        url="https://example.test/full_demo-1.0.tar.gz",
        sdist=Sdist(file="full_demo-1.0.tar.gz", size=1, sha256="0" * 64),
    )
    other = Wheel(name="other")
    site.house.add(other)
    archive = site.root / "by-its-digest"
    archive.write_bytes(FULL.data())
    built: list[PipPin] = []

    def archive_of(asked: PipPin) -> Path:
        built.append(asked)
        return archive

    with site.source(build_wheel=archive_of) as source:
        source.fetch([Artifact.of(pin), Artifact.of(other.pin())])
        found = {entry.path: (entry.mode, content(entry)) for entry in source.entries(Artifact.of(pin))}
    assert built == [pin]
    assert found == site.tree(FULL)
    archive.write_bytes(other.data())
    with (
        site.source(build_wheel=archive_of) as source,
        pytest.raises(BuildError, match=r"full_demo-1\.0-py3"),
    ):
        source.fetch([Artifact.of(pin)])
    with site.source() as source, pytest.raises(BuildError, match="which nobody does here"):
        source.fetch([Artifact.of(pin)])


def test_scratch_space_goes_with_the_source(site: Site) -> None:
    site.tree(FULL)
    assert list((site.root / "store" / "scratch").iterdir()) == []
