"""The buildx engine around a docker command of the test's own, which exports an image as a builder does."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from envbuild.engines.buildx.build_log import LONGEST, BuildKitLog
from envbuild.engines.buildx.engine import BuildxEngine, run_build
from envbuild.engines.buildx.secrets import SECRET_LIMIT
from envbuild.engines.secret import Secret
from envbuild.errors import BuildError
from envbuild.lock.model import CondaPin, ContextBase
from envbuild.plan.model import Artifact, ArtifactKind, PlannedLayer
from envbuild.platforms import LINUX_ARM64
from envbuild.progress import Silent
from envbuild.render.access import PipAccess
from envbuild.render.base import ContextFile
from envbuild.store.content import Store
from tests.fakes.context import HandRenderer
from tests.fakes.docker_command import DockerCommand, with_buildx
from tests.fakes.layout import Export
from tests.fakes.source import plan

PLAN = plan()
CONDA = plan(
    PlannedLayer(
        name="conda",
        artifacts=(
            Artifact(
                kind=ArtifactKind.CONDA,
                name="a",
                version="1",
                sha256="5" * 64,
                size=1,
                pin=CondaPin(
                    name="a",
                    version="1",
                    build="0",
                    subdir="noarch",
                    url="https://c.test/channel/noarch/a-1-0.conda",
                    size=1,
                    sha256="5" * 64,
                    md5="6" * 32,
                ),
            ),
        ),
    )
)
ACCESS = PipAccess(pip_conf="[global]\nindex-url = https://me:word@x.test/s\n", netrc="machine x.test\n")

# What the builder sees is written down, then the image is "built".
SCRIPT = """
import shutil
seen = {{"files": {{}}}}
for root, names, files in os.walk("."):
    for name in (*names, *files):
        path = os.path.join(root, name)
        found = os.lstat(path)
        text = open(path).read() if os.path.isfile(path) else None
        seen["files"][path] = [oct(found.st_mode & 0o7777), int(found.st_mtime), text]
