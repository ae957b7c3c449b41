"""Images built by a real BuildKit, through the docker command of this machine; what is left: nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT
from typing import Any

import docker
import pytest

from envbuild.docker.client import NoEngine, connect
from envbuild.engines.buildx.engine import BuildxEngine
from envbuild.engines.secret import Secret
from envbuild.errors import BuildError
from envbuild.oci.digest import digest_bytes
from envbuild.oci.image import Image
from envbuild.plan.model import Plan
from envbuild.render.access import PipAccess
from envbuild.render.base import ContextFile
from envbuild.store.content import Store
from tests.fakes.context import HandRenderer
from tests.fakes.image import Item, compress, directory, program_items, tar
from tests.fakes.progress import Notes
from tests.fakes.source import plan

pytestmark = [pytest.mark.engine]

ACCESS = PipAccess(
    pip_conf="[global]\nindex-url = https://me:pass-word-7@x.test/s\n",
    netrc="machine x.test login a password pass-word-8\n",
)
BASE = "FROM scratch\nADD root.tar.gz /\nENV PATH=/usr/bin\n"


@dataclass
class Bench:
    """A store, and an engine whose contents the test compares."""

    root: Path
    archive: Path
    client: docker.DockerClient
    progress: Notes = field(default_factory=Notes)

    @property
    def store(self) -> Store:
        return Store(self.root / "store")

    def engine(self, steps: str, **more: Any) -> BuildxEngine:
        offline = bool(more.pop("without_network", False))
        return BuildxEngine(
            store=self.store,
            renderer=HandRenderer(BASE + textwrap.dedent(steps), files(self.archive), offline=offline),
            environ={**os.environ, "TOKEN": "pass-word-9"},
            access=lambda _: ACCESS,
            progress=self.progress,
            **more,
        )

    def held(self) -> tuple[set[str], set[str]]:
        """Containers and images of the engine."""
        return (
            {str(each.id) for each in self.client.containers.list(all=True)},
            {str(image["Id"]) for image in self.client.api.images(all=True)},
        )

    def text(self, image: Image, path: str) -> str:
        """A file of the image."""
        for layer in reversed(image.layers):
            with tarfile.open(self.store.blob(layer.digest)) as archive:
                if path in archive.getnames():
                    file = archive.extractfile(path)
                    assert file is not None
                    return file.read().decode()
        raise AssertionError(f"{path} is in no layer")

    def every_byte(self, image: Image) -> bytes:
        """Config, and all layers uncompressed."""
        found = self.store.blob(image.config_digest).read_bytes()
        for layer in image.layers:
            with tarfile.open(self.store.blob(layer.digest)) as archive:
                for member in archive:
                    file = archive.extractfile(member) if member.isreg() else None
                    found += member.name.encode() + (file.read() if file is not None else b"")
        return found


def files(archive: Path) -> list[ContextFile]:
    return [
        ContextFile(path="root.tar.gz", content=archive),
        ContextFile(path="unique", content=str(archive).encode()),
    ]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with a shell and a few programs."""
    path = tmp_path_factory.mktemp("root") / "root.tar.gz"
    items = [
        *(directory(name) for name in ("etc", "root", "run", "proc", "dev", "sys")),
        directory("tmp", 0o1777),
        Item(name="etc/passwd", content=b"root:x:0:0::/root:/bin/sh\n"),
        *program_items("sh", "cat", "ls", "sleep", "touch", "stat"),
    ]
    path.write_bytes(compress(tar(items)))
    return path


@pytest.fixture
def bench(tmp_path: Path, archive: Path) -> Iterator[Bench]:
    client = connect(os.environ)
    if isinstance(client, NoEngine):
        pytest.fail(client.reason)
    yield Bench(root=tmp_path, archive=archive, client=client)
    client.close()


PLAN: Plan = plan()


def test_the_image_is_in_the_store_and_no_longer_in_the_engine(bench: Bench) -> None:
    before = bench.held()
    engine = bench.engine(
        """
        COPY unique /unique
        RUN echo made >/made; stat -c %Y /unique >/time
        USER 1000:1000
        CMD ["sh"]
        """
    )
    assert engine.unable(PLAN) == []
    image = engine.build(PLAN)
    assert bench.text(image, "made") == "made\n"
    assert bench.text(image, "time") == "315532800\n"
    config = json.loads(bench.store.blob(image.config_digest).read_bytes())["config"]
    assert (config["User"], config["Cmd"]) == ("1000:1000", ["sh"])
    assert image.lock_digest == engine.identity(PLAN)
    assert bench.held() == before
    assert list(bench.store.directory("scratch").iterdir()) == []
    assert engine.build(PLAN) == image


def test_a_kept_image_is_in_both(bench: Bench) -> None:
    before = bench.held()
    image = bench.engine("RUN echo kept, really >/kept\n", keep=True).build(PLAN)
    try:
        assert bench.held()[1] - before[1] == {image.config_digest}
    finally:
        bench.client.api.remove_image(image.config_digest, noprune=True)


