"""The native engine: same plan, same bytes, whatever the machine does meanwhile."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from envbuild.compose.base import ByteCompiler, Entry
from envbuild.compose.base_image import BaseContents
from envbuild.compose.codec import codec
from envbuild.compose.engine import NativeEngine
from envbuild.compose.filesystem import BaseTree
from envbuild.errors import BuildError
from envbuild.lock.model import OCCUPIED_HINT, ImageBase, PipPin
from envbuild.oci.digest import digest_bytes, digest_file
from envbuild.oci.image import Image, Layer
from envbuild.plan.model import Artifact, ArtifactKind, GeneratedFile, Plan, PlannedLayer
from envbuild.platforms import Platform
from envbuild.progress import Silent
from envbuild.store.content import Store
from envbuild.store.images import ImageIndex
from envbuild.store.prune import prune
from tests.fakes.source import (
    PYTHON,
    SITE,
    FakeCompiler,
    FakeCompilers,
    FakeSource,
    artifact,
    directory,
    file,
    plan,
    symlink,
)
from tests.unit.lock.sample import STANDALONE

NUMPY = artifact("numpy", size=5 << 20)
ATTRS = artifact("attrs")
LIBC = artifact("libc6", kind=ArtifactKind.DEBIAN)
SYSTEM = Artifact(
    kind=ArtifactKind.GENERATED,
    name="system",
    version="1",
    sha256="3" * 64,
    size=0,
    files=(
        GeneratedFile(path="bin", target="usr/bin"),
        GeneratedFile(path="lib", target="usr/lib"),
        GeneratedFile(path="tmp", directory=True, mode=0o1777),
        GeneratedFile(path="etc/passwd", content=b"root:x:0:0::/:/bin/sh\n"),
    ),
)
CONTENTS: Mapping[str, Sequence[Entry]] = {
    "numpy": [
        file(f"{SITE}/numpy/__init__.py", b"import os\n"),
        file(f"{SITE}/numpy/core.py", b"x = 1\n" * 1000),
        file(f"{SITE}/numpy/core.so", bytes(range(256)) * 40000, 0o755),
        file(f"{SITE}/numpy/__pycache__/core.cpython-313.pyc", b"old"),
        file("opt/env/bin/f2py", b"#!/opt/env/bin/python\nmain()\n", 0o755),
    ],
    "attrs": [file(f"{SITE}/attrs.py", b"!no python"), file(f"{SITE}/attr/__init__.py", b"y = 2\n")],
    "libc6": [
        file("lib/libc.so.6", b"elf", 0o755),
        symlink("usr/lib/libc.so", "libc.so.6"),
        directory("var/mail", 0o2775),
    ],
}


@dataclass
class Bench:
    """A store, a source and a compiler of one test."""

    root: Path
    source: FakeSource = field(default_factory=lambda: FakeSource(CONTENTS))
    compiler: FakeCompiler = field(default_factory=FakeCompiler)

    @property
    def store(self) -> Store:
        return Store(self.root)

    def engine(self, **changes: Any) -> NativeEngine:
        kinds = (ArtifactKind.WHEEL, ArtifactKind.DEBIAN)
        values: dict[str, Any] = {
            "store": self.store,
            "sources": {kind: lambda plan: self.source for kind in kinds},
            "compiler_factory": FakeCompilers(self.compiler),
            "workers": 2,
            **changes,
        }
        return NativeEngine(**values)

    def tar(self, layer: Layer) -> tarfile.TarFile:
        return tarfile.open(fileobj=io.BytesIO(gzip.decompress(self.store.blob(layer.digest).read_bytes())))

    def names(self, image: Image) -> list[list[str]]:
        return [self.tar(layer).getnames() for layer in image.layers]

    def leftovers(self) -> list[str]:
        scratch = self.root / "scratch"
        return sorted(path.name for path in scratch.iterdir()) if scratch.is_dir() else []


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "store")


def layer(*artifacts: Artifact, name: str = "layer") -> PlannedLayer:
    return PlannedLayer(name=name, artifacts=artifacts)


OTHER_LOCK = "sha256:" + "3" * 64


def whole(**changes: Any) -> Plan:
    return plan(layer(LIBC, SYSTEM, name="base"), layer(NUMPY), layer(ATTRS), bytecode=True, **changes)


def test_digests_are_these_values(bench: Bench) -> None:
    image = bench.engine().build(whole())
    assert [one.diff_id for one in image.layers] == GOLDEN_DIFF_IDS
    if codec("gzip").identity == "gzip-3/deflate-0.9.0/4194304":
        assert image.digest == GOLDEN_DIGEST


def test_layers_hold_what_was_planned(bench: Bench) -> None:
    image = bench.engine().build(whole())
    base, numpy, attrs = bench.names(image)
    assert base == [
        "etc", "tmp", "usr", "usr/lib", "var", "var/mail",
        "usr/lib/libc.so.6", "usr/lib/libc.so", "bin", "etc/passwd", "lib",
    ]  # fmt: skip
    top = ["opt", "opt/env", "opt/env/lib", "opt/env/lib/python3.13", SITE]
    assert numpy == [
        "opt", "opt/env", "opt/env/bin", *top[2:], f"{SITE}/numpy", f"{SITE}/numpy/__pycache__",
        "opt/env/bin/f2py",
        f"{SITE}/numpy/__init__.py", f"{SITE}/numpy/core.py", f"{SITE}/numpy/core.so",
        f"{SITE}/numpy/__pycache__/__init__.cpython-313.pyc",
        f"{SITE}/numpy/__pycache__/core.cpython-313.pyc",
    ]  # fmt: skip
    assert attrs == [
        *top, f"{SITE}/attr", f"{SITE}/attr/__pycache__",
        f"{SITE}/attr/__init__.py", f"{SITE}/attrs.py", f"{SITE}/attr/__pycache__/__init__.cpython-313.pyc",
    ]  # fmt: skip
    tar = bench.tar(image.layers[0])
    assert (tar.getmember("tmp").mode, tar.getmember("var/mail").mode) == (0o1777, 0o2775)
    code = bench.tar(image.layers[1]).extractfile(f"{SITE}/numpy/__pycache__/__init__.cpython-313.pyc")
    assert code is not None
    assert code.read() == b"\nso tropmi"


def test_digest_diff_id_and_size_are_true_and_the_documents_agree(bench: Bench) -> None:
    image = bench.engine().build(whole())
    for one in image.layers:
        data = bench.store.blob(one.digest).read_bytes()
        assert (digest_bytes(data), len(data)) == (one.digest, one.size)
        assert digest_bytes(gzip.decompress(data)) == one.diff_id
    manifest = json.loads(bench.store.blob(image.digest).read_bytes())
    config = json.loads(bench.store.blob(image.config_digest).read_bytes())
    assert [each["digest"] for each in manifest["layers"]] == [each.digest for each in image.layers]
    assert config["rootfs"]["diff_ids"] == [each.diff_id for each in image.layers]
    assert config["config"] == {"Cmd": ["python"], "Env": ["PATH=/opt/env/bin:/usr/bin"], "User": "1000:1000"}
    assert config["created"] == "1970-01-01T00:00:00Z"
    assert manifest["annotations"] == {
        "dev.envbuild.definition": "sha256:" + "2" * 64,
        "dev.envbuild.level": "L3",
        "dev.envbuild.lock": "sha256:" + "1" * 64,
        "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
    }


_CHILD = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[2], 8))
from tests.unit.compose.test_engine import Bench, whole
print(Bench(Path(sys.argv[1])).engine(workers=int(sys.argv[3])).build(whole()).digest)
"""


