"""Azure ML's files, whole and damaged: each is read or refused, never anything else."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envbuild.errors import EnvbuildError
from envbuild.specs.definition import definition_digest
from envbuild.specs.load import load_spec

CASES = Path(__file__).parents[1] / "cases" / "spec"
QUICK = settings(max_examples=25, deadline=None)

# The file of each case that is damaged, and the spec that is asked for.
FILES = {
    "azure-v1-directory": ("azureml_environment.json", "."),
    "azure-v1-spark": ("BaseDockerfile", "."),
    "azure-runconfig": (".azureml/train.runconfig", ".azureml/train.runconfig"),
    "azure-inferenceconfig": ("inferenceconfig.json", "inferenceconfig.json"),
    "azure-v2-pipeline": ("pipeline.yml", "pipeline.yml"),
    "azureml-assets": ("spec.yaml", "."),
    "azureml-assets-plain": ("environment.yaml", "."),
}
PIECES = st.sampled_from(
    [
        "null",
        "[]",
        "{}",
        "true",
        '"',
        "'",
        ":",
        "\n",
        "- ",
        "{{",
        "}}",
        "\\ud800",
        "\x00",
        "1e999",
        "../",
        "&a",
        "*a",
    ]
) | st.text(max_size=4)


@pytest.mark.parametrize("case", FILES)
@QUICK
@given(st.data())
def test_a_damaged_file_raises_only_our_errors(case: str, data: st.DataObject) -> None:
    name, asked = FILES[case]
    text = (CASES / case / name).read_text(encoding="utf-8")
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    damaged = text[:start] + data.draw(PIECES) + text[end:]
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "case"
        shutil.copytree(CASES / case, copy)
        (copy / name).write_text(damaged, encoding="utf-8", errors="surrogatepass")
        with contextlib.suppress(EnvbuildError):
            definition_digest(load_spec(copy / asked))


@QUICK
@given(
    st.sampled_from(["azureml_environment.json", "inferenceconfig.json", "a.runconfig", "asset.yaml"]),
    st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=12).map(lambda each: "".join(each).encode())),
)
def test_any_bytes_raise_only_our_errors(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / name
        path.write_bytes(content)
        with contextlib.suppress(EnvbuildError):
            load_spec(path)
