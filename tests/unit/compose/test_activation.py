"""What activating a conda environment sets: by scripts that really run, in a sandbox."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from envbuild.compose.activation import Activator, disarm, sourced_files
from envbuild.compose.unpack import unpack_layers
from envbuild.oci.manifest import ConfigDocument
from envbuild.plan.activation import ACTIVATION_LABEL, ActivatedVariable, Activation
from envbuild.store.content import Store
from tests.fakes.image import directory, program_items, put_layer
from tests.integration.driver import needs_user_namespaces

ENV = {"PATH": "/opt/env/bin:/usr/bin", "CONDA_PREFIX": "/opt/env", "LANG": "C.UTF-8"}
SCRIPTS = "opt/env/etc/conda/activate.d"


@dataclass(frozen=True)
class Prefix:
    """A small system with a shell, and an environment on it."""

    tree: Path
    scratch: Path

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    def activate(
        self, scripts: Mapping[str, str], *, env: Mapping[str, str] = ENV, patience: float = 5
    ) -> tuple[dict[str, str], list[str]]:
        """The variables and the notes of ``scripts``, the text of each by the name of its package."""
        for name, text in scripts.items():
            self.write(f"{SCRIPTS}/{name}.sh", text)
        activator = Activator(tree=self.tree, scratch=self.scratch, env=env, patience=patience)
        activation = activator.run({f"{SCRIPTS}/{name}.sh": name for name in scripts})
        return activation.env, activator.notes


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root file system of a small image."""
    root = tmp_path_factory.mktemp("system")
    store = Store(root / "store")
    places = [directory(name) for name in ("tmp", "proc", "dev", "opt", "opt/env")]
    layer = put_layer(store, [*program_items("bash", "env", "ls", "mkdir", "date"), *places])
    (root / "tree").mkdir()
    unpack_layers([(store.blob(layer.digest), layer.media_type)], root / "tree")
    return root / "tree"


@pytest.fixture
def prefix(system: Path, tmp_path: Path) -> Prefix:
    shutil.copytree(system, tmp_path / "tree", symlinks=True, copy_function=os.link)
    (tmp_path / "scratch").mkdir()
    return Prefix(tmp_path / "tree", tmp_path / "scratch")


@needs_user_namespaces()
def test_scripts_run_one_after_another_and_see_what_the_ones_before_set(prefix: Prefix) -> None:
    prefix.write("opt/env/share/proj/proj.db", "")
    variables, notes = prefix.activate(
        {
            "b-gdal": 'export GDAL_DATA="$CONDA_PREFIX/gdal:$PROJ_DATA"\n[ -n "$NONE" ] && export X=1\n',
            "a-proj": '[ -d "$CONDA_PREFIX/share" ] && export PROJ_DATA=$CONDA_PREFIX/share/proj\n',
            "c-path": 'function _f() { export PATH="$CONDA_PREFIX/more/bin:$PATH" PS1=x; }; _f\necho hello\n',
        }
    )
    assert variables == {
        "GDAL_DATA": "/opt/env/gdal:/opt/env/share/proj",
        "PROJ_DATA": "/opt/env/share/proj",
        "PATH": "/opt/env/more/bin:/opt/env/bin:/usr/bin",
    }
    assert notes == []


