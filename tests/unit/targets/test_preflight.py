"""What keeps an image from running on a target, or may do so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from envbuild.lock.model import DebianBase, PipPin, PlatformLock, PythonPin
from envbuild.oci.image import Image, Layer
from envbuild.platforms import LINUX_AMD64, LINUX_ARM64
from envbuild.progress import Silent
from envbuild.registry.auth import RegistryCredentials
from envbuild.registry.client import RegistryClient
from envbuild.store.content import Store
from envbuild.targets.base import Job, PreflightFinding, Service, TargetFile, TargetLimits, TargetRecord
from envbuild.targets.preflight import cuda_of, preflight, registry_findings
from tests.fakes.registry import Registry, serve
from tests.unit.lock.sample import LOCK


@dataclass
class Place:
    """A target that knows its limits only."""

    limits: TargetLimits
    found: Sequence[PreflightFinding] = ()
    record: TargetRecord = field(default_factory=lambda: TargetRecord(name="gpu", kind="local"))
    registry: str | None = None

    def findings(self, image: Image) -> Sequence[PreflightFinding]:
        return self.found

    def bytes_to_pull(self, image: Image) -> int | None:
        raise NotImplementedError

    def job_files(self, job: Job) -> tuple[TargetFile, ...]:
        raise NotImplementedError

    def service_files(self, service: Service) -> tuple[TargetFile, ...]:
        raise NotImplementedError

    def submit(self, job: Job) -> object:
        raise NotImplementedError


def layer(size: int, name: str = "") -> Layer:
    return Layer(
        digest=f"sha256:{size:064d}", diff_id="sha256:" + "e" * 64, size=size, media_type="x", name=name
    )


def an_image(*layers: Layer) -> Image:
    return Image(
        platform=LINUX_AMD64,
        digest="sha256:" + "a" * 64,
        media_type="x",
        size=1,
        config_digest="sha256:" + "f" * 64,
        layers=layers or (layer(10), layer(20, "numpy")),
        lock_digest="sha256:" + "1" * 64,
        definition_digest="sha256:" + "d" * 64,
        level="L3",
    )


def pins(
    *wheels: tuple[str, str], conda: Sequence[tuple[str, str]] = (), glibc: str = "2.41"
) -> PlatformLock:
    sample = next(pin for platform in LOCK.platforms for pin in platform.conda)
    return PlatformLock(
        platform=LINUX_AMD64,
        base=DebianBase(suite="trixie", glibc=glibc, packages=()),
        python=PythonPin(version="3.13.5", provider="debian", executable="/usr/bin/python3.13"),
        pip=tuple(
            PipPin(name=name, version=version, file="x.whl", size=1, sha256="3" * 64)
            for name, version in wheels
        ),
        conda=tuple(replace(sample, name=name, version=version) for name, version in conda),
    )


def look(
    limits: TargetLimits, image: Image | None = None, lock: PlatformLock | None = None
) -> list[PreflightFinding]:
    return list(preflight(Place(limits), image or an_image(), lock))  # type: ignore[arg-type]


def test_nothing_known_is_nothing_found() -> None:
    assert look(TargetLimits(), lock=pins(("torch", "2.6.0+cu124"))) == []


def test_what_fits_exactly_is_no_finding() -> None:
    limits = TargetLimits(platform=LINUX_AMD64, glibc="2.41", cuda="12.4", layers=2, size=30, layer_size=20)
    assert look(limits, lock=pins(("torch", "2.6.0+cu124"))) == []


@pytest.mark.parametrize(
    ("limits", "text", "hint"),
    [
        (
            TargetLimits(platform=LINUX_ARM64),
            "the image is for linux/amd64, gpu runs linux/arm64",
            "add linux/arm64 to the spec's platforms",
        ),
        (
            TargetLimits(layers=1),
            "the image has 2 layers, gpu takes at most 1",
            "build it with a smaller layer-budget",
        ),
        (TargetLimits(size=29), "the image has 30 bytes, gpu takes at most 29", None),
        (
            TargetLimits(layer_size=19),
            "layers are larger than the 19 bytes that gpu takes: numpy (20)",
            "build it with a larger layer-budget",
        ),
        (
            TargetLimits(glibc="2.42"),
            "the image has glibc 2.41, what gpu mounts into it needs 2.42",
            "choose a newer base",
        ),
    ],
)
def test_each_limit_has_its_words(limits: TargetLimits, text: str, hint: str | None) -> None:
    assert look(limits, lock=pins()) == [PreflightFinding(text=text, hint=hint)]


def test_several_large_layers_are_named_in_part() -> None:
    (found,) = look(TargetLimits(layer_size=1), an_image(*(layer(size) for size in range(10, 15))))
    assert found.text.endswith("sha256:000000000000 (10), sha256:000000000000 (11), sha256:000000000000 (12)")


def test_versions_are_compared_as_numbers() -> None:
    assert look(TargetLimits(glibc="2.9", cuda="12.10"), lock=pins(("torch", "2.6.0+cu124"))) == []


@pytest.mark.parametrize(("driver", "error"), [("12.3", False), ("12.0", False), ("11.8", True)])
def test_newer_cuda_is_an_error_only_from_another_major_version(driver: str, error: bool) -> None:
    (found,) = look(TargetLimits(cuda=driver), lock=pins(("torch", "2.6.0+cu124")))
    assert found.text == f"the software is built for CUDA 12.4, and gpu runs at most {driver}"
    assert found.error is error


def test_what_the_target_finds_itself_comes_last() -> None:
    own = PreflightFinding(text="not reached")
    found = preflight(Place(TargetLimits(size=1), (own,)), an_image(), None)  # type: ignore[arg-type]
    assert [each.text for each in found] == ["the image has 30 bytes, gpu takes at most 1", "not reached"]


@pytest.mark.parametrize(
    ("wheels", "cuda"),
    [
        ([("numpy", "2.3.5")], None),
        ([("torch", "2.6.0")], None),
        ([("torch", "2.6.0+cpu")], None),
        ([("torch", "2.6.0+cu124")], "12.4"),
        ([("torch", "2.3.1+cu118")], "11.8"),
        ([("torch", "2.9.0+cu130")], "13.0"),
        ([("jaxlib", "0.4.20+cuda12.cudnn89")], "12.0"),
        ([("nvidia-cuda-runtime-cu12", "12.4.127")], "12.4"),
        ([("nvidia-cuda-runtime", "13.0.48")], "13.0"),
        ([("nvidia-cuda-runtime-cu12", "12.9.79"), ("torch", "2.6.0+cu124")], "12.9"),
        ([("current", "1.0+curious99")], None),
    ],
)
def test_cuda_of_wheels(wheels: list[tuple[str, str]], cuda: str | None) -> None:
    assert cuda_of(pins(*wheels)) == cuda


@pytest.mark.parametrize(
    ("conda", "cuda"),
    [
        ([("cuda-version", "12.4")], "12.4"),
        ([("cudatoolkit", "11.8.0")], "11.8"),
        ([("cuda-cudart", "12.10.99"), ("cuda-version", "12.9")], "12.10"),
        ([("cuda-nvcc", "12.4.1")], None),
    ],
)
def test_cuda_of_conda_packages(conda: list[tuple[str, str]], cuda: str | None) -> None:
    assert cuda_of(pins(conda=conda)) == cuda


def _asked(registry: Registry, tmp_path: Path) -> tuple[PreflightFinding, ...]:
    credentials = RegistryCredentials({"HOME": str(tmp_path)})
    with RegistryClient(
        Store(tmp_path / "store"), Silent(), credentials, sleep=lambda seconds: None
    ) as client:
        return registry_findings(f"{registry.host}/team/train:abc@sha256:{'0' * 64}", client)


def test_registry_that_answers_is_no_finding(tmp_path: Path) -> None:
    with serve() as registry:
        assert _asked(registry, tmp_path) == ()


def test_registry_without_a_login_is_an_error_and_one_that_is_shy_is_a_note(tmp_path: Path) -> None:
    with serve(Registry(auth="basic", user=("ada", "secret"))) as registry:
        (found,) = _asked(registry, tmp_path)
        assert found.error
        assert "refuses anonymous access" in found.text
    with serve(Registry(faults=[403])) as registry:
        (found,) = _asked(registry, tmp_path)
        assert not found.error
        assert "403" in found.text


def test_registry_that_is_away_is_an_error(tmp_path: Path) -> None:
    with serve() as registry:
        pass
    (found,) = _asked(registry, tmp_path)
    assert found.error
    assert registry.host in found.text