def test_umask_zone_locale_seed_home_and_workers_do_not_matter(bench: Bench, tmp_path: Path) -> None:
    expected = bench.engine().build(whole()).digest
    machines = (
        ("077", "1", {"TZ": "Asia/Tokyo", "LANG": "C", "LC_ALL": "C", "PYTHONHASHSEED": "1"}),
        ("000", "5", {"TZ": "America/Lima", "LANG": "de_DE.UTF-8", "PYTHONHASHSEED": "4242"}),
    )
    for number, (umask, workers, environment) in enumerate(machines):
        home = tmp_path / f"home{number}"
        home.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(home / "store"), umask, workers],
            env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(Path.cwd()), **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


def test_a_second_build_takes_the_index_and_no_source(bench: Bench) -> None:
    first = bench.engine().build(whole())
    bench.source.fetched.clear()
    assert bench.engine().build(whole()) == first
    assert bench.source.fetched == []


def test_one_changed_package_is_the_only_one_fetched_and_the_other_layers_stay(bench: Bench) -> None:
    before = bench.engine().build(whole())
    bench.source.fetched.clear()
    newer = artifact("attrs", version="2.0")
    changed = plan(
        layer(LIBC, SYSTEM, name="base"), layer(NUMPY), layer(newer), bytecode=True, lock_digest=OTHER_LOCK
    )
    after = bench.engine().build(changed)
    assert bench.source.fetched == ["attrs"]
    assert [one.digest for one in after.layers][:2] == [one.digest for one in before.layers][:2]