@needs_user_namespaces()
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("mkdir -p $CONDA_PREFIX/var; export X=1", "it does more than set variables: mkdir: "),
        ("export X=1; echo x > /tmp/x", "it writes files"),
        ("export X=1; exit 3", "it ends the shell, with status 3"),
        ("while :; do :; done", "it does not end within 0.5 seconds"),
        ("export X=$(date +%N)", "it sets other values each time"),
        ("export X=$(tool)", "it does more than set variables: /opt/env/etc/conda/activate.d/x.sh: line 1: "),
        ("export X=$'a\\nb'", "X has control characters in it"),
        ("export X=$'\\xff'", "X is no UTF-8"),
        ('kill -9 "$$"', "it ends the shell, with status 137"),
        ("mkdir -p /tmp/out/env/x; export X=1", "it sets more than an environment holds, or hides"),
        ("mkdir /tmp/out/x; exec 2>/dev/null; exit 0", "it ends the shell, with status 0"),
    ],
)
def test_a_script_that_does_more_than_set_variables_is_named_and_changes_nothing(
    prefix: Prefix, script: str, reason: str
) -> None:
    prefix.write("opt/env/bin/tool", "#!/usr/bin/bash\necho from the environment\n", 0o755)
    disarm(prefix.tree / "opt/env")
    variables, notes = prefix.activate({"x": f"{script}\n", "y": "export Y=1\n"}, patience=0.5)
    assert variables == {"Y": "1"}
    (note,) = notes
    assert note.startswith(f"x.sh of x is left out: {reason}")


@needs_user_namespaces()
def test_what_the_image_sets_already_stays(prefix: Prefix) -> None:
    env = {**ENV, "PROJ_DATA": "/mine"}
    variables, notes = prefix.activate({"proj": "export PROJ_DATA=/theirs NEW=1\n"}, env=env)
    assert variables == {"NEW": "1"}
    assert notes == ["PROJ_DATA stays '/mine', where proj would set '/theirs'"]


@needs_user_namespaces()
def test_nothing_of_this_machine_reaches_a_script(prefix: Prefix, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    variables, notes = prefix.activate({"x": 'export SEEN="$SECRET$(ls /)$HOME"\n'})
    assert (variables, notes) == (
        {},
        ["x.sh of x is left out: SEEN has control characters in it"],
    )
    variables, _ = prefix.activate({"x": 'export SEEN="[$SECRET$HOME]"\n'})
    assert variables == {"SEEN": "[]"}


@needs_user_namespaces()
def test_values_of_packages_and_of_the_environment_come_before_scripts(prefix: Prefix) -> None:
    files = {
        "opt/env/conda-meta/state": '{"env_vars": {"B": "2", "C": "***unset***", "D": 4}}',
        "opt/env/etc/conda/env_vars.d/pkg.json": '{"A": "1", "B": "1"}',
        "opt/env/etc/conda/env_vars.d/odd.json": '{"A-B": "1"}',
        "opt/env/etc/conda/env_vars.d/damaged.json": "{",
        f"{SCRIPTS}/last.sh": "export LAST=$A$B\n",
    }
    for path, text in files.items():
        prefix.write(path, text)
    activator = Activator(tree=prefix.tree, scratch=prefix.scratch, env=ENV)
    activation = activator.run({path: Path(path).stem for path in files})
    assert activation.variables == (
        ActivatedVariable(name="A", value="1", package="pkg"),
        ActivatedVariable(name="B", value="2", package="state"),
        ActivatedVariable(name="LAST", value="12", package="last"),
    )
    assert activator.notes == [
        "damaged.json of damaged is left out: it is no JSON",
        "odd.json of odd is left out: 'A-B' is no name of a variable",
    ]


def test_only_what_conda_reads_is_read() -> None:
    paths = [
        "opt/env/etc/conda/activate.d/a.sh",
        "opt/env/etc/conda/activate.d/a.csh",
        "opt/env/etc/conda/activate.d/sub/a.sh",
        "opt/env/etc/conda/deactivate.d/a.sh",
        "opt/env/etc/conda/env_vars.d/a.json",
        "opt/env/conda-meta/state",
        "opt/env2/etc/conda/activate.d/a.sh",
        "etc/conda/activate.d/a.sh",
    ]
    assert sourced_files(paths, "opt/env") == [paths[0], paths[4], paths[5]]


@pytest.mark.parametrize("label", ["", "[]", "{", "[" * 100_000, '{"NONE": "x"}'])
def test_a_label_that_says_nothing_sets_nothing(label: str) -> None:
    config = ConfigDocument({"config": {"Labels": {ACTIVATION_LABEL: label}, "Env": ["A=1"]}})
    assert Activation.of_config(config) == Activation()
