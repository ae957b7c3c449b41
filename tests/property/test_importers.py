"""Whatever a source holds, reading it ends soon, with a spec or with an error of ours."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envbuild.errors import EnvbuildError
from envbuild.specs.definition import definition_digest
from envbuild.specs.load import importers, load_spec, markers, spec_file
from envbuild.specs.model import Spec

BOUNDED = settings(max_examples=60, deadline=timedelta(seconds=20))

CASES = Path(__file__).parents[1] / "cases" / "spec"
FILES = sorted(
    path.relative_to(CASES)
    for path in CASES.rglob("*")
    if path.is_file() and path.name != "SPEC" and not path.name.startswith("expected")
)
SEPARATORS = st.sampled_from(
    [b"\0", b"\n", b"[", b"{", b'"', b"'", b"=", b":", b"#", b"../", b"/", b"@", b"\xff", b"- ", b"a." * 500]
)
MUTATIONS = st.one_of(
    st.binary(max_size=200).map(lambda junk: (0, 1_000_000, junk)),
    st.tuples(st.integers(0, 2000), st.just(1_000_000), st.just(b"")),
    st.tuples(st.integers(0, 2000), st.integers(0, 200), st.one_of(SEPARATORS, st.binary(max_size=20))),
)


def survives(path: Path) -> None:
    with contextlib.suppress(EnvbuildError):
        spec = load_spec(path)
        assert isinstance(spec, Spec)
        assert definition_digest(spec).startswith("sha256:")
        assert all(line and "\n" not in line for line in spec.left_out)


def spec_of(case: Path) -> Path:
    written = case / "SPEC"
    return case / written.read_text(encoding="utf-8").strip() if written.is_file() else case


def test_every_importer_has_a_case() -> None:
    loaded = set()
    for case in CASES.iterdir():
        with contextlib.suppress(EnvbuildError):
            source = spec_file(spec_of(case))
            loaded.add(next(importer.name for importer in importers() if importer.recognises(source)))
    assert loaded == {importer.name for importer in importers()}


@BOUNDED
@given(st.sampled_from(FILES), MUTATIONS)
def test_a_damaged_file_raises_only_our_errors(file: Path, mutation: tuple[int, int, bytes]) -> None:
    start, length, replacement = mutation
    with tempfile.TemporaryDirectory() as directory:
        case = Path(directory) / file.parts[0]
        shutil.copytree(CASES / file.parts[0], case)
        victim = Path(directory) / file
        content = victim.read_bytes()
        victim.write_bytes(content[:start] + replacement + content[start + length :])
        survives(spec_of(case))


@BOUNDED
@given(st.sampled_from(FILES), st.sampled_from(["gone", "directory", "link"]))
def test_a_file_that_is_none_raises_only_our_errors(file: Path, what: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        case = Path(directory) / file.parts[0]
        shutil.copytree(CASES / file.parts[0], case)
        victim = Path(directory) / file
        victim.unlink()
        if what == "directory":
            victim.mkdir()
        elif what == "link":
            victim.symlink_to(victim)
        survives(spec_of(case))


@pytest.mark.parametrize("marker", markers(importers()))
@settings(max_examples=15, deadline=timedelta(seconds=20))
@given(content=st.one_of(st.binary(max_size=100), st.text(max_size=100).map(lambda text: text.encode())))
def test_a_marker_with_anything_in_it_raises_only_our_errors(marker: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / marker
        if marker.endswith("/"):
            path.mkdir()
            path = path / "history"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        survives(Path(directory))


LONG = 300_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pyproject.toml", "a." * LONG + "a=1"),
        ("pyproject.toml", "[" + '"a".' * LONG + "a]"),
        ("pyproject.toml", "a=" + "[" * LONG),
        ("pyproject.toml", "[project]\nname='" + "x" * LONG + "'\ndependencies=['" + "y" * LONG + "']"),
        ("pyproject.toml", "[project]\nrequires-python='" + "3," * LONG + "'"),
        ("pyproject.toml", "[project]\ndependencies=['a; " + "(" * LONG + "']"),
        ("script.py", "# /// script\n" * LONG),
        ("script.py", "# /// script\n#\n" * LONG + "# ///\n"),
        ("script.py", "# /// a\n# ///\n" * LONG),
        ("apt.txt", "a " * LONG),
        ("runtime.txt", "python-" + "1." * LONG),
        ("MLmodel", "flavors: " + "{a: " * 20_000),
        ("MLproject", "docker_env: " + "{image: " * 20_000),
        ("python_env.yaml", "python: " + "1." * LONG),
        ("pyvenv.cfg", "=" * LONG),
        ("pyvenv.cfg", "version = " + "1." * LONG),
        ("conda-meta/a-1-0.json", "[" * LONG),
        ("conda-meta/a-1-0.json", '{"url": "https://' + "/t/" * LONG + '", "md5": "' + "a" * 32 + '"}'),
        ("conda-meta/a-1-0.json", '{"files": ["' + ".dist-info/" * LONG + '"]}'),
        ("requirements.txt", "\\\n" * LONG),
    ],
)
def test_large_input_is_read_in_bounded_time(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    begun = time.monotonic()
    survives(tmp_path if "/" in name or not name.endswith(".py") else path)
    assert time.monotonic() - begun < 20
