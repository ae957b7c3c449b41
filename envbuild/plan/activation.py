"""What activating a conda environment sets: variables that become those of the image."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from envbuild.oci.manifest import ConfigDocument

ACTIVATION_LABEL = "dev.envbuild.activation"
"""Label of an image: the variables that activation set, each with its package, as one JSON object."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class ActivatedVariable:
    """One variable; of several packages that set it, ``package`` is the last."""

    name: str
    value: str
    package: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Activation:
    """The variables, sorted. Which they are follows from the packages: it is no setting of a plan."""

    variables: tuple[ActivatedVariable, ...] = ()

    @property
    def env(self) -> dict[str, str]:
        return {variable.name: variable.value for variable in self.variables}

    @property
    def label(self) -> str:
        """The content of :data:`ACTIVATION_LABEL`."""
        packages = {variable.name: variable.package for variable in self.variables}
        return json.dumps(packages, sort_keys=True, separators=(",", ":"))

    @classmethod
    def of_config(cls, config: ConfigDocument) -> Activation:
        """What an image says of itself; empty where it says nothing that has this form."""
        try:
            packages = json.loads(config.labels.get(ACTIVATION_LABEL, "{}"))
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(packages, dict):
            return cls()
        variables = config.variables
        return cls.of(
            ActivatedVariable(name=name, value=variables[name], package=str(package))
            for name, package in packages.items()
            if name in variables
        )

    @classmethod
    def of(cls, variables: Iterable[ActivatedVariable]) -> Activation:
        return cls(variables=tuple(sorted(variables)))

    def with_labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        """``labels`` and the one of this, where there is anything to say."""
        return {**labels, ACTIVATION_LABEL: self.label} if self.variables else dict(labels)
