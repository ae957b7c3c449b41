"""Promises of the spec that hold for any input."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from envbuild.errors import EnvbuildError
from envbuild.specs.definition import definition_digest
from envbuild.specs.load import load_spec
from envbuild.specs.match import _PLAIN, canonical_match
from envbuild.specs.model import Spec

QUICK = settings(max_examples=30, deadline=None)

NAMES = ("numpy", "scipy", "pandas", "scikit-learn", "flask")
VERSIONS = ("", "==1.0", ">=1,<2", "!=1.5,>=1.2")
REQUIREMENTS = st.sets(st.tuples(st.sampled_from(NAMES), st.sampled_from(VERSIONS)), min_size=1, max_size=6)
YAML_PIECES = st.sampled_from(
    [
        "name: ",
        "channels:",
        "dependencies:",
        "- ",
        "pip:",
        "image: ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "<<: ",
        "\n",
        "  ",
        "'",
        '"',
        "!!int ",
        "!x ",
        "%YAML 1.1\n",
        "---",
        "...",
        "? ",
        "| ",
        "> ",
        "#",
        "~",
        "3.10",
        "\t",
        ": ",
    ]
)
LINE_PIECES = st.sampled_from(
    [
        "-r ",
        "-c ",
        "--hash=",
        "sha256:",
        "-e ",
        "numpy",
        "==",
        "1.0",
        "[",
        "]",
        "@ ",
        "file:",
        "https://",
        "\\\n",
        "\n",
        " ; ",
        "python_version",
        "#",
        '"',
        "${A}",
        "-i ",
        "../",
        ".whl",
        "%00",
        "//[",
        "requirements.txt",
        "\0",
        "::",
    ]
)


def load(name: str, content: str | bytes) -> Spec:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "case" / name
        path.parent.mkdir()
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return load_spec(path)


def survives(name: str, content: str | bytes) -> None:
    with contextlib.suppress(EnvbuildError):
        load(name, content)


@QUICK
@given(
    st.one_of(st.text(max_size=80), st.lists(YAML_PIECES, max_size=25).map("".join), st.binary(max_size=40))
)
def test_yaml_raises_only_our_errors(content: str | bytes) -> None:
    survives("envbuild.yaml", content)


@QUICK
@given(
    st.one_of(st.text(max_size=80), st.lists(LINE_PIECES, max_size=20).map("".join), st.binary(max_size=40))
)
def test_requirements_raise_only_our_errors(content: str | bytes) -> None:
    survives("requirements.txt", content)


@QUICK
@given(st.lists(st.one_of(LINE_PIECES, YAML_PIECES), max_size=8).map("".join))
def test_conda_dependencies_raise_only_our_errors(text: str) -> None:
    escaped = text.replace("'", "''").replace("\n", " ")
    survives("environment.yml", f"channels: [x]\ndependencies:\n- '{escaped}'\n- pip: ['{escaped}']\n")


@QUICK
@given(REQUIREMENTS, st.randoms(use_true_random=False))
def test_order_and_formatting_do_not_count(requirements: set[tuple[str, str]], random: object) -> None:
    lines = sorted(name + version for name, version in requirements)
    other = sorted(
        (name.replace("-", "_").upper() + " " + ", ".join(reversed(version.split(","))) + "  # why")
        for name, version in requirements
    )
    random.shuffle(other)  # type: ignore[attr-defined]
    plain = load("requirements.txt", "\n".join(lines))
    assert definition_digest(load("requirements.in", "\n\n".join(other))) == definition_digest(plain)
    quoted = ", ".join(f"'{line}'" for line in reversed(lines))
    assert definition_digest(
        load("envbuild.yaml", f"name: n\nrequirements: [{quoted}]\n")
    ) == definition_digest(plain)


@QUICK
@given(REQUIREMENTS, REQUIREMENTS)
def test_different_requirements_have_different_digests(
    first: set[tuple[str, str]], second: set[tuple[str, str]]
) -> None:
    assume(first != second)
    digests = {
        definition_digest(load("requirements.txt", "\n".join(name + version for name, version in each)))
        for each in (first, second)
    }
    assert len(digests) == 2


@QUICK
@given(
    st.permutations(
        ["python: 3.12", "user: root", "requirements: [a, b]", "image: debian", "as_of: 2026-11-01"]
    )
)
def test_key_order_does_not_count(lines: list[str]) -> None:
    spec = load("envbuild.yaml", "\n".join(lines))
    expected = load("envbuild.yaml", "\n".join(sorted(lines)))
    assert definition_digest(spec) == definition_digest(expected)


@QUICK
@given(
    st.sampled_from(["python: 3.11", "python: 3.1", "user: root", "image: debian", "as_of: 2026-11-01"]),
    st.sampled_from(
        ["base: {debian: trixie}", "platforms: [linux-64]", "environment_variables: {A: 1}", "tags: {}"]
    ),
)
def test_every_key_that_changes_the_image_counts(first: str, second: str) -> None:
    assume(not (first.startswith("image") and second.startswith("base")))
    bare, one = (
        definition_digest(load("envbuild.yaml", "name: x")),
        definition_digest(load("envbuild.yaml", first)),
    )
    both = definition_digest(load("envbuild.yaml", f"{first}\n{second}"))
    changes = second.startswith(("base", "environment"))
    assert bare != one
    assert (both != one) is changes


@QUICK
@given(
    st.sampled_from(["numpy", "conda-forge::numpy", "_libgcc_mutex"]),
    st.sampled_from(
        ["", "=1.26", "==1.26.4", " 1.26.*", ">=1,<2", "=1.26=py311*", "~=1.2", ">=1 py311*", " 1.*|2.*"]
    ),
    st.sampled_from(["", " "]),
)
def test_match_specs_mean_the_same_in_canonical_text(name: str, version: str, space: str) -> None:
    from rattler import MatchSpec

    written = name + space + version.replace(",", f"{space},{space}") + space
    canonical = canonical_match(written)
    assert canonical_match(canonical) == canonical
    assert str(MatchSpec(canonical)) == str(MatchSpec(name + version))


@QUICK
@given(st.from_regex(_PLAIN, fullmatch=True))
def test_specs_known_to_be_valid_are_valid_to_rattler(text: str) -> None:
    from rattler import MatchSpec

    assert MatchSpec(text).name is not None
