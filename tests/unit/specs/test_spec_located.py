"""Relative files of a spec, found for resolvers that run elsewhere."""

from __future__ import annotations

from pathlib import Path

from envbuild.specs.load import load_spec
from envbuild.specs.paths import located_pip


def test_relative_files_become_absolute_and_the_rest_stays(tmp_path: Path) -> None:
    directory = tmp_path / "a b"
    (directory / "wheels").mkdir(parents=True)
    (directory / "wheels" / "own-1.0-py3-none-any.whl").touch()
    (directory / "requirements.txt").write_text(
        "-f wheels\n--extra-index-url https://index.example/simple\nnumpy\n"
        "./wheels/own-1.0-py3-none-any.whl ; sys_platform == 'linux'\n"
        "https://files.example/pkg-1.0-py3-none-any.whl\n"
    )
    spec = load_spec(directory)
    found = located_pip(spec.pip, spec.directory)
    address = (directory / "wheels" / "own-1.0-py3-none-any.whl").as_uri()
    assert [requirement.text for requirement in found.requirements] == [
        "numpy",
        f'own @ {address} ; sys_platform == "linux"',
        "pkg @ https://files.example/pkg-1.0-py3-none-any.whl",
    ]
    assert found.options == (
        f"--find-links {directory / 'wheels'}",
        "--extra-index-url https://index.example/simple",
    )
    assert located_pip(found, Path("/elsewhere")) == found