def test_without_the_caches_everything_is_made_again_and_is_the_same(bench: Bench) -> None:
    first = bench.engine().build(whole())
    bench.source.opened.clear()
    assert bench.engine(reuse=False).build(whole()) == first
    assert sorted(bench.source.opened) == ["attrs", "libc6", "numpy"]


def test_zstd_layers_have_the_same_diff_ids(bench: Bench) -> None:
    usual = bench.engine().build(whole())
    other = bench.engine().build(whole(compression="zstd", lock_digest=OTHER_LOCK))
    assert [one.diff_id for one in other.layers] == [one.diff_id for one in usual.layers]
    assert {one.media_type for one in other.layers} == {"application/vnd.oci.image.layer.v1.tar+zstd"}


def test_byte_code_of_a_large_package_is_compiled_in_chunks_of_its_own(bench: Bench) -> None:
    sources = [file(f"{SITE}/big/m{number}.py", b"#" * 1_400_000) for number in range(7)]
    bench.source = FakeSource({"numpy": sources})
    bench.engine().build(plan(layer(NUMPY), bytecode=True))
    calls = sorted([Path(name).name for name in call] for call in bench.compiler.calls)
    assert calls == [["m0.py", "m1.py", "m2.py"], ["m3.py", "m4.py", "m5.py"], ["m6.py"]]


def test_another_compiler_makes_other_segments(bench: Bench) -> None:
    first = bench.engine().build(whole())
    bench.compiler = FakeCompiler(identity="fake-3.13.6")
    bench.source.opened.clear()
    other = bench.engine().build(whole(lock_digest=OTHER_LOCK))
    assert [each.digest for each in other.layers] == [each.digest for each in first.layers]
    assert sorted(bench.source.opened) == ["attrs", "libc6", "numpy"]


# --- conflicts ----------------------------------------------------------------------------------------


def test_two_packages_that_own_one_path_are_named_with_it(bench: Bench) -> None:
    bench.source = FakeSource(
        {"numpy": [file("a/x", b"1"), file("a/y")], "attrs": [file("a/x", b"2"), file("a/y/z")]}
    )
    with pytest.raises(BuildError) as caught:
        bench.engine().build(plan(layer(NUMPY), layer(ATTRS), refuse_clashes=True))
    assert caught.value.message == (
        "a/x is owned by both numpy 1.0 and attrs 1.0\n"
        "a/y is a file of numpy 1.0, and a directory of attrs 1.0"
    )
    assert bench.leftovers() == []


def test_the_same_file_twice_stays_with_the_first_in_the_plan(bench: Bench) -> None:
    bench.source = FakeSource(
        {
            "numpy": [file(f"{SITE}/ns/__init__.py"), file("a")],
            "attrs": [file(f"{SITE}/ns/__init__.py"), file("b")],
        }
    )
    image = bench.engine().build(plan(layer(NUMPY, ATTRS), bytecode=True))
    [names] = bench.names(image)
    assert names.count(f"{SITE}/ns/__init__.py") == 1
    assert names.count(f"{SITE}/ns/__pycache__/__init__.cpython-313.pyc") == 1
    assert bench.engine(reuse=False).build(plan(layer(NUMPY, ATTRS), bytecode=True)) == image


def test_the_same_bytes_with_another_mode_are_a_conflict(bench: Bench) -> None:
    bench.source = FakeSource({"numpy": [file("a", b"1")], "attrs": [file("a", b"1", 0o755)]})
    with pytest.raises(BuildError, match=r"a is owned by both numpy 1\.0 and attrs 1\.0"):
        bench.engine().build(plan(layer(NUMPY), layer(ATTRS), refuse_clashes=True))