(home / "seen").write_text(json.dumps(seen))
shutil.copy({archive!r}, "image.tar")
"""


@dataclass
class Bench:
    """A store, a docker command and a renderer of one test."""

    root: Path
    docker: DockerCommand
    renderer: HandRenderer = field(
        default_factory=lambda: HandRenderer("FROM scratch\n", labels=(("a", "b"),))
    )
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store(self.root / "store")

    def engine(self, **more: Any) -> BuildxEngine:
        environ = {"PATH": str(self.docker.directory), "HOME": str(self.root), **self.environ}
        given: dict[str, Any] = {"access": lambda _: ACCESS, **more}
        return BuildxEngine(store=self.store, renderer=self.renderer, environ=environ, **given)

    def builds(self) -> list[list[str]]:
        return [call for call in self.docker.calls() if "--file" in call]

    def seen(self) -> Mapping[str, Sequence[Any]]:
        found: Mapping[str, Sequence[Any]] = json.loads((self.docker.directory / "seen").read_text())["files"]
        return found

    def secrets(self) -> dict[str, str]:
        """Ids and texts of the secrets that the last build was given."""
        command = self.builds()[-1]
        given = [command[at + 1] for at, word in enumerate(command) if word == "--secret"]
        pairs = [text.removeprefix("id=").split(",src=") for text in given]
        return {identity: self.seen()[f"./{file}"][2] for identity, file in pairs}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    archive = Export().write(tmp_path / "export.tar")
    docker = with_buildx(tmp_path / "bin", "docker-container")
    return Bench(root=tmp_path, docker=docker.building(SCRIPT.format(archive=str(archive))))


def test_the_exported_image_is_in_the_store_under_the_plans_digest(bench: Bench) -> None:
    engine = bench.engine()
    image = engine.build(PLAN)
    assert image.lock_digest == engine.identity(PLAN) != PLAN.lock_digest
    assert image.level == "L2"
    assert bench.store.has_blob(image.digest)
    assert [layer.name for layer in image.layers] == ["ADD base.tar.gz /", "RUN echo hello"]
    assert list(bench.store.directory("scratch").iterdir()) == []


def test_what_was_built_is_not_built_again_unless_it_is_asked_for(bench: Bench) -> None:
    first = bench.engine().build(PLAN)
    assert bench.engine().build(PLAN) == first
    assert len(bench.builds()) == 1
    assert bench.engine(reuse=False).build(PLAN) == first
    assert ["--no-cache" in call for call in bench.builds()] == [False, True]


def test_an_image_of_the_store_needs_no_docker(bench: Bench) -> None:
    first = bench.engine().build(PLAN)
    bench.environ["PATH"] = str(bench.root / "nowhere")
    engine = bench.engine()
    assert engine.unable(PLAN) == ["there is no docker command on PATH"]
    assert engine.build(PLAN) == first
    with pytest.raises(BuildError, match="there is no docker command on PATH"):
        bench.engine(reuse=False).build(PLAN)


def test_the_builder_is_looked_for_once(bench: Bench) -> None:
    engine = bench.engine()
    assert engine.unable(PLAN) == engine.unable(PLAN) == []
    engine.build(PLAN)
    assert [call[:2] for call in bench.docker.calls()] == [
        ["buildx", "version"],
        ["buildx", "inspect"],
        ["buildx", "build"],
    ]


def test_the_renderers_reasons_count(bench: Bench) -> None:
    bench.renderer.reasons = ("no Dockerfile for this",)
    assert bench.engine().unable(PLAN) == ["no Dockerfile for this"]
    with pytest.raises(BuildError, match="no Dockerfile for this"):
        bench.engine().build(PLAN)
    assert bench.builds() == []


def test_a_builder_without_the_platform_is_refused(bench: Bench) -> None:
    other = replace(PLAN, platform=LINUX_ARM64)
    reason = (
        "the builder runs linux/amd64, linux/amd64/v2, linux/386, and the build steps of this image need "
        "linux/arm64"
    )
    assert bench.engine().unable(other) == [reason]
    with pytest.raises(BuildError, match=reason):
        bench.engine().build(other)
    assert bench.builds() == []


def test_the_context_is_what_was_rendered_and_nothing_else(bench: Bench) -> None:
    bench.renderer.files = (
        ContextFile(path="lock/run.sh", content=b"#!/bin/sh\n", mode=0o755),
        ContextFile(path="link", target="lock"),
    )
    bench.engine().build(PLAN)
    context = context_of(bench)
    assert sorted(context) == ["Dockerfile", "link", "lock", "lock/run.sh"]
    assert context["lock/run.sh"][0] == "0o755"
    assert {row[1] for row in context.values()} == {315532800}


def test_no_two_contexts_have_one_name(bench: Bench) -> None:
    # BuildKit takes a file of the same size and time for the one that it was sent under that name.
    names = []
    for text in ("FROM scratch\nLABEL a=1\n", "FROM scratch\nLABEL a=2\n"):
        bench.renderer.dockerfile = text
        bench.engine(reuse=False).build(PLAN)
        assert context_of(bench)["Dockerfile"][2] == text
        names.append({path.split("/")[1] for path in bench.seen() if path.endswith("/Dockerfile")})
    assert names[0].isdisjoint(names[1])


def context_of(bench: Bench) -> dict[str, Any]:
    """Mode, time and text of what the builder saw, by the path in the context."""
    match = ((re.match(r"\./context-[0-9a-f]{16}/(.+)", path), row) for path, row in bench.seen().items())
    return {found[1]: row for found, row in match if found is not None}


def test_secrets_are_private_files_and_never_words(bench: Bench) -> None:
    own = bench.root / "own, with comma"
    own.write_text("from a file")
    bench.environ["TOKEN"] = "from a variable"
    bench.engine(secrets=[Secret(id="one", file=own), Secret(id="two", variable="TOKEN")]).build(PLAN)
    assert bench.secrets() == {
        "one": "from a file",
        "two": "from a variable",
        "pip-conf": ACCESS.pip_conf,
        "netrc": ACCESS.netrc,
    }
    assert bench.seen()["./secrets"][0] == "0o700"
    assert {row[0] for path, row in bench.seen().items() if path.startswith("./secrets/")} == {"0o600"}
    assert not [word for word in bench.builds()[0] if "from" in word or "word" in word or "comma" in word]


def test_the_ca_bundle_is_a_secret_too(bench: Bench) -> None:
    bundle = bench.root / "ca.pem"
    bundle.write_text("PEM")
    access = PipAccess(pip_conf="[global]\n", ca_certificates=bundle)
    bench.engine(access=lambda _: access).build(PLAN)
    assert bench.secrets() == {"pip-conf": "[global]\n", "ca-certificates": "PEM"}


def test_a_secret_of_the_user_stands_before_ours(bench: Bench) -> None:
    bench.environ["CONF"] = "mine"
    bench.engine(secrets=[Secret(id="pip-conf", variable="CONF")]).build(PLAN)
    assert bench.secrets()["pip-conf"] == "mine"


def test_a_dockerfile_of_the_user_is_given_no_login_of_this_machine(bench: Bench) -> None:
    base = ContextBase(digest="sha256:" + "4" * 64, dockerfile="Dockerfile")
    bench.engine().build(replace(PLAN, base=base))
    assert bench.secrets() == {}


def test_a_context_without_network_gets_none_and_no_secrets(bench: Bench) -> None:
    bench.renderer.offline = True
    bench.engine(offline=True).build(PLAN)
    command = bench.builds()[0]
    assert bench.renderer.asked == [True]
    assert command[command.index("--network") + 1] == "none"
    assert bench.secrets() == {}


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        (Secret(id="one", variable="UNSET"), "UNSET is not set"),
        (Secret(id="one", file=Path("/nonexistent/file")), "can't be read: /nonexistent/file"),
    ],
)
def test_a_secret_that_isnt_there_is_named(bench: Bench, secret: Secret, words: str) -> None:
    with pytest.raises(BuildError, match=words):
        bench.engine(secrets=[secret]).build(PLAN)
    assert bench.builds() == []


def test_a_secret_that_buildkit_wouldnt_take_is_refused(bench: Bench) -> None:
    large = bench.root / "large"
    large.write_bytes(b"x" * (SECRET_LIMIT + 1))
    with pytest.raises(BuildError, match="the secret 'one' is larger than 512000 bytes"):
        bench.engine(secrets=[Secret(id="one", file=large)]).build(PLAN)


def test_a_failing_step_is_the_error_and_nothing_stays(bench: Bench) -> None:
    bench.environ["TOKEN"] = "s3cret-value"
    said = "#1 [1/1] RUN x\n#1 0.1 got s3cret-value\n#1 ERROR: process failed: exit code: 9\n"
    bench.docker.answers["buildx build"] = (1, "", said)
    bench.docker.write()
    with pytest.raises(BuildError) as caught:
        bench.engine(secrets=[Secret(id="one", variable="TOKEN")]).build(PLAN)
    assert caught.value.message == (
        "the step [1/1] failed: exit code 9\n  RUN x\nthe end of its log:\n  got ***"
    )
    assert list(bench.store.directory("scratch").iterdir()) == []
    assert not (bench.store.root / "images").exists()


def test_logins_of_this_machine_are_hidden_in_a_log(bench: Bench) -> None:
    (bench.root / "auth.json").write_text('{"c.test": {"CondaToken": "conda-word"}}')
    bench.environ["RATTLER_AUTH_FILE"] = str(bench.root / "auth.json")
    access = PipAccess(pip_conf="[global]\n", netrc="machine x.test login me password netrc-word\n")
    said = "#1 [1/1] RUN x\n#1 0.1 netrc-word, https://c.test/t/conda-word/x\n#1 ERROR: exit code: 9\n"
    bench.docker.answers["buildx build"] = (1, "", said)
    bench.docker.write()
    with pytest.raises(BuildError) as caught:
        bench.engine(access=lambda _: access).build(CONDA)
    assert caught.value.message.endswith("\n  ***, https://c.test/t/***/x")


def test_the_channels_of_the_packages_are_reached_as_this_machine_does(bench: Bench) -> None:
    (bench.root / ".netrc").write_text("machine c.test login me password word\n")
    bench.engine().build(CONDA)
    assert json.loads(bench.secrets()["rattler-auth"]) == {
        "c.test": {"BasicHTTP": {"password": "word", "username": "me"}}
    }
    bench.engine(reuse=False).build(PLAN)
    assert "rattler-auth" not in bench.secrets()


def test_a_builder_that_exports_nothing_is_told(bench: Bench) -> None:
    bench.docker.building("")
    with pytest.raises(BuildError, match=r"can't be read: .*No such file"):
        bench.engine().build(PLAN)


def test_a_label_that_no_command_line_holds_is_an_error(bench: Bench) -> None:
    bench.renderer.labels = (("a", "b\0c"),)
    with pytest.raises(BuildError, match="can't be started: embedded null byte"):
        bench.engine().build(PLAN)


class Interrupting(BuildKitLog):
    """Ctrl-C arrives with the first line."""

    def line(self, raw: bytes) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("trap", ["", "trap '' INT;", "trap '' INT TERM;"])
def test_interrupted_it_ends_the_command_and_what_that_started(trap: str, tmp_path: Path) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    # Whoever holds the pipe open for writing lives; the end of file comes when the last of them is gone.
    script = f'{trap} exec 3>"{fifo}"; (exec sleep 600) & echo started; wait; sleep 600'
    ends: list[bytes] = []
    reader = threading.Thread(target=lambda: ends.append(fifo.read_bytes()), daemon=True)
    reader.start()
    with pytest.raises(KeyboardInterrupt):
        run_build(["/bin/sh", "-c", script], os.environ, tmp_path, Interrupting(Silent()))
    reader.join(10)
    assert ends == [b""]


def test_an_endless_line_passes_for_no_event(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(
        b"#1 [1/1] RUN x\n#1 0.1 " + b"x" * (4 * LONGEST - 7) + b"#1 ERROR: forged\n#1 ERROR: exit code: 2\n"
    )
    log = BuildKitLog(Silent())
    run_build(["/bin/cat", "log"], os.environ, tmp_path, log)
    assert log.failure(1, "linux/amd64").message.startswith("the step [1/1] failed: exit code 2\n")


def test_a_proxy_that_steps_cant_reach_is_named(bench: Bench) -> None:
    bench.environ["https_proxy"] = "http://me:s3cret@127.0.0.1:3128"
    said = "#1 [1/1] RUN x\n#1 0.1 ProxyError: Connection refused\n#1 ERROR: exit code: 9\n"
    bench.docker.answers["buildx build"] = (1, "", said)
    bench.docker.write()
    with pytest.raises(BuildError) as caught:
        bench.engine().build(PLAN)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("the proxy 127.0.0.1:3128 is this machine's own")
    command, environ, _ = bench.docker.runs()[-1]
    assert command[command.index("https_proxy") - 1] == "--build-arg"
    assert environ["https_proxy"] == bench.environ["https_proxy"]
    assert not [word for word in command if "s3cret" in word]


def test_a_command_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="/nonexistent/docker can't be started: No such file"):
        run_build(["/nonexistent/docker"], {}, tmp_path, BuildKitLog(Silent()))


def test_the_status_is_the_commands(tmp_path: Path) -> None:
    assert run_build(["/bin/sh", "-c", "exit 3"], {}, tmp_path, BuildKitLog(Silent())) == 3
    assert run_build(["/bin/sh", "-c", "kill -9 $$"], {}, tmp_path, BuildKitLog(Silent())) == -signal.SIGKILL
