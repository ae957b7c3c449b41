"""A look before anything is pushed or started: does the image fit the target?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from envbuild.errors import FetchError
from envbuild.lock.model import PlatformLock, glibc_of
from envbuild.oci.image import Image
from envbuild.oci.reference import Reference
from envbuild.registry.base import RefusedError, Remote, UnreachableError
from envbuild.targets.base import PreflightFinding, ReadsPins, Target

_CUDA_CONDA = ("cuda-version", "cudatoolkit", "cuda-cudart", "cuda-runtime")
_CUDA_WHEELS = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu11", "nvidia-cuda-runtime-cu12")
_WHEEL_TAG = re.compile(r"\+cu(?:da)?([0-9]{2})\.?([0-9])?(?![0-9])")
"""Local versions: torch's ``+cu124``, jaxlib's ``+cuda12.cudnn89``."""
_UNAUTHORIZED = 401
_NAMED = 3
"""Layers that are named where several are too large."""


def preflight(target: Target, image: Image, pins: PlatformLock | None) -> tuple[PreflightFinding, ...]:
    """All that keeps ``image`` from running on ``target``, or may do so; the limits' first.

    ``pins`` is what it was made from; None: what only pins tell isn't checked.
    """
    own = target.findings_of_pins(image, pins) if isinstance(target, ReadsPins) else target.findings(image)
    return (*limit_findings(target, image, pins), *own)


def registry_findings(reference: str, remote: Remote) -> tuple[PreflightFinding, ...]:
    """Whether the registry that ``reference`` is to be pushed to answers, and takes our login.

    Some registries refuse even a look at a repository that is not there yet, so a login that was not enough
    for reading is only a note; that there is none is an error."""
    where = Reference.parse(reference.partition("@")[0])
    try:
        remote.find_manifest(where)
    except UnreachableError as error:
        return (PreflightFinding.of(error),)
    except RefusedError as error:
        return (PreflightFinding.of(error, error=error.status == _UNAUTHORIZED),)
    except FetchError as error:
        return (PreflightFinding.of(error, error=False),)
    return ()


def cuda_of(pins: PlatformLock) -> str | None:
    """The newest CUDA that some of the software was built for, ``12.4``; None where it asks for none."""
    versions = [_short(conda.version) for conda in pins.conda if conda.name in _CUDA_CONDA]
    for wheel in pins.pip:
        if wheel.name in _CUDA_WHEELS:
            versions.append(_short(wheel.version))
        elif match := _WHEEL_TAG.search(wheel.version):
            versions.append(f"{match[1]}.{match[2] or 0}")
    return max((version for version in versions if version is not None), key=_number, default=None)


def limit_findings(target: Target, image: Image, pins: PlatformLock | None) -> tuple[PreflightFinding, ...]:
    """What the limits of ``target`` say of ``image``; makes no connection."""
    of_pins = _version_findings(target, pins) if pins is not None else ()
    return (*_image_findings(target, image), *of_pins)


def _image_findings(target: Target, image: Image) -> Iterator[PreflightFinding]:
    limits, name = target.limits, target.record.name
    if limits.platform is not None and image.platform != limits.platform:
        yield PreflightFinding(
            f"the image is for {image.platform}, {name} runs {limits.platform}",
            hint=f"add {limits.platform} to the spec's platforms",
        )
    if limits.layers is not None and len(image.layers) > limits.layers:
        yield PreflightFinding(
            f"the image has {len(image.layers)} layers, {name} takes at most {limits.layers}",
            hint="build it with a smaller layer-budget",
        )
    total = sum(layer.size for layer in image.layers)
    if limits.size is not None and total > limits.size:
        yield PreflightFinding(f"the image has {total} bytes, {name} takes at most {limits.size}")
    large = [layer for layer in image.layers if limits.layer_size and layer.size > limits.layer_size]
    if large:
        named = ", ".join(f"{layer.name or layer.digest[:19]} ({layer.size})" for layer in large[:_NAMED])
        yield PreflightFinding(
            f"layers are larger than the {limits.layer_size} bytes that {name} takes: {named}",
            hint="build it with a larger layer-budget",
        )


def _version_findings(target: Target, pins: PlatformLock) -> Iterator[PreflightFinding]:
    limits, name = target.limits, target.record.name
    glibc = glibc_of(pins.base)
    if limits.glibc is not None and _number(glibc) < _number(limits.glibc):
        yield PreflightFinding(
            f"the image has glibc {glibc}, what {name} mounts into it needs {limits.glibc}",
            hint="choose a newer base",
        )
    cuda = cuda_of(pins)
    if cuda is not None and limits.cuda is not None and _number(cuda) > _number(limits.cuda):
        # Within a major version, CUDA promises that programs run on older drivers, without the newest calls.
        yield PreflightFinding(
            f"the software is built for CUDA {cuda}, and {name} runs at most {limits.cuda}",
            error=_number(cuda)[0] > _number(limits.cuda)[0],
            hint=f"ask for an older build: cuda-version <={limits.cuda}, or a wheel of that version",
        )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]+", version)[:2])


def _short(version: str) -> str | None:
    match = re.match(r"([0-9]+)\.([0-9]+)", version)
    return f"{match[1]}.{match[2]}" if match else None