@dataclass
class Notes(Silent):
    """What a build says to people."""

    lines: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.mark.parametrize("order", [(NUMPY, ATTRS), (ATTRS, NUMPY)])
def test_of_two_files_under_one_path_that_of_the_first_name_is_kept_and_both_are_named(
    bench: Bench, order: tuple[Artifact, Artifact]
) -> None:
    clash = f"{SITE}/x.py"
    bench.source = FakeSource(
        {
            "numpy": [file(clash, b"n = 1"), file(f"{SITE}/n.py"), file("LICENSE", b"n")],
            "attrs": [file(clash, b"a = 1"), file(f"{SITE}/a.py"), file("LICENSE", b"a")],
        }
    )
    notes = Notes()
    image = bench.engine(progress=notes).build(plan(*map(layer, order), bytecode=True))
    files = {
        member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
        for archive in map(bench.tar, image.layers)
        for member in archive
        if member.isfile()
    }
    assert files[clash] == b"a = 1"
    assert files[f"{SITE}/__pycache__/x.cpython-313.pyc"] == b"1 = a"
    assert (files["LICENSE"], sorted(files)[-2:]) == (b"a", [f"{SITE}/n.py", clash])
    assert notes.lines == [
        f"warning: attrs 1.0 overwrites {clash} of numpy 1.0 (clashes: error refuses that)"
    ]


def test_a_file_of_the_system_is_overwritten_by_nobody(bench: Bench) -> None:
    bench.source = FakeSource({"libc6": [file("a", b"1")], "attrs": [file("a", b"2")]})
    with pytest.raises(BuildError, match=r"a is owned by both libc6 1\.0 and attrs 1\.0"):
        bench.engine().build(plan(layer(LIBC), layer(ATTRS)))


def test_byte_code_is_made_where_the_base_leads_the_prefix_elsewhere(bench: Bench) -> None:
    def base_loader(base: ImageBase, platform: Platform) -> BaseContents:
        tree = BaseTree(directories={"data": (0o755, 0, 0)}, links={"opt": "/data"})
        return BaseContents(layers=(), config={}, load_tree=lambda: tree)

    bench.source = FakeSource({"numpy": [file(f"{SITE}/numpy/core.py", b"x = 1")]})
    base = ImageBase(reference="base", digest="sha256:" + "1" * 64)
    image = bench.engine(base_loader=base_loader).build(replace(plan(layer(NUMPY), bytecode=True), base=base))
    site = SITE.replace("opt/", "data/", 1)
    assert bench.names(image)[0][-2:] == [
        f"{site}/numpy/core.py",
        f"{site}/numpy/__pycache__/core.cpython-313.pyc",
    ]
    # A traceback names the path that people know.
    assert bench.compiler.calls[-1] == [f"/{SITE}/numpy/core.py"]


@pytest.mark.parametrize(("created", "time"), [(0, 315532800), (1, 315532800), (1700000000, 1700000000)])
def test_files_have_a_time_that_a_zip_holds(bench: Bench, created: int, time: int) -> None:
    image = bench.engine().build(whole(created=created))
    assert {member.mtime for layer in image.layers for member in bench.tar(layer)} == {time}


def test_paths_through_another_packages_link_are_written_where_it_leads(bench: Bench) -> None:
    bench.source = FakeSource(
        {"numpy": [symlink("opt/env/lib64", "lib"), file("opt/env/x")], "attrs": [file("opt/env/lib64/y.so")]}
    )
    image = bench.engine().build(plan(layer(NUMPY), layer(ATTRS)))
    assert bench.names(image)[1] == ["opt", "opt/env", "opt/env/lib", "opt/env/lib/y.so"]


def test_links_that_loop_are_an_error(bench: Bench) -> None:
    bench.source = FakeSource({"numpy": [symlink("a", "b"), symlink("b", "a")], "attrs": [file("a/x")]})
    with pytest.raises(BuildError, match="too many symbolic links"):
        bench.engine().build(plan(layer(NUMPY), layer(ATTRS)))


