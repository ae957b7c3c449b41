"""A password that someone wrote into a name or an address is repeated by no command."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from envbuild.cli.call import Call
from envbuild.cli.main import main
from envbuild.cli.show.progress import Display, LiveScreen, PlainScreen
from tests.unit.cli.conftest import CommandLine, Shown

SECRET = "s3cr3t-9d41"
ADDRESSES = (
    f"https://ada:{SECRET}@registry.test/team/x:1",
    f"https://ada:{SECRET}@[::1]:5000/x",
    f"https://:{SECRET}@registry.test/x",
    f"https://{SECRET}@registry.test/x",
    f"https://ada:p@{SECRET}@registry.test/x",
    f"https://ada:p/{SECRET}@registry.test/x",
    f"https://ada:p'{SECRET}@registry.test/x",
    f"https://registry.test/x?token={SECRET}",
    f"docker://ada:{SECRET}@registry.test/x",
    f"postgresql://ada:{SECRET}@127.0.0.1:1/x",
    f"mysql://ada:{SECRET}@127.0.0.1:1/x",
    f"ada:{SECRET}@registry.test/x:1",
    f"ada:{SECRET}@registry.test:5000",
    f"ada:p@{SECRET}@registry.test/x",
)
# Without a scheme and a colon, only what reads a name can tell a token from the rest of it.
TOKENS = (f"{SECRET}@registry.test/x", f"ada:p/{SECRET}@registry.test/x", f"registry.test/x?t={SECRET}")
REFERENCES = (
    "push ADDRESS registry.test/x",
    "push oci:nowhere ADDRESS",
    "push oci:nowhere docker-daemon:ADDRESS",
    "pull ADDRESS",
    "pull docker-daemon:ADDRESS",
    "copy ADDRESS oci:out",
    "copy oci:nowhere ADDRESS",
    "build --push ADDRESS",
    "build --cache-from ADDRESS",
    "build --cache-to ADDRESS",
    "build --micromamba-image ADDRESS",
    "publish --to compose --push ADDRESS -- true",
    "serve --push ADDRESS .",
    "prune ADDRESS",
    "inspect ADDRESS",
    "diff ADDRESS oci:nowhere",
    "verify ADDRESS",
    "rebase ADDRESS oci:nowhere",
    "rebase oci:nowhere ADDRESS",
    "rebase oci:nowhere -t ADDRESS",
    "rebase oci:nowhere --push ADDRESS",
    "sbom ADDRESS",
    "target add x kubernetes registry=ADDRESS",
)
OTHERS = (
    "build -t ADDRESS",
    "build -o ADDRESS",
    "build ADDRESS",
    "build . ADDRESS",
    "build -p ADDRESS",
    "build --engine ADDRESS",
    "build --workspace ADDRESS",
    "build --secret id=x,src=ADDRESS",
    "lock ADDRESS",
    "lock --as-of ADDRESS",
    "plan ADDRESS",
    "render ADDRESS",
    "run ADDRESS -- true",
    "run --target ADDRESS . -- true",
    "import ADDRESS",
    "import --name ADDRESS .",
    "lint --select ADDRESS",
    "target add ADDRESS local",
    "target add x ADDRESS",
    "target add x slurm host=ADDRESS",
    "target show ADDRESS",
    "runs logs ADDRESS",
    "env list --workspace ADDRESS",
    "env register --name ADDRESS",
    "env show ADDRESS",
    "curated show ADDRESS",
    "cache prune --max-size ADDRESS",
    "completion ADDRESS",
    "ADDRESS",
    "--progress ADDRESS build",
)
VARIABLES = (
    "ENVBUILD_REGISTRY",
    "ENVBUILD_CACHE_FROM",
    "ENVBUILD_CACHE_TO",
    "ENVBUILD_DEBIAN_MIRROR",
    "ENVBUILD_MAVEN_REPOSITORY",
    "ENVBUILD_MICROMAMBA_IMAGE",
    "ENVBUILD_WORKSPACE",
    "ENVBUILD_ENGINE",
    "ENVBUILD_WORKERS",
)
SPECS = (
    'name: t\nbase: {image: "ADDRESS"}\n',
    'name: t\nbase: {debian: "ADDRESS"}\n',
    'name: t\nchannels: ["ADDRESS"]\ndependencies: [python]\n',
    'name: t\ndependencies: [python, pip: ["--index-url ADDRESS", six]]\n',
    'name: t\ndependencies: [pip: ["six @ ADDRESS"]]\n',
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Shown]:
    """The command line over the real pipeline, beside a spec."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "envbuild.yaml").write_text("name: train\nbase: {debian: trixie}\n")

    def run(*argv: str, **variables: str) -> Shown:
        out, err = io.StringIO(), io.StringIO()
        environ = {"HOME": str(tmp_path / "home"), "DOCKER_HOST": "unix:///nowhere"}
        call = Call(environ={**environ, **variables}, cwd=tmp_path, stdout=out, stderr=err)
        return Shown(main(argv, call=call), out.getvalue(), err.getvalue())

    return run


