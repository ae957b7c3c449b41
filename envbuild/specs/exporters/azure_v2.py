"""A spec as Azure ML's v2 environment YAML, complete in one file but for a build context."""

from __future__ import annotations

from envbuild.specs.base import Exported
from envbuild.specs.exporters.conda import conda_mapping
from envbuild.specs.exporters.native import inference_mapping
from envbuild.specs.exporters.unsupported_fields import beyond
from envbuild.specs.model import BuildContextSpec, EnvironmentType, ImageBaseSpec, Spec
from envbuild.specs.text.yaml import dump_yaml

SCHEMA = "https://azuremlschemas.azureedge.net/latest/environment.schema.json"
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04:latest"
"""What a conda file is installed on there where a spec names no image."""


def export_azure_v2(spec: Spec) -> Exported:
    """``environment.yaml``. A build context stays where it is, beside the file."""
    carried = {"name", "version", "description", "tags", "inference_config"}
    lines: list[str] = []
    found: dict[str, object] = {
        "$schema": SCHEMA,
        "name": spec.name,
        "version": spec.version,
        "description": spec.description,
        "tags": dict(spec.tags),
    }
    base = spec.base
    software = spec.conda is not None or bool(spec.pip.requirements or spec.pip.options or spec.python)
    managed = spec.type is not EnvironmentType.USER_MANAGED
    if isinstance(base, BuildContextSpec):
        carried |= {"base", "type"}
        found["build"] = {"path": base.path.as_posix(), "dockerfile_path": base.dockerfile_path}
    else:
        found["image"] = base.reference if isinstance(base, ImageBaseSpec) else IMAGE
        if isinstance(base, ImageBaseSpec):
            carried.add("base")
        elif base is None:
            lines.append(f"base: Azure ML needs an image, so {IMAGE} is named")
        if not managed:
            carried.add("type")
    if managed and (software or not isinstance(base, ImageBaseSpec)):
        content, more = conda_mapping(spec)
        found["conda_file"] = content
        lines += more
        carried |= {"python", "conda_file", "requirements", "environment_variables"}
    elif managed:
        lines.append("type: an image with nothing to install on it is user-managed there")
    found["os_type"] = "linux"
    found["inference_config"] = inference_mapping(spec.inference_config)
    kept = {key: value for key, value in found.items() if value not in (None, {}, "")}
    return Exported(
        files=(("environment.yaml", dump_yaml(kept).encode()),), left_out=(*lines, *beyond(spec, carried))
    )