@pytest.mark.parametrize("path", ["../etc/passwd", "/etc/passwd", "a/.wh.b"])
def test_a_hostile_path_is_refused_by_the_packages_name(bench: Bench, path: str) -> None:
    bench.source = FakeSource({"numpy": [file(path)]})
    with pytest.raises(BuildError, match=r"numpy 1\.0: "):
        bench.engine().build(plan(layer(NUMPY)))
    assert bench.leftovers() == []


# --- the base below -----------------------------------------------------------------------------------


def test_a_base_with_another_python_at_its_place_is_refused_before_anything_is_fetched(bench: Bench) -> None:
    tree = BaseTree(directories={"srv/python": (0o755, 0, 0)}, links={"opt": "srv"})
    below = BaseContents(layers=(), config={}, load_tree=lambda: tree)
    base = ImageBase(reference="example.test/prev:1", digest="sha256:" + "c" * 64)
    bench.source = FakeSource({"numpy": BuildError("nothing may be fetched")})
    wanted = replace(plan(layer(NUMPY)), base=base, python=STANDALONE)
    with pytest.raises(BuildError, match=r"already has a directory /opt/python, where the standalone python"):
        bench.engine(base_loader=lambda *_: below).build(wanted)


def test_a_base_with_files_in_the_prefix_is_refused_before_anything_is_fetched(bench: Bench) -> None:
    tree = BaseTree(prefix=("opt/env/bin/a", "opt/env/lib/b"))
    below = BaseContents(layers=(), config={}, load_tree=lambda: tree)
    base = ImageBase(reference="example.test/prev:1", digest="sha256:" + "c" * 64)
    bench.source = FakeSource({"numpy": BuildError("nothing may be fetched")})
    with pytest.raises(BuildError) as caught:
        bench.engine(base_loader=lambda *_: below).build(replace(plan(layer(NUMPY)), base=base))
    assert caught.value.message == (
        f"the base example.test/prev:1@{base.digest} already has files in /opt/env: "
        "/opt/env/bin/a, /opt/env/lib/b"
    )
    assert caught.value.hint == OCCUPIED_HINT


def test_layers_of_a_base_image_lie_below_and_its_links_and_modes_are_kept(bench: Bench) -> None:
    tree = BaseTree(directories={"root": (0o700, 0, 0)}, links={"opt": "srv"})
    below = BaseContents(
        layers=(Layer(digest="sha256:" + "a" * 64, diff_id="sha256:" + "b" * 64, size=7, media_type="t"),),
        config={
            "config": {"Env": ["PATH=/usr/bin:/sbin", "A=b"], "Labels": {"l": "1"}},
            "history": [{"created_by": "them"}, {"created_by": "env", "empty_layer": True}],
        },
        load_tree=lambda: tree,
    )
    bench.source = FakeSource({"numpy": [file("opt/x"), file("root/y")]})
    base = ImageBase(reference="example.test/base:1", digest="sha256:" + "c" * 64, layers=1)
    seen: list[tuple[ImageBase, Platform]] = []

    def load(image: ImageBase, platform: Platform) -> BaseContents:
        seen.append((image, platform))
        return below

    image = bench.engine(base_loader=load).build(replace(plan(layer(NUMPY)), base=base))
    assert image.layers[0] == below.layers[0]
    tar = bench.tar(image.layers[1])
    assert [(getmember.name, getmember.mode) for getmember in tar.getmembers()] == [
        ("root", 0o700), ("srv", 0o755), ("srv/x", 0o644), ("root/y", 0o644)
    ]  # fmt: skip
    config = json.loads(bench.store.blob(image.config_digest).read_bytes())
    assert config["config"]["Env"] == ["A=b", "PATH=/opt/env/bin:/usr/bin:/sbin"]
    assert [each["created_by"] for each in config["history"]] == ["them", "env", "envbuild"]
    manifest = json.loads(bench.store.blob(image.digest).read_bytes())
    assert manifest["annotations"]["org.opencontainers.image.base.name"] == "example.test/base:1"
    assert seen == [(base, Platform("linux", "amd64"))]


# --- what can't be done -------------------------------------------------------------------------------