OFFLINE = {"ENVBUILD_OFFLINE": "1"}


def told(shown: Shown) -> list[str]:
    return [line for line in (shown.out + shown.err).splitlines() if SECRET in line]


@pytest.mark.parametrize("command", REFERENCES)
def test_no_login_of_a_reference_is_repeated(run: Callable[..., Shown], command: str) -> None:
    for address in (*ADDRESSES, *TOKENS):
        for more in ([], ["--debug"]):
            words = [each.replace("ADDRESS", address) for each in command.split()]
            # What is behind two dashes is a command's own.
            at = words.index("--") if "--" in words else len(words)
            # Every one is refused before anybody is asked, so this needs no --offline.
            shown = run(*words[:at], *more, *words[at:])
            assert (shown.status, told(shown)) == (2, []), address


@pytest.mark.parametrize("command", OTHERS)
def test_no_login_is_repeated_wherever_it_stands(run: Callable[..., Shown], command: str) -> None:
    for address in ADDRESSES:
        words = [each.replace("ADDRESS", address) for each in command.split()]
        assert told(run(*words, **OFFLINE)) == [], address


@pytest.mark.parametrize("variable", VARIABLES)
def test_no_login_of_a_variable_is_repeated(run: Callable[..., Shown], variable: str) -> None:
    for address in ADDRESSES:
        assert told(run("build", "--push", "x", **{variable: address})) == [], address


def test_the_doctor_repeats_no_login(run: Callable[..., Shown]) -> None:
    for address in ADDRESSES:
        assert told(run("doctor", "--json", DOCKER_HOST=address)) == [], address
    shown = run("doctor", "--json", DOCKER_HOST=ADDRESSES[0])
    assert "no Docker engine at https://****@registry.test/team/x:1 (DOCKER_HOST)" in shown.out


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("command", ["lock", "lint", "lint --json", "env register"])
def test_no_login_of_a_spec_is_repeated(
    run: Callable[..., Shown], tmp_path: Path, spec: str, command: str
) -> None:
    for address in ADDRESSES:
        (tmp_path / "environment.yml").write_text(spec.replace("ADDRESS", address))
        assert told(run(*command.split(), "environment.yml", **OFFLINE)) == [], address


def test_an_unexpected_error_and_its_traceback_have_no_login(envbuild: CommandLine) -> None:
    envbuild.answers.fault = RuntimeError(f"GET https://ada:{SECRET}@registry.test/v2/: refused")
    shown = envbuild("build", "--debug")
    assert "GET https://****@registry.test/v2/: refused" in shown.err
    assert told(shown) == []


@pytest.mark.parametrize("screen", [PlainScreen, lambda stream: LiveScreen(stream, color=False)])
def test_progress_has_no_login(screen: Callable[[io.StringIO], PlainScreen | LiveScreen]) -> None:
    stream = io.StringIO()
    with Display(screen(stream), lambda: 0.0) as display:
        display.note(f"asking https://ada:{SECRET}@registry.test/v2/")
    assert stream.getvalue() == "asking https://****@registry.test/v2/\n"


def test_what_is_wrong_with_a_reference_is_said_without_its_login(run: Callable[..., Shown]) -> None:
    assert run("push", "oci:nowhere", f"https://ada:{SECRET}@registry.test/x").err == (
        "error: a repository is named without a login: '****@registry.test/x'\n"
        "hint: write REPO or REPO:TAG; 'docker login' keeps logins\n"
    )
    assert run("pull", f"ada:{SECRET}@registry.test/x").err == (
        "error: not an image reference: '****@registry.test/x': a name has no login and no @ but before a "
        "digest\nhint: expected there: NAME[:TAG][@sha256:…]\n"
    )
