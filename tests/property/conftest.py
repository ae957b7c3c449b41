"""What holds for all properties: a machine with other work to do makes examples slowly, which is no fault."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("envbuild", suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("envbuild")
