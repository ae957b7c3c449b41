"""The plan of a lock: a pure function of its pins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from envbuild.lock.files import parse_lock
from envbuild.lock.identity import ComposerSettings
from envbuild.lock.model import Lock, PlatformLock
from envbuild.plan.make import interpreter, make_plan, plan_identity
from envbuild.plan.model import ArtifactKind, GeneratedFile
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from tests.unit.lock.sample import AMD64, ARM64, BASE, IDNA, LIBC, LOCK, PYTHON, SIX, TZDATA

COMPOSITION = ComposerSettings(composer="1 gzip")


def files(lock: Lock, pins: PlatformLock, artifact: str) -> dict[str, GeneratedFile]:
    plan = make_plan(lock, pins, COMPOSITION, host=LINUX_AMD64)
    found = next(each for each in plan.artifacts if each.name == artifact)
    return {file.path: file for file in found.files}


def test_every_pin_is_an_artifact_and_every_layer_has_its_place() -> None:
    plan = make_plan(LOCK, AMD64, COMPOSITION, host=LINUX_AMD64)
    assert [(layer.name, [artifact.name for artifact in layer.artifacts]) for layer in plan.layers] == [
        ("base", ["libc6", "tzdata", "prefix", "system"]),
        ("bucket-03", ["idna"]),
        ("bucket-06", ["six"]),
        ("settings", ["settings"]),
    ]
    assert {artifact.kind for artifact in plan.artifacts} == {
        ArtifactKind.DEBIAN,
        ArtifactKind.WHEEL,
        ArtifactKind.GENERATED,
    }


def test_the_plan_carries_the_identity_and_what_a_container_starts_with() -> None:
    plan = make_plan(LOCK, AMD64, COMPOSITION, host=LINUX_AMD64)
    assert plan.lock_digest == plan_identity(LOCK, AMD64, COMPOSITION)
    assert (plan.level, plan.definition_digest, plan.created) == ("L3", LOCK.definition, 0)
    assert plan.config.env == (
        ("A", "1"),
        ("B", "two"),
        ("HOME", "/home/env"),
        ("LANG", "C.UTF-8"),
        ("LOGNAME", "env"),
        ("PATH", "/opt/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("USER", "env"),
        ("VIRTUAL_ENV", "/opt/env"),
    )
    assert (plan.config.user, plan.config.cmd, plan.config.exposed_ports) == (
        "1000:1000",
        ("python",),
        ("5001/tcp",),
    )


def test_the_order_of_pins_makes_no_difference() -> None:
    shuffled = replace(AMD64, pip=(SIX, IDNA), base=replace(BASE, packages=(TZDATA, LIBC)))
    one = make_plan(LOCK, shuffled, COMPOSITION, host=LINUX_AMD64)
    other = make_plan(LOCK, AMD64, COMPOSITION, host=LINUX_AMD64)
    assert (one.layers, one.config, one.lock_digest) == (other.layers, other.config, other.lock_digest)


def test_the_image_holds_its_own_lock_of_this_platform_alone() -> None:
    found = files(LOCK, AMD64, "settings")
    assert sorted(found) == [
        "usr/share/envbuild/envbuild.lock",
        "usr/share/envbuild/requirements.linux-64.txt",
    ]
    inside, _ = parse_lock(found["usr/share/envbuild/envbuild.lock"].content)
    assert inside == replace(LOCK, platforms=(AMD64,), engines=())


def test_a_virtual_environment_stands_over_the_python_of_the_base() -> None:
    found = files(LOCK, AMD64, "prefix")
    assert found["opt/env/bin/python"].target == "/usr/bin/python3.13"
    assert found["opt/env/pyvenv.cfg"].content == (
        b"home = /usr/bin\ninclude-system-site-packages = false\n"
        b"version = 3.13.5\nexecutable = /usr/bin/python3.13\n"
    )


def test_conda_packages_make_a_conda_prefix_on_an_image_base() -> None:
    assert sorted(files(LOCK, ARM64, "prefix")) == ["opt/env/conda-meta/history"]
    plan = make_plan(LOCK, ARM64, COMPOSITION, host=LINUX_AMD64)
    assert dict(plan.config.env)["CONDA_PREFIX"] == "/opt/env"
    assert plan.config.cmd == ("sh",)
    assert (
        "org.opencontainers.image.base.name",
        "docker.io/library/debian:trixie-slim",
    ) in plan.config.labels
    assert (plan.bytecode, plan.interpreter) == (False, None)


@pytest.mark.parametrize("user", ["1000:1000", "1234:99"])
def test_the_home_on_an_image_base_belongs_to_the_user(user: str) -> None:
    lock = replace(LOCK, runtime=replace(LOCK.runtime, user=user))
    home = files(lock, ARM64, "home")["home/env"]
    # Whichever uid a platform takes has group 0, and may do there what the user may.
    assert (str(home.uid), home.gid, home.mode) == (user.partition(":")[0], 0, 0o775)


def test_byte_code_is_compiled_by_a_python_of_the_same_version_that_runs_here() -> None:
    arm = replace(ARM64, python=PYTHON)
    both = replace(LOCK, platforms=(AMD64, arm))
    found = interpreter(both, arm, LINUX_AMD64)
    assert found is not None
    assert (found.lock.platform, found.python) == (LINUX_AMD64, PYTHON)
    alone = replace(LOCK, platforms=(arm,))
    assert interpreter(alone, arm, LINUX_AMD64) is None
    by_toolchain = interpreter(replace(alone, toolchain=(AMD64,)), arm, LINUX_AMD64)
    assert by_toolchain is not None
    assert by_toolchain.lock.platform == LINUX_AMD64
    other = replace(AMD64, python=replace(PYTHON, version="3.13.6"))
    assert interpreter(replace(alone, toolchain=(other,)), arm, LINUX_AMD64) is None
    assert interpreter(alone, arm, LINUX_ARM64) is not None