def test_everything_that_needs_to_run_code_is_refused_together_before_anything_is_fetched(
    bench: Bench,
) -> None:
    sdist = replace(
        ATTRS, pin=PipPin(name="attrs", version="1.0", file="attrs-1.0.tar.gz", size=1, sha256="0" * 64)
    )
    conda = artifact("openssl", kind=ArtifactKind.CONDA)
    asked = replace(plan(layer(sdist, conda, NUMPY), bytecode=True), interpreter=None)
    engine = bench.engine()
    reasons = engine.unable(asked)
    assert reasons == [
        "attrs-1.0.tar.gz is no wheel: lock again, so that one is built from it",
        f"byte code for linux/amd64 needs a python {PYTHON.version} that runs on this machine "
        f"({Platform.host()}), and the lock has none",
        "openssl 1.0: no source of conda packages",
    ]
    with pytest.raises(BuildError, match=r"attrs-1\.0\.tar\.gz is no wheel"):
        engine.build(asked)
    assert bench.source.fetched == []
    assert engine.unable(plan(layer(NUMPY))) == []


# --- faults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("forget_layers", [True, False])
def test_a_damaged_segment_is_found_and_made_anew(bench: Bench, forget_layers: bool) -> None:
    first = bench.engine().build(whole())
    for path in (bench.root / "segments").glob("*.tar"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
    for path in (bench.root / "images").iterdir():
        path.unlink()
    if forget_layers:
        for path in (bench.root / "layers").iterdir():
            path.unlink()
    assert bench.engine().build(whole()) == first
    for one in first.layers:
        assert digest_file(bench.store.blob(one.digest)) == one.digest


@pytest.mark.parametrize("area", ["segments", "layers", "images"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"sha256:" + b"0" * 64 + b"\n{}"])
def test_a_damaged_record_is_made_anew(bench: Bench, area: str, damage: bytes) -> None:
    first = bench.engine().build(whole())
    for path in (bench.root / "images").iterdir():
        path.unlink()
    for path in (bench.root / area).glob("*.json"):
        path.write_bytes(damage)
    assert bench.engine().build(whole()) == first


def test_a_blob_that_is_gone_or_short_is_made_anew(bench: Bench) -> None:
    first = bench.engine().build(whole())
    bench.store.blob(first.layers[0].digest).unlink()
    bench.store.blob(first.layers[1].digest).write_bytes(b"short")
    assert bench.engine().build(whole()) == first
    for one in first.layers:
        assert digest_file(bench.store.blob(one.digest)) == one.digest


def test_a_prune_under_a_build_spares_what_it_found_without_having_named_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a killed build leaves it: blobs and records of layers, old, and no image that needs them."""
    first = bench.engine().build(whole())
    for path in (bench.root / "images").iterdir():
        path.unlink()
    for path in (bench.root / "blobs" / "sha256").iterdir():
        os.utime(path, (0, 0))
    put = ImageIndex.put

    def pruned(self: ImageIndex, key: str, image: Image, uses: tuple[str, ...] = ()) -> None:
        assert not [name for name in prune(bench.store).removed if name.startswith("blobs/")]
        put(self, key, image, uses)

    monkeypatch.setattr(ImageIndex, "put", pruned)
    assert bench.engine().build(whole()) == first
    key = first.lock_digest.removeprefix("sha256:")
    assert ImageIndex(bench.store, time.time).get(key, thorough=True) == first


def test_an_error_of_a_source_stops_the_build_and_leaves_nothing_behind(bench: Bench) -> None:
    bench.source = FakeSource({**CONTENTS, "attrs": BuildError("attrs 1.0: the hash does not match")})
    with pytest.raises(BuildError, match="the hash does not match"):
        bench.engine().build(whole())
    assert bench.leftovers() == []
    assert bench.source.closed >= 1
    bench.source = FakeSource(CONTENTS)
    again = bench.engine().build(whole())
    assert again == Bench(bench.root.with_name("other")).engine().build(whole())


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_while_entries_are_written_ends_all_workers(
    bench: Bench, error: type[BaseException]
) -> None:
    def interrupted() -> Iterator[Entry]:
        yield file("a")
        raise error

    bench.source = FakeSource({**CONTENTS, "attrs": interrupted})
    with pytest.raises(error):
        bench.engine().build(whole())
    assert bench.leftovers() == []
    assert [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("segment", "comp"))
    ] == []
    bench.source = FakeSource(CONTENTS)
    assert (
        bench.engine().build(whole()).digest
        == Bench(bench.root.with_name("other")).engine().build(whole()).digest
    )


def test_an_error_of_the_compiler_is_raised(bench: Bench) -> None:
    @dataclass
    class Broken:
        identity: str = "broken"

        def compile(self, files: Any) -> Iterator[tuple[str, bytes]]:
            raise BuildError("the interpreter did not start")
            yield

    class Factory:
        def identity(self, python: object, *, checked: bool) -> str:
            return "broken"

        def __call__(self, python: object, rootfs: Path, *, checked: bool) -> ByteCompiler:
            return Broken()

    with pytest.raises(BuildError, match=r"(numpy|attrs) 1\.0: the interpreter did not start"):
        bench.engine(compiler_factory=Factory()).build(whole())
    assert bench.leftovers() == []


_FULL = """
import resource, signal, sys
from pathlib import Path
from envbuild.errors import BuildError
from tests.unit.compose.test_engine import Bench, whole, FakeSource, CONTENTS, SITE, file
import random
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
bench = Bench(Path(sys.argv[1]))
noise = random.Random(1).randbytes(3_000_000)
bench.source = FakeSource({**CONTENTS, "attrs": [file(f"{SITE}/noise", noise)]})
try:
    bench.engine().build(whole())
except BuildError as error:
    print(error.message)
    print(error.hint)
"""


def test_a_full_disk_is_an_error_with_a_remedy_and_leaves_nothing_half_written(bench: Bench) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(bench.root)], capture_output=True, text=True, check=True
    )
    message, hint = done.stdout.splitlines()
    assert message.startswith("can't write the segment of attrs to ")
    assert message.endswith("File too large")
    assert hint == "free some space, or set ENVBUILD_CACHE_DIR to another disk"
    assert bench.leftovers() == []
    assert not (bench.root / "images").exists()
    for path in (bench.root / "blobs").rglob("*"):
        assert not path.is_file() or digest_file(path) == f"sha256:{path.name}"


def test_two_builds_at_once_compose_once(bench: Bench) -> None:
    with ThreadPoolExecutor(3) as pool:
        images = list(pool.map(lambda _: bench.engine().build(whole()), range(3)))
    assert images[0] == images[1] == images[2]
    assert sorted(bench.source.opened) == ["attrs", "libc6", "numpy"]


# Without byte code: the thread that makes an interpreter ready has a scratch directory of its own.
_KILLED = """
import os, sys
from dataclasses import replace
from pathlib import Path
from tests.unit.compose.test_engine import Bench, whole, FakeSource, CONTENTS, file
def die():
    yield file("a", b"x" * 10_000_000)
    os.kill(os.getpid(), 9)
bench = Bench(Path(sys.argv[1]))
bench.source = FakeSource({**CONTENTS, "attrs": die})
bench.engine().build(replace(whole(), bytecode=False))
"""


def test_a_killed_build_is_followed_by_a_correct_one_that_removes_its_remains(bench: Bench) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, str(bench.root)], check=False)
    assert done.returncode == -9
    assert len(bench.leftovers()) == 2, "the scratch directory and its lock"
    image = bench.engine().build(whole())
    assert bench.leftovers() == []
    assert image.digest == Bench(bench.root.with_name("other")).engine().build(whole()).digest


def test_a_large_file_is_streamed(bench: Bench, tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as sink:
        sink.truncate(50 << 20)
    bench.source = FakeSource({"numpy": [file("opt/env/large", large)]})
    image = bench.engine().build(plan(layer(NUMPY)))
    with bench.tar(image.layers[0]) as tar:
        assert tar.getmember("opt/env/large").size == 50 << 20


GOLDEN_DIFF_IDS = [
    "sha256:43ba69e340b5329ec7046cc164eaf149bd0bfb6cb829e0c1e41b345b7c946982",
    "sha256:24135c5b2a15df7168cd67d50814f8515f16f1f71419546a04a98f708158dd03",
    "sha256:d5a842215e349ae211cfdc536b8445206e0ee8e4bb2226ef6bea99f19bd30c89",
]
GOLDEN_DIGEST = "sha256:27358bbeb54cb3c0cbc31ef5844404d30ce40c8c6d863b67047de12ab3dbef7e"
