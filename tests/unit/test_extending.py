"""docs/extending.md: its examples run, one after the other, as they stand there.

A block that begins with the name of a file is a module of somebody else's package, and a block of TOML its
entry points: both are installed as an installer does it. The lists that a new part must join agree.
"""

from __future__ import annotations

import gzip
import io
import re
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from envbuild.cli.commands import build
from envbuild.engines.base import ENGINES
from envbuild.engines.factory import EngineOptions, Engines
from envbuild.lock.make import Resolvers
from envbuild.lock.resolvers import CONDA_ENGINES, PIP_ENGINES
from envbuild.oci.image import Image
from envbuild.plan.model import PlannedLayer
from envbuild.progress import Silent
from envbuild.settings import load_settings
from envbuild.store.content import Store
from envbuild.targets.base import Job
from envbuild.targets.kinds import TargetContext
from tests.fakes.image import Item, put_image, put_layer
from tests.fakes.source import artifact, plan
from tests.fakes.wheelhouse import Wheel
from tests.unit.lock.test_make import FakeBases, never_conda, never_pip

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = [section.partition("\n") for section in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]]


def test_every_example_runs(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)
    spec = tmp_path / "spec"
    spec.mkdir()
    (spec / "Wishlist").write_text("# party\nsix==1.17.0\n", encoding="utf-8")
    names = _names(store, spec)
    runs = []
    for title, _, text in SECTIONS:
        module = ""
        for language, block in re.findall(r"```(python|toml)\n(.*?)```", text, re.DOTALL):
            if language == "toml":
                _install(site, module, block)
                runs.append((title, "installed"))
            elif block.startswith("# "):
                module = block
            else:
                exec(compile(block, f"docs/extending.md: {title}", "exec"), names)
                runs.append((title, "ran"))
    for module in ("wishlist", "paper"):
        del sys.modules[module]
    assert runs == [
        ("A format of specs", "installed"),
        ("A format of specs", "ran"),
        ("A lint rule", "ran"),
        ("A resolver", "ran"),
        ("A kind of artifact", "ran"),
        ("An engine", "ran"),
        ("A sink", "ran"),
        ("A kind of target", "installed"),
        ("A kind of target", "ran"),
    ]


def test_names_of_resolvers_and_engines_are_the_same_wherever_they_are_listed(tmp_path: Path) -> None:
    choices = {
        option.name: set(option.type.choices)
        for option in build.command.params
        if isinstance(option.type, click.Choice)
    }
    tables = {
        "pip_engine": set(PIP_ENGINES),
        "conda_engine": set(CONDA_ENGINES),
        "engine": {"auto", *Engines.by_name(_never(), EngineOptions())},
    }
    assert {name: choices[name] for name in tables} == tables
    assert tables["engine"] == {"auto", *ENGINES}
    for setting, values in tables.items():
        for value in values:
            assert getattr(load_settings({setting: value}, {}, tmp_path), setting) == value


def _names(store: Store, directory: Path) -> dict[str, Any]:
    """What the examples are given."""
    notes = artifact("six", version="1.17.0")

    def files_of(image: Image) -> Mapping[str, bytes]:
        contents = {}
        for layer in image.layers:
            data = gzip.decompress(store.blob(layer.digest).read_bytes())
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                for member in tar:
                    reader = tar.extractfile(member)
                    if reader is not None:
                        contents[member.name] = reader.read()
        return contents

    return {
        "directory": directory,
        "store": store,
        "progress": Silent(),
        "resolvers": Resolvers(
            bases=(lambda: FakeBases(),), conda=never_conda, pip=never_pip, has_debian=lambda: True
        ),
        "artifact": notes,
        "plan": plan(PlannedLayer(name="notes", artifacts=(notes,))),
        "files_of": files_of,
        "context": TargetContext(store=store, progress=Silent(), state=directory, environ={}),
        "job": Job(
            name="a",
            reference="demo:1",
            image=put_image(store, [put_layer(store, [Item(name="a")])]),
            command=("python", "train.py"),
            env=(),
            environment="demo:1",
            code_digest=None,
        ),
    }


def _install(site: Path, module: str, project: str) -> None:
    """Installs a package with one module, which ``module`` begins with the name of, and the entry points of
    ``project``."""
    name = module.split("\n", 1)[0].removeprefix("# ").removesuffix(".py")
    (group, points) = re.findall(r"\[project\.entry-points\.\"(.*?)\"\]\n(.*)", project, re.DOTALL)[0]
    wheel = Wheel(
        name=name,
        files={f"{name}.py": module.encode()},
        entry_points=f"[{group}]\n" + points.replace('"', ""),
    )
    with zipfile.ZipFile(io.BytesIO(wheel.data())) as archive:
        archive.extractall(site)


def _never() -> Engines:
    """Engines that are named and not made."""
    return Engines(context=None, scratch=Path)  # type: ignore[arg-type]
