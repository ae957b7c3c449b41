"""docs/extending.md: its examples run, one after the other, as they stand there."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from envbuild.plan.model import Artifact, ArtifactKind, Plan
from envbuild.progress import Silent
from envbuild.store.content import Store
from envbuild.targets.base import Job
from envbuild.targets.kinds import TargetContext
from tests.fakes.image import Item, put_image, put_layer
from tests.unit.lock.sample import LOCK
from tests.unit.render.sample import plan_of

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"## (.*?)\n.*?```python\n(.*?)```", TEXT, re.DOTALL)


def test_every_example_runs(store: Store, tmp_path: Path) -> None:
    (tmp_path / "wishlist.txt").write_text("# party\nsix==1.17.0\n", encoding="utf-8")
    plan: Plan = plan_of(LOCK)
    made = put_image(store, [put_layer(store, [Item(name="a")])])
    image = replace(made, lock_digest=plan.lock_digest)
    names: dict[str, Any] = {
        "directory": tmp_path,
        "artifact": Artifact(
            kind=ArtifactKind.WHEEL,
            name="six",
            version="1.17.0",
            sha256="0" * 64,
            size=1,
            pin=LOCK.platforms[0].pip[0],
        ),
        "plan": plan,
        "image": image,
        "progress": Silent(),
        "context": TargetContext(store=store, progress=Silent(), state=tmp_path, environ={}),
        "job": Job(
            name="a",
            reference="demo:1",
            image=image,
            command=("python", "train.py"),
            env=(),
            environment="demo:1",
            code_digest=None,
        ),
    }
    for title, code in EXAMPLES:
        exec(compile(code, f"docs/extending.md: {title}", "exec"), names)
    assert [title for title, _ in EXAMPLES] == [
        "A format of specs",
        "A lint rule",
        "A resolver",
        "A kind of artifact",
        "An engine",
        "A sink",
        "A kind of target",
    ]
