"""Promises of export that hold for any spec: what is written loads as what was asked."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envbuild.errors import SpecError
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.specs.definition import canonical_definition
from envbuild.specs.exporters.formats import EXPORTS, dump_native, export, portable_problems
from envbuild.specs.load import load_spec
from envbuild.specs.model import (
    CondaSpec,
    DebianBaseSpec,
    EnvironmentType,
    ExplicitPackage,
    ImageBaseSpec,
    InferenceConfig,
    MavenPackage,
    Origin,
    PipRequirement,
    PipSpec,
    Route,
    Runtime,
    SparkSpec,
    Spec,
)

QUICK = settings(max_examples=60, deadline=None)

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
TEXT = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["yes", "3.10", "1e3", "null", "~", "a: b", "- x", "#c", " x ", "a\nb", "\n", "\r\n", "<<"]
    ),
)
PAIRS = st.dictionaries(TEXT, TEXT, max_size=3).map(lambda each: tuple(sorted(each.items())))
VARIABLES = st.dictionaries(st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True), TEXT, max_size=3).map(
    lambda each: tuple(sorted(each.items()))
)
REQUIREMENTS = st.lists(
    st.builds(
        PipRequirement,
        text=st.sampled_from(
            [
                "numpy",
                "pandas[aws,excel]<3,>=2",
                'six==1.17.0; python_version < "3.12"',
                "pkg @ https://files.example/a%20b/pkg-1.0-py3-none-any.whl#egg2=x",
                'own @ ${HOST}/own-1.0-py3-none-any.whl ; sys_platform == "linux"',
            ]
        ),
        hashes=st.lists(HEX.map("sha256:{}".format), max_size=2, unique=True).map(sorted).map(tuple),
        origin=st.just(Origin(file="x")),
    ),
    max_size=3,
    unique_by=lambda each: each.canonical,
).map(tuple)
OPTIONS = st.lists(
    st.sampled_from(
        [
            "--extra-index-url https://${INDEX_USER}:${INDEX_TOKEN}@index.example/simple",
            "--extra-index-url https://other.example/simple",
            "--find-links https://links.example/a",
            "--pre",
            "--no-index",
            "--no-binary :all:",
            "--only-binary numpy,scipy",
        ]
    ),
    max_size=4,
    unique=True,
).map(tuple)
PIP = st.builds(
    PipSpec, requirements=REQUIREMENTS, constraints=REQUIREMENTS, options=OPTIONS, complete=st.booleans()
)
CHANNELS = st.lists(
    st.sampled_from(["conda-forge", "https://c.example/a", "./channel"]), unique=True, max_size=2
).map(tuple)


@st.composite
def packages(draw: st.DrawFn) -> tuple[ExplicitPackage, ...]:
    found = [
        ExplicitPackage(
            platform=platform,
            url=f"https://c.example/{platform.subdir}/{name}-1.0-h0_0.conda",
            sha256=draw(HEX) if with_sha or not with_md5 else None,
            md5=draw(HEX)[:32] if with_md5 else None,
        )
        for platform in (LINUX_AMD64, LINUX_ARM64)
        for name in draw(st.sets(st.sampled_from(["a", "b-c"]), min_size=1))
        for with_sha, with_md5 in [draw(st.tuples(st.booleans(), st.booleans()))]
    ]
    return tuple(sorted(found))


CONDA = st.one_of(
    st.none(),
    st.builds(
        CondaSpec,
        channels=CHANNELS,
        dependencies=st.lists(
            st.sampled_from(["python=3.10", "numpy>=1,<2", "x::y 1.*", "z[build='py*']", "pip"]),
            min_size=1,
            unique=True,
        ).map(tuple),
    ),
    st.builds(CondaSpec, channels=CHANNELS, dependencies=st.just(()), explicit=packages()),
)
ROUTE = st.builds(Route, path=st.sampled_from(["/", "/score", "/a:b#c"]), port=st.integers(1, 65535))
INFERENCE = st.none() | st.builds(
    InferenceConfig, liveness_route=ROUTE, readiness_route=ROUTE, scoring_route=ROUTE
)
SPARK = st.builds(
    SparkSpec,
    packages=st.lists(
        st.builds(
            MavenPackage, group=st.just("org.e"), artifact=st.just("a_2.13"), version=st.sampled_from("12")
        ),
        max_size=2,
    ).map(tuple),
    repositories=st.sampled_from([(), ("https://maven.example/b", "https://maven.example/a")]),
    precache_packages=st.booleans(),
)
IMAGE = st.sampled_from(
    ["debian", "mcr.example/azureml/base:20240101.v1", "oci:layout:tag", "docker-archive:a.tar"]
).map(lambda each: ImageBaseSpec(reference=each))
DEBIAN = st.builds(
    DebianBaseSpec,
    suite=st.sampled_from([None, "trixie"]),
    packages=st.sampled_from([(), ("libgomp1", "zlib1g")]),
)


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    spark = draw(st.none() | SPARK)
    managed = draw(st.booleans()) or spark is not None
    pip = draw(PIP)
    return Spec(
        name=draw(st.sampled_from(["train", "3.10", "a.b-c", "null"])),
        source=Path("/nowhere/envbuild.yaml"),
        version=draw(st.sampled_from([None, "1", "1.10", "2024-01-01"])),
        description=draw(st.none() | TEXT),
        tags=draw(PAIRS),
        type=EnvironmentType.SYSTEM_MANAGED if managed else EnvironmentType.USER_MANAGED,
        runtime=Runtime.SPARK if spark is not None else draw(st.sampled_from(Runtime)),
        platforms=draw(st.sampled_from([(LINUX_AMD64,), (LINUX_ARM64, LINUX_AMD64)])),
        python=draw(st.sampled_from([None, "3.10", "3.8.*", ">=3.10,<3.13"])) if managed else None,
        base=draw(st.none() | IMAGE | DEBIAN if managed else IMAGE),
        conda=draw(CONDA),
        pip=pip,
        environment_variables=draw(VARIABLES),
        spark=spark,
        inference_config=draw(INFERENCE) if managed or not pip.requirements else None,
        user=draw(st.sampled_from(["1000:1000", "0:0"] if managed else ["", "1000:1000", "5:6"])),
        as_of=draw(st.sampled_from([None, date(2026, 11, 1)])),
    )


@QUICK
@given(specs())
def test_the_native_yaml_loads_as_an_equal_spec(spec: Spec) -> None:
    text = dump_native(spec)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "envbuild.yaml"
        path.write_text(text, encoding="utf-8")
        found = load_spec(path)
    assert canonical_definition(found) == canonical_definition(spec)
    assert (found.name, found.version, found.tags) == (spec.name, spec.version, spec.tags)
    assert found.description == spec.description
    assert dump_native(found) == text
    assert portable_problems(found) == portable_problems(spec)


@pytest.mark.parametrize("form", [each for each in EXPORTS if each != "native"])
@QUICK
@given(specs())
def test_what_a_format_does_not_name_it_carries(form: str, spec: Spec) -> None:
    """Files that leave nothing out load as the same definition; all others load, or are refused by name."""
    spec = replace(spec, python=None)
    if form == "requirements" and not spec.pip.requirements:
        with pytest.raises(SpecError, match="has no pip requirements"):
            export(spec, form)
        return
    found = export(spec, form)
    with tempfile.TemporaryDirectory() as directory:
        for name, data in found.files:
            (Path(directory) / name).write_bytes(data)
        read = load_spec(Path(directory) / found.files[0][0])
    assert read.left_out == ()
    if not found.left_out:
        assert canonical_definition(with_channels(read)) == canonical_definition(with_channels(spec))


def with_channels(spec: Spec) -> Spec:
    """``spec`` with the channels that no channel at all stands for: a conda file says no less."""
    if spec.conda is None or spec.conda.channels or spec.conda.explicit:
        return spec
    return replace(spec, conda=replace(spec.conda, channels=("defaults",)))
