"""Which package needs which."""

from __future__ import annotations

from envbuild.attest.dependencies import InstalledPython, Needing, conda_edges, debian_edges, python_edges
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64, Platform

SITE = "opt/env/lib/python3.13/site-packages"
PYTHON = InstalledPython(version="3.13.5", reference="python")


def dist(name: str, *needs: str, site: str = SITE) -> Needing:
    return Needing(
        reference=f"{name}@{site}" if site != SITE else name,
        kind="python",
        name=name,
        path=f"{site}/{name}.dist-info/METADATA",
        needs="\n".join(needs),
    )


def edges(
    *packages: Needing, owned: tuple[Needing, ...] = (), platform: Platform = LINUX_AMD64
) -> dict[str, set[str]]:
    return {
        name: needed - {"python"}
        for name, needed in python_edges(packages, owned, {"opt/env": PYTHON}, platform).items()
    }


def test_a_distribution_needs_what_it_requires_and_its_interpreter() -> None:
    packages = (dist("a", "B.c>=1", "gone", "a"), dist("b-c"))
    found = python_edges(packages, (), {"opt/env": PYTHON}, LINUX_AMD64)
    assert found == {"a": {"b-c", "python"}, "b-c": {"python"}}


def test_markers_are_those_of_the_image() -> None:
    needs = [
        "here; sys_platform == 'linux' and python_version >= '3.13' and implementation_name == 'cpython'",
        "full; python_full_version == '3.13.5'",
        "arm; platform_machine == 'aarch64'",
        "old; python_version < '3.13'",
        "broken; nonsense ==",
    ]
    packages = [dist("a", *needs), *(dist(name) for name in ("here", "full", "arm", "old", "broken"))]
    assert edges(*packages)["a"] == {"here", "full"}
    assert edges(*packages, platform=LINUX_ARM64)["a"] == {"here", "full", "arm"}


def test_extras_count_where_another_asks_for_them() -> None:
    """Also where an extra asks for another of the same distribution, in whatever order they are read."""
    part = dist("part", "x; extra == 'one'", "part[one]; extra == 'all'", "y; extra == 'two'")
    rest = (dist("x"), dist("y"))
    assert edges(part, *rest)["part"] == set()
    assert edges(dist("asks", "part[all]"), part, *rest)["part"] == {"x"}
    assert edges(part, *rest, dist("asks", "part[ONE,two]"))["part"] == {"x", "y"}


def test_a_requirement_that_holds_with_or_without_an_extra_counts() -> None:
    assert edges(dist("a", "b; extra == 'x' or python_version > '3'"), dist("b"))["a"] == {"b"}


def test_two_prefixes_know_nothing_of_each_other() -> None:
    other = "usr/local/lib/python3.12/site-packages"
    found = edges(dist("a", "b"), dist("b", site=other), dist("a", "b", site=other))
    assert found == {"a": set(), f"b@{other}": set(), f"a@{other}": {f"b@{other}"}}


def test_what_conda_brought_is_needed_as_condas_package() -> None:
    owned = Needing(
        reference="conda/numpy", kind="conda", name="numpy", path=f"{SITE}/numpy.dist-info/METADATA"
    )
    assert edges(dist("a", "numpy"), owned=(owned,)) == {"a": {"conda/numpy"}}


def deb(name: str, needs: str = "", provides: str = "") -> Needing:
    return Needing(reference=name, kind="debian", name=name, path="s", needs=needs, provides=provides)


def test_of_alternatives_the_first_that_is_there_is_needed() -> None:
    packages = [
        deb("a", "libc6 (>= 2.38) [amd64], gone | awk (>= 1) | b, python3:any, absent"),
        deb("b"),
        deb("mawk", provides="awk, other (= 1)"),
        deb("python3"),
        deb("libc6"),
    ]
    assert debian_edges(packages)["a"] == {"libc6", "mawk", "python3"}


def test_a_package_itself_goes_before_one_that_provides_its_name() -> None:
    packages = [deb("mawk", provides="awk"), deb("awk"), deb("a", "awk")]
    assert debian_edges(packages)["a"] == {"awk"}


def test_conda_packages_need_those_of_their_prefix() -> None:
    def package(name: str, prefix: str, needs: str = "") -> Needing:
        path = f"{prefix}/conda-meta/{name}-1-0.json"
        return Needing(reference=f"{prefix}:{name}", kind="conda", name=name, path=path, needs=needs)

    found = conda_edges(
        [
            package("a", "opt/env", "b >=1,<2\n__glibc >=2.17\nc 1 0"),
            package("b", "opt/env"),
            package("c", "opt/conda"),
        ]
    )
    assert found == {"opt/env:a": {"opt/env:b"}, "opt/env:b": set(), "opt/conda:c": set()}
