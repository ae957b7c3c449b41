"""Git addresses: what pip takes is taken in one form, whatever file it stands in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.specs.git import parse_git_address, subdirectory_of
from envbuild.specs.load import load_spec
from envbuild.specs.problems import Refused

COMMIT = "84a516841ba77a5b4648de2cd0dfcb30ea46dbb4"
WHOLE = f"git+https://git.example/team/x.git@{COMMIT}#subdirectory=a/b"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("git+https://h/x.git", ("https://h/x.git", None, "", "")),
        ("git+https://h/x@v1.0#egg=y", ("https://h/x", "v1.0", "", "y")),
        ("git+ssh://git@h/t/x.git@main", ("ssh://git@h/t/x.git", "main", "", "")),
        ("git+ssh://git@h:2222/x@a/b", ("ssh://git@h:2222/x", "a/b", "", "")),
        ("git+file:///srv/x@main", ("file:///srv/x", "main", "", "")),
        ("git+http://h/x#egg=y&subdirectory=./a/", ("http://h/x", None, "a", "y")),
        ("git+https://${TOKEN}@h/x@v1", ("https://${TOKEN}@h/x", "v1", "", "")),
        ("git+https://u:${TOKEN}@h/x", ("https://u:${TOKEN}@h/x", None, "", "")),
    ],
)
def test_an_address_has_its_parts(text: str, parts: tuple[str, str | None, str, str]) -> None:
    address, egg = parse_git_address(text)
    assert (address.url, address.revision, address.subdirectory, egg) == parts
    assert parse_git_address(str(address)) == (address, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("git+git://h/x", "a repository is fetched by git+https, git+http, git+ssh, git+file"),
        ("git+ext::sh -c x", "a repository is fetched by"),
        ("git+https://u:hunter2@h/x", "a credential stands in 'https://****@h'"),
        ("git+https://hunter2@h/x", "a credential stands in 'https://****@h'"),
        ("git+ssh://git:hunter2@h/x", "a credential stands in"),
        ("git+ssh://git@h:team/x", "names no host"),
        ("git+ssh://-oProxyCommand=x/y", "names no repository"),
        ("git+https:///x", "names no repository"),
        ("git+https://h/", "names no repository"),
        ("git+file://h/x", "names a directory of another host"),
        ("git+https://h/x@--upload-pack=y", "'--upload-pack=y' is no branch, tag or commit"),
        ("git+https://h/x@a..b", "'a..b' is no branch, tag or commit"),
        ("git+https://h/x@${REV}", "is no branch, tag or commit"),
        ("git+https://h/x#subdirectory=../y", "'../y' is no directory of a repository"),
        ("git+https://h/x#subdirectory=/y", "'/y' is no directory of a repository"),
        ("git+https://h/x#subdirectory=a%2f..%2f..", "is no directory of a repository"),
        ("git+https://h/x#branch=y", "'branch' means nothing in a git address"),
        ("git+https://h/x y", "has a space"),
    ],
)
def test_what_is_no_address_is_refused_without_its_credential(text: str, message: str) -> None:
    with pytest.raises(Refused) as raised:
        parse_git_address(text)
    assert message in raised.value.what
    assert "hunter2" not in raised.value.what


def test_the_directory_of_any_address_is_its_fragments() -> None:
    assert subdirectory_of("https://h/x-1.tar.gz#subdirectory=a/b&sha256=00") == "a/b"
    assert subdirectory_of("https://h/x-1.tar.gz#egg=x") == ""
    assert subdirectory_of(None) == ""


UV_LOCK = f"""version = 1
requires-python = ">=3.12"
[[package]]
name = "demo"
version = "1"
source = {{ virtual = "." }}
dependencies = [{{ name = "x" }}]
[[package]]
name = "x"
version = "2"
source = {{ git = "https://git.example/team/x.git?subdirectory=a%2Fb&rev=main#{COMMIT}" }}
"""
PROJECT = '[project]\nname = "demo"\nversion = "1"\nrequires-python = ">=3.12"\ndependencies = ["{}"]\n'
SOURCE = f'{{git = "https://git.example/team/x.git", rev = "{COMMIT}", subdirectory = "a/b"}}'


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("requirements.txt", WHOLE),
        ("requirements.txt", f"-e {WHOLE}&egg=x"),
        ("requirements.txt", f"--editable={WHOLE}&egg=x"),
        ("requirements.txt", f"X@{WHOLE}"),
        ("environment.yml", f"dependencies:\n- python=3.12\n- pip\n- pip:\n  - 'x @ {WHOLE}'\n"),
        ("envbuild.yaml", f"name: demo\nrequirements: ['{WHOLE}']\n"),
        ("pyproject.toml", PROJECT.format(f"x @ {WHOLE}")),
        ("pyproject.toml", PROJECT.format("x") + f"[tool.uv.sources]\nx = {SOURCE}\n"),
        ("pyproject.toml", PROJECT.format("x") + f"[tool.uv.sources]\nx = {SOURCE.replace('rev', 'tag')}\n"),
        ("script.py", f'# /// script\n# dependencies = ["x @ {WHOLE}"]\n# ///\n'),
        ("uv.lock", UV_LOCK),
        (
            "pixi.toml",
            "[workspace]\nname = 'demo'\nchannels = ['conda-forge']\nplatforms = ['linux-64']\n"
            f"[dependencies]\npython = '3.12.*'\n[pypi-dependencies]\nx = {SOURCE}\n",
        ),
        (
            "pylock.toml",
            'lock-version = "1.0"\ncreated-by = "demo"\n[[packages]]\nname = "x"\nversion = "1"\n'
            '[packages.vcs]\ntype = "git"\nurl = "https://git.example/team/x.git"\n'
            f'commit-id = "{COMMIT}"\nsubdirectory = "a/b"\n',
        ),
    ],
)
def test_every_format_says_it_in_one_form(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    (requirement,) = load_spec(tmp_path / file).pip.requirements
    assert (requirement.text.partition(" ;")[0], requirement.hashes) == (f"x @ {WHOLE}", ())


LIBRARY = """[project]
name = "lib"
dependencies = ["six>=1"]
[project.optional-dependencies]
plot = ["attrs; python_version >= '3'"]
all = ["lib[plot]", "idna"]
"""


@pytest.mark.parametrize("line", ["-e ./lib[all]", "./lib[all]", "--editable=lib[all]", "-e file:lib[all]"])
def test_of_a_directory_what_its_project_depends_on_is_taken_and_said(
    tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "pyproject.toml").write_text(LIBRARY)
    (tmp_path / "requirements.txt").write_text(f"{line}\npytest\n")
    requirements = load_spec(tmp_path / "requirements.txt").pip.requirements
    assert [requirement.text for requirement in requirements] == [
        "six>=1",
        "idna",
        'attrs; python_version >= "3"',
        "pytest",
    ]
    assert requirements[0].origin.file == "lib/pyproject.toml"
    assert [record.getMessage().partition(": the ")[2] for record in caplog.records] == [
        f"project in {'./' * ('./' in line)}lib: only what it depends on is installed"
    ]


@pytest.mark.parametrize(
    ("project", "message"),
    [
        (None, "'./lib' is a source tree without a pyproject.toml"),
        ("[build-system]\nrequires = []\n", "lib/pyproject.toml has no [project] with a name"),
        ("[project]\nname = 'lib'\ndynamic = ['dependencies']\n", "its dependencies are made by its build"),
        ("[project]\nname = 'lib'\n", "it has no list of dependencies for the extra 'plot'"),
        (
            "[project]\nname = 'lib'\noptional-dependencies = {plot = ['-r /etc/passwd']}\n",
            "'-r /etc/passwd' is neither a requirement nor the file of a wheel",
        ),
        ("[project", "bad TOML"),
    ],
)
def test_a_directory_that_says_not_what_it_needs_is_refused(
    tmp_path: Path, project: str | None, message: str
) -> None:
    (tmp_path / "lib").mkdir()
    if project is not None:
        (tmp_path / "lib" / "pyproject.toml").write_text(project)
    (tmp_path / "requirements.txt").write_text("-e ./lib[plot]\n")
    with pytest.raises(SpecError, match=re.escape(message)):
        load_spec(tmp_path / "requirements.txt")


def test_a_plain_name_is_never_a_directory(tmp_path: Path) -> None:
    (tmp_path / "six").mkdir()
    (tmp_path / "requirements.txt").write_text("six\n")
    (requirement,) = load_spec(tmp_path / "requirements.txt").pip.requirements
    assert requirement.text == "six"
