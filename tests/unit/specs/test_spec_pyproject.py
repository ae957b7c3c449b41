"""What a project's tables mean, beyond what the folder cases show."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.specs.definition import definition_digest
from envbuild.specs.load import load_spec
from envbuild.specs.model import PackageIndex, Spec
from envbuild.specs.text.toml import parse_toml

HEAD = '[project]\nname = "demo"\n'


def load(directory: Path, text: str, parts: str = "") -> Spec:
    (directory / "pyproject.toml").write_text(text, encoding="utf-8")
    return load_spec(directory / f"pyproject.toml{parts}")


def pins(spec: Spec) -> list[str]:
    return [requirement.text for requirement in spec.pip.requirements]


def refusal(directory: Path, text: str, parts: str = "") -> str:
    with pytest.raises(SpecError) as raised:
        load(directory, text, parts)
    return str(raised.value).replace(f"{directory.as_posix()}/", "")


UNKNOWN = "is no part of a project; write #EXTRA, #group:NAME, or several with commas"
EXTRAS = (
    HEAD
    + '[project.optional-dependencies]\nA_b = ["six"]\nc = ["idna"]\n[dependency-groups]\nc = ["attrs"]\n'
)


@pytest.mark.parametrize(
    ("parts", "expected", "name"),
    [
        ("", [], "demo"),
        ("#a-b", ["six"], "demo-a-b"),
        ("#A.B", ["six"], "demo-a-b"),
        ("#c,a_b", ["idna", "six"], "demo-c-a-b"),
        ("#group:c", ["attrs"], "demo-c"),
        ("#extra:c,group:c", ["idna", "attrs"], "demo-c-c"),
    ],
)
def test_parts_are_chosen_behind_a_hash_sign(
    tmp_path: Path, parts: str, expected: list[str], name: str
) -> None:
    spec = load(tmp_path, EXTRAS, parts)
    assert (pins(spec), spec.name, spec.source) == (expected, name, tmp_path / "pyproject.toml")


def test_parts_of_a_directory_are_those_of_its_project(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "pyproject.toml").write_text(EXTRAS)
    assert pins(load_spec(tmp_path / "demo#c")) == ["idna"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("#a-c", "pyproject.toml: no extra 'a-c'; did you mean 'a-b'?"),
        ("#group:a-b", "pyproject.toml: no group 'a-b'; there are c"),
        (
            "#x:c",
            f"pyproject.toml: '#x:c' {UNKNOWN}",
        ),
        (
            "#,",
            f"pyproject.toml: '#' {UNKNOWN}",
        ),
    ],
)
def test_unknown_parts_are_named(tmp_path: Path, parts: str, message: str) -> None:
    assert refusal(tmp_path, EXTRAS, parts) == message


def test_a_group_that_is_no_extra_is_pointed_at(tmp_path: Path) -> None:
    text = HEAD + '[dependency-groups]\ntest = ["pytest"]\n'
    assert refusal(tmp_path, text, "#test") == "pyproject.toml: no extra 'test'; the group is group:test"


def test_other_formats_have_no_parts(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("six\n")
    with pytest.raises(SpecError) as raised:
        load_spec(tmp_path / "requirements.txt#plot")
    assert raised.value.message.endswith("requirements.txt: has no parts that '#plot' could choose")


def test_a_hash_sign_in_a_files_own_name_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a#b.txt").write_text("six\n")
    assert pins(load_spec(tmp_path / "a#b.txt")) == ["six"]


def test_the_tables_of_other_tools_do_not_count(tmp_path: Path) -> None:
    plain = load(tmp_path, HEAD + 'dependencies = ["six"]\n')
    more = load(
        tmp_path,
        HEAD + 'dependencies = ["six"]\n[tool.envbuild]\noffline = true\n[tool.uv]\npackage = true\n',
    )
    assert definition_digest(more) == definition_digest(plain)
    assert more.left_out == plain.left_out


def test_a_projects_own_extras_are_written_out_with_their_markers(tmp_path: Path) -> None:
    text = HEAD + (
        '[project.optional-dependencies]\na = ["six; os_name == \'posix\'", "demo[b]"]\n'
        'b = ["idna", "demo[a]"]\n'
        "all = [\"demo[a]; python_version < '3.12' or python_version > '3.13'\"]\n"
    )
    marker = 'python_version < "3.12" or python_version > "3.13"'
    assert pins(load(tmp_path, text, "#all")) == [
        f'six; ({marker}) and os_name == "posix"',
        f"idna; {marker}",
    ]
    assert pins(load(tmp_path, text, "#a")) == ['six; os_name == "posix"', "idna"]


def test_a_group_may_name_the_project_and_gets_its_extras_only(tmp_path: Path) -> None:
    text = HEAD + (
        '[project.optional-dependencies]\na = ["six"]\n'
        '[dependency-groups]\ndev = ["demo[a]", "Demo", "idna"]\n'
    )
    spec = load(tmp_path, text, "#group:dev")
    assert pins(spec) == ["six", "idna"]
    assert "pyproject.toml: dependency-groups.dev[1]: the project itself" in spec.left_out


def test_extras_beyond_all_bounds_are_refused(tmp_path: Path) -> None:
    lines = [f'e{n} = ["demo[e{n + 1}]; python_version > \'3.{n}\'", "demo[e{n + 1}]"]' for n in range(60)]
    text = HEAD + "[project.optional-dependencies]\n" + "\n".join(lines) + '\ne60 = ["six"]\n'
    assert refusal(tmp_path, text, "#e0").endswith("include each other too deeply")
    wide = [f'e{n} = ["demo[e{n + 1}]; python_version > \'3.{n}\'", "demo[e{n + 1}]"]' for n in range(30)]
    text = HEAD + "[project.optional-dependencies]\n" + "\n".join(wide) + '\ne30 = ["six"]\n'
    assert refusal(tmp_path, text, "#e0").endswith("include each other too deeply")


@pytest.mark.parametrize("written", [">=3.10", "==3.12.*", "~=3.11", ">=3.9,!=3.9.1,<4", ">= 3.8"])
def test_requires_python_is_not_rewritten(tmp_path: Path, written: str) -> None:
    assert load(tmp_path, HEAD + f'requires-python = "{written}"\n').python == written


def test_without_a_project_a_group_is_asked_for(tmp_path: Path) -> None:
    text = '[dependency-groups]\nlint = ["ruff"]\n'
    assert refusal(tmp_path, text) == (
        "pyproject.toml: has no [project], so it doesn't say what it depends on; "
        "name a group: pyproject.toml#group:lint"
    )
    assert refusal(tmp_path, "[tool.ruff]\nline-length = 100\n") == (
        "pyproject.toml: has no [project], so it doesn't say what it depends on; name the file that does"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{git = 'https://u:hunter2@git.example/x'}", "a credential stands in"),
        ("{workspace = true}", "workspace is no archive"),
        ("{path = '../x', editable = true}", "is neither a requirement nor the file of a wheel"),
        ("{path = '.'}", "is a source tree"),
        ("{url = 'https://files.example/x.zip', subdirectory = 'y'}", "url is no archive"),
        ("{url = 'https://u:hunter2@files.example/x-1-py3-none-any.whl'}", "a credential stands in"),
        ("{index = 'gone'}", "no index is called 'gone'"),
        ("[{index = 'a'}, {index = 'b'}]", "several sources of x may apply"),
        ("{url = 'https://files.example/x.whl', marker = \"python_version < '3'\"}", "depends on a marker"),
        ("{url = 'https://files.example/x.whl', marker = 'nonsense'}", "is no marker"),
        ("3", "must be tables"),
        ("{}", "it is no archive"),
    ],
)
def test_a_source_that_cannot_be_had_is_refused(tmp_path: Path, source: str, message: str) -> None:
    found = refusal(tmp_path, HEAD + f'dependencies = ["x>=1"]\n[tool.uv.sources]\nx = {source}\n')
    assert message in found
    assert "hunter2" not in found


def test_a_source_counts_for_the_parts_it_names(tmp_path: Path) -> None:
    text = HEAD + (
        '[project.optional-dependencies]\ngpu = ["torch"]\ncpu = ["torch"]\n'
        '[tool.uv.sources]\ntorch = [{index = "c", extra = "cpu"}, {index = "g", extra = "gpu"}]\n'
        '[[tool.uv.index]]\nname = "c"\nurl = "https://c.example/simple"\nexplicit = true\n'
        '[[tool.uv.index]]\nname = "g"\nurl = "https://g.example/simple"\nexplicit = true\n'
    )
    for extra, name in (("gpu", "g"), ("cpu", "c")):
        pip = load(tmp_path, text, f"#{extra}").pip
        index = PackageIndex(url=f"https://{name}.example/simple", packages=("torch",), name=name)
        assert (pip.options, pip.indexes) == ((), (index,))
    assert load(tmp_path, text).pip.indexes == ()


def test_a_source_for_another_system_does_not_count(tmp_path: Path) -> None:
    text = HEAD + (
        'dependencies = ["torch"]\n[tool.uv.sources]\n'
        "torch = {git = 'https://git.example/torch', marker = \"sys_platform == 'win32'\"}\n"
    )
    assert pins(load(tmp_path, text)) == ["torch"]


@pytest.mark.parametrize(
    ("table", "options"),
    [
        ("index-url = 'https://i.example/simple'", ("--index-url https://i.example/simple",)),
        ("extra-index-url = ['https://i.example/s']", ("--extra-index-url https://i.example/s",)),
        ("find-links = ['https://i.example/l']", ("--find-links https://i.example/l",)),
        ("no-index = true", ("--no-index",)),
        ("allow-insecure-host = ['i.example:8443']", ("--trusted-host i.example:8443",)),
        ("index = [{url = 'https://i.example/l', format = 'flat'}]", ("--find-links https://i.example/l",)),
    ],
)
def test_indexes_of_uv_become_options(tmp_path: Path, table: str, options: tuple[str, ...]) -> None:
    assert load(tmp_path, HEAD + f"[tool.uv]\n{table}\n").pip.options == options


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("index = 3", "tool.uv.index: must be tables"),
        ("index = [{name = 'x'}]", "an index has no url"),
        ("extra-index-url = 'x'", "tool.uv.extra-index-url: must be a list of texts"),
        ("index-url = 'https://u:hunter2@i.example/simple'", "a credential stands in"),
        ('index-url = "https://i.example/\\n--pre"', "has several lines"),
        ("constraint-dependencies = ['six==']", "'six==' is no requirement"),
    ],
)
def test_wrong_settings_of_uv_are_refused(tmp_path: Path, table: str, message: str) -> None:
    found = refusal(tmp_path, HEAD + f"[tool.uv]\n{table}\n")
    assert message in found
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("project = 3", "project: must be a table, is 3"),
        ("[project]\nname = 3", "project.name: must be text, is 3"),
        ("[project]\ndependencies = 'six'", "project.dependencies: must be a list of texts, is 'six'"),
        ("[dependency-groups]\na = 3\n", "dependency-groups.a: must be a list, is 3"),
        ("[tool]\nuv = 3\n[project]\n", "tool.uv: must be a table, is 3"),
    ],
)
def test_wrong_shapes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text, "#group:a" if "groups" in text else "")


def test_bad_toml_is_told_with_its_line() -> None:
    with pytest.raises(SpecError) as raised:
        parse_toml("a = 1\nb = \n", "x.toml")
    assert raised.value.message.startswith("x.toml:2: bad TOML: ")


@pytest.mark.parametrize("text", ["x = " + "a" * 10 + ".b" * 64, '# ok\n"x"' + ' . "y"' * 64 + " = 1"])
def test_a_key_of_too_many_parts_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse_toml(text, "x.toml")
    line = text.count("\n") + 1
    assert raised.value.message == f"x.toml:{line}: a key has more than 64 parts"


@pytest.mark.parametrize(
    ("table", "strategy"),
    [
        ("", None),
        ("[tool.uv]\npackage = true\n", None),
        ('[tool.uv]\nextra-index-url = ["https://x.test/s"]\n', "first-index"),
        ('[[tool.uv.index]]\nurl = "https://x.test/s"\n', "first-index"),
        ('[tool.uv]\nindex-strategy = "unsafe-best-match"\n', "unsafe-best-match"),
    ],
)
def test_a_project_of_uv_that_names_indexes_takes_the_first(
    tmp_path: Path, table: str, strategy: str | None
) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\nname = "x"\nversion = "1"\ndependencies = ["six"]\n' + table)
    assert load_spec(file).pip.index_strategy == strategy
