"""What an engine is: it makes an image from a plan, or says beforehand why it can't."""

from __future__ import annotations

from typing import Protocol

from envbuild.oci.image import Image
from envbuild.plan.model import Plan


class Engine(Protocol):
    """Builds single-platform images."""

    @property
    def name(self) -> str:
        """As ``--engine`` and the engine's messages say it."""

    def unable(self, plan: Plan) -> list[str]:
        """Every reason why ``plan`` can't be built by this engine, each naming what is in the way; empty
        where it can. Downloads nothing and runs nothing but a question whether the engine is there."""

    def identity(self, plan: Plan) -> str:
        """The lock digest of the image this engine makes of ``plan``: engines whose bytes differ never
        answer with each other's image."""

    def build(self, plan: Plan) -> Image:
        """The image, with all its blobs in the store. Raises ``BuildError``, before any work where
        :meth:`unable` has a reason."""
