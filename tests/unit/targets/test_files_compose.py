"""Compose files: jobs and services as ``docker compose`` takes them."""

from __future__ import annotations

import yaml
from hypothesis import given
from hypothesis import strategies as st

from envbuild.targets.base import Job
from envbuild.targets.files.compose import FILE, job_file
from tests.unit.targets.test_preflight import an_image

REFERENCE = "registry.example.org/team/demo:1@sha256:" + "a" * 64
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30)


def a_job(*command: str, env: tuple[tuple[str, str], ...] = ()) -> Job:
    return Job(name="demo-1", reference=REFERENCE, image=an_image(), command=command, env=env)


def test_job_is_one_service_that_runs_once() -> None:
    file = job_file(a_job("python", "train.py"))
    assert (file.name, file.executable) == (FILE, False)
    assert file.content == (
        "name: demo-1\n"
        "services:\n"
        "  main:\n"
        f"    image: {REFERENCE}\n"
        "    command:\n"
        "    - python\n"
        "    - train.py\n"
        "    restart: 'no'\n"
    )


def test_gpus_are_reserved() -> None:
    found = yaml.safe_load(job_file(a_job("x"), gpus=True).content)
    (device,) = found["services"]["main"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


@given(st.lists(TEXT, min_size=1, max_size=4), st.dictionaries(TEXT.filter(bool), TEXT, max_size=3))
def test_words_and_variables_reach_the_job_as_they_are(words: list[str], env: dict[str, str]) -> None:
    content = job_file(a_job(*words, env=tuple(sorted(env.items())))).content
    main = yaml.safe_load(content)["services"]["main"]
    assert [each.replace("$$", "$") for each in main["command"]] == words
    assert {name: each.replace("$$", "$") for name, each in main.get("environment", {}).items()} == env
    # A single dollar would be a variable of whoever runs compose.
    assert all(each.replace("$$", "").count("$") == 0 for each in main["command"])
    assert content.isascii()
