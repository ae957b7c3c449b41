"""What the parts of a session are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from envbuild.app.session import Session
from envbuild.engines.buildx.engine import BuildxEngine
from envbuild.engines.factory import EngineOptions
from envbuild.plan.model import Inputs
from envbuild.progress import Silent
from envbuild.settings import Settings
from tests.unit.lock.sample import AMD64, IDNA
from tests.unit.render.sample import lock, plan_of


def test_a_build_step_may_log_in_where_a_pin_states_its_address(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(
        "machine files.test login a password b\nmachine other.test login c password d\n"
    )
    direct = replace(IDNA, url="https://files.test/idna-3.10-py3-none-any.whl")
    session = Session(Settings(cache_dir=tmp_path), Silent(), environ={"HOME": str(tmp_path)})
    engine = session.engines(Inputs(directory=tmp_path)).by_name(EngineOptions())["buildx"]()
    assert isinstance(engine, BuildxEngine)
    access = engine.access(plan_of(lock(replace(AMD64, pip=(direct,)))))
    assert access.netrc == "machine files.test login a password b\n"
