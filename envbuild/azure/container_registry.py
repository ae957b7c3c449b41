"""Where a base image is pulled from, as the SDK says it: an address, and never a credential."""

from __future__ import annotations

from envbuild.azure.unsupported import azure_only

_LOGIN = "log in with 'docker login': no credential is kept in an environment (docs/registries.md)"


class RegistryIdentity:
    """A managed identity, which only Azure's own machines have."""

    def __init__(self) -> None:
        self.resource_id: str | None = None
        self.client_id: str | None = None


class ContainerRegistry:
    """The registry of ``Environment.docker.base_image``: its address stands before the image's name.

    >>> registry = ContainerRegistry()
    >>> registry.address = "registry.example.org"
    """

    def __init__(self) -> None:
        self.address: str | None = None
        self._registry_identity: RegistryIdentity | None = None

    @property
    def username(self) -> str | None:
        """Always None: what is read is public, or ``docker login`` was told."""
        return None

    @username.setter
    def username(self, value: str | None) -> None:
        if value:
            raise azure_only("ContainerRegistry.username", _LOGIN)

    @property
    def password(self) -> str | None:
        """Always None: no credential is kept in an environment."""
        return None

    @password.setter
    def password(self, value: str | None) -> None:
        if value:
            raise azure_only("ContainerRegistry.password", _LOGIN)

    @property
    def registry_identity(self) -> RegistryIdentity | None:
        """Always None: no machine of one's own has such an identity."""
        return self._registry_identity

    @registry_identity.setter
    def registry_identity(self, value: RegistryIdentity | None) -> None:
        if value is not None:
            raise azure_only("ContainerRegistry.registry_identity", _LOGIN)

    @classmethod
    def at(cls, given: ContainerRegistry | str | None) -> ContainerRegistry:
        """``given``, which may also be an address alone."""
        if isinstance(given, ContainerRegistry):
            return given
        registry = cls()
        registry.address = given
        return registry