def test_labels_of_the_context_are_the_images(bench: Bench) -> None:
    engine = bench.engine("RUN echo labels >/labels\n")
    renderer = engine.renderer
    assert isinstance(renderer, HandRenderer)
    renderer.labels = (("dev.envbuild.lock", "sha256:1"), ("title", 'a "b", $c=d'))
    image = engine.build(PLAN)
    config = json.loads(bench.store.blob(image.config_digest).read_bytes())["config"]
    assert config["Labels"] == dict(renderer.labels)


def test_secrets_are_readable_in_their_step_and_nowhere_else(bench: Bench) -> None:
    own = bench.root / "own secret, with comma"
    own.write_text("pass-word-6\n")
    image = bench.engine(
        """
        RUN --mount=type=secret,id=pip-conf,target=/etc/pip.conf \\
            --mount=type=secret,id=netrc,target=/root/.netrc \\
            --mount=type=secret,id=file --mount=type=secret,id=variable \\
            set -e; case "$(cat /etc/pip.conf /root/.netrc /run/secrets/file /run/secrets/variable)" in \\
              *word-7*word-8*word-6*word-9) echo all >/seen ;; esac; \\
            stat -c %a /etc/pip.conf >/mode; cat /run/secrets/file
        RUN ls /etc /root /run >/left; cat /etc/pip.conf /root/.netrc /run/secrets/file >>/left 2>&1 || true
        """,
        secrets=[Secret(id="file", file=own), Secret(id="variable", variable="TOKEN")],
        reuse=False,
    ).build(PLAN)
    assert bench.text(image, "seen") == "all\n"
    assert bench.text(image, "mode") == "400\n"
    everything = bench.every_byte(image)
    assert b"pass-word" not in everything
    assert b"echo all" in everything, "the history has the step itself"
    assert not [line for line in bench.progress.notes if "pass-word" in line]


def test_a_cache_mount_lasts_from_build_to_build_and_is_in_no_layer(bench: Bench) -> None:
    mount = (
        f"--mount=type=cache,id=test-{digest_bytes(str(bench.root).encode())[7:19]},target=/root/.cache/pip"
    )
    first = bench.engine(f"RUN {mount} echo wheel-bytes >/root/.cache/pip/wheel\n").build(PLAN)
    assert b"wheel-bytes\n" not in bench.every_byte(first).replace(b"echo wheel-bytes", b"")
    second = bench.engine(f"RUN {mount} cat /root/.cache/pip/wheel >/found\n").build(PLAN)
    assert bench.text(second, "found") == "wheel-bytes\n"


def test_a_context_with_everything_inside_is_built_without_network(bench: Bench) -> None:
    image = bench.engine("RUN ls /sys/class/net >/networks\n", without_network=True, offline=True).build(PLAN)
    assert bench.text(image, "networks") == "lo\n"


def test_a_failing_step_is_shown_with_its_end_and_leaves_nothing(bench: Bench) -> None:
    before = bench.held()
    step = "echo one; echo two >&2; echo https://me:pass-word-5@x.test; exit 7"
    with pytest.raises(BuildError) as caught:
        bench.engine(f"RUN touch /before\nRUN {step}\n", reuse=False).build(PLAN)
    lines = caught.value.message.splitlines()
    assert re.fullmatch(r"the step \[(\d)/\1\] failed: exit code 7", lines[0])
    assert lines[1].startswith("  RUN echo one;")
    assert lines[2] == "the end of its log:"
    assert sorted(lines[3:]) == ["  https://x.test", "  one", "  two"]
    assert "pass-word" not in caught.value.message
    assert caught.value.exit_code == 6
    assert bench.held() == before
    assert list(bench.store.directory("scratch").iterdir()) == []


def test_a_dockerfile_that_is_none_is_an_error(bench: Bench) -> None:
    with pytest.raises(BuildError, match="unknown instruction: NONSENSE"):
        bench.engine("NONSENSE x\n").build(PLAN)


PROGRAM = """
import sys
from pathlib import Path
from envbuild.cli.interrupt import interruptible
from tests.integration import test_buildx_engine as module

class Loud(module.Notes):
    def task(self, stage, what, **more):
        if "begun" in what:
            print("sleeping", flush=True)
        return super().task(stage, what, **more)

bench = module.Bench(root=Path(sys.argv[1]), archive=Path(sys.argv[2]), client=None, progress=Loud())
with interruptible():
    try:
        bench.engine("RUN echo begun; exec sleep 321\\n", reuse=False).build(module.PLAN)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_interrupted_it_leaves_nothing(bench: Bench) -> None:
    """A process of its own, as the command line is one: a signal must reach its main thread."""
    before = bench.held()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(bench.root), str(bench.archive)],
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "sleeping\n"
    process.send_signal(SIGINT)
    output, errors = process.communicate(timeout=20)
    assert (output, errors) == ("interrupted\n", "")
    assert bench.held() == before
    assert list(bench.store.directory("scratch").iterdir()) == []
    # The engine ends the step itself, once it has noticed that nobody waits for it.
    deadline = time.monotonic() + 10
    while "sleep 321" in processes():
        assert time.monotonic() < deadline, processes()


def processes() -> str:
    """Command lines of what runs on this machine, steps of builds among it."""
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
