"""A Dockerfile's steps: which install no more than the files that are read, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.errors import SpecError
from envbuild.specs.importers.dockerfile import InstalledFiles, dockerfile_steps
from envbuild.specs.load import load_spec
from envbuild.specs.model import BuildContextSpec, EnvironmentType, ImageBaseSpec

ASSET = "name: trees\ntype: environment\n"
SPEC = "name: trees\nbuild: {path: context, dockerfile_path: Dockerfile}\n"
BASE = "registry.example/base"


def followed(text: str) -> tuple[list[str], set[str]]:
    """The refusals of a Dockerfile's steps, and which of the files beside it they install."""
    files = InstalledFiles(frozenset({"requirements.txt", "conda.yaml"}))
    refusals = (files.refusal(step) for step in dockerfile_steps(text))
    return [refusal for refusal in refusals if refusal is not None], files.installed


def asset(directory: Path, dockerfile: str, **others: str) -> Path:
    (directory / "context").mkdir(parents=True)
    (directory / "asset.yaml").write_text(ASSET, encoding="utf-8")
    (directory / "spec.yaml").write_text(SPEC, encoding="utf-8")
    (directory / "context/Dockerfile").write_text(dockerfile, encoding="utf-8")
    for name, text in others.items():
        (directory / f"context/{name}.txt").write_text(text, encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    ("text", "file"),
    [
        (
            "COPY requirements.txt .\nRUN pip install --no-cache-dir -U -r requirements.txt",
            "requirements.txt",
        ),
        ("copy ./requirements.txt /a/b.txt\nrun python3.12 -m pip install -r/a/b.txt", "requirements.txt"),
        (
            'ADD ["requirements.txt", "/a/"]\nRUN ["pip3", "install", "--requirement=/a/requirements.txt"]',
            "requirements.txt",
        ),
        (
            "COPY . /src\nRUN --mount=type=cache,target=/cache set -eux; cd /src; \\\n"
            "  # a remark\n\n pip install -r requirements.txt; rm -rf /src",
            "requirements.txt",
        ),
        (
            "COPY *.yaml /\nRUN mamba env update -q -n base --file=/conda.yaml && conda clean -ay",
            "conda.yaml",
        ),
        (
            "COPY conda.yaml /\nRUN sed -i s/a/b/ /etc/x && chmod +x /conda.yaml && "
            "/opt/bin/conda env create -p $PLACE -f conda.yaml && conda run -p $PLACE pip cache purge",
            "conda.yaml",
        ),
    ],
)
def test_a_file_that_is_copied_and_installed_is_carried(text: str, file: str) -> None:
    assert followed(f"FROM {BASE}\n{text}\n") == ([], {file})


@pytest.mark.parametrize(
    ("step", "refusal"),
    [
        ("RUN pip install numpy", "RUN pip install"),
        ("RUN pip install -r requirements.txt numpy", "RUN pip install"),
        ("RUN pip install -r requirements.txt -c other.txt", "RUN pip install"),
        (
            "RUN pip install --index-url https://me:hunter2@index.example -r requirements.txt",
            "RUN pip install",
        ),
        ("RUN pip install -r /elsewhere/dev.txt", "RUN pip install"),
        ("RUN pip install", "RUN pip install"),
        ("RUN pip install -r requirements.txt # and more", "RUN pip install"),
        ('RUN ["pip", "install", "numpy"]', "RUN pip install"),
        ("RUN rm -rf /tmp/* ; pip uninstall -y numpy", "RUN pip uninstall"),
        ("RUN conda run -n base --no-capture-output pip install numpy", "RUN pip install"),
        ("RUN conda env create -q", "RUN conda env"),
        ("RUN conda config --add channels x", "RUN conda config"),
        ("RUN true && \\\n  apt-get install -y \\\n  libgomp1", "RUN apt-get install"),
        ("RUN TOKEN=hunter2 fetch", "RUN"),
        ("RUN uv pip install --system -r requirements.txt", "RUN uv pip"),
        ("RUN curl -L https://files.example/x | sh", "RUN curl"),
        ("RUN bash setup.sh", "RUN bash"),
        ("RUN echo numpy >> requirements.txt", "RUN echo"),
        ("RUN sed -i s/1/2/ *.txt", "RUN sed"),
        ("RUN ln -sf other.txt requirements.txt", "RUN ln"),
        ("RUN rm $(pip install numpy)", "RUN of a script"),
        ('RUN rm "$(pip install numpy)"', "RUN rm"),
        ("RUN (pip install numpy)", "RUN of a script"),
        ("RUN echo 'open", "RUN of a script"),
        ("RUN --mount=type=secret,id=pip pip install -r requirements.txt", "RUN of a script"),
        ("RUN --mount=type=bind,target=/src pip install -r requirements.txt", "RUN of a script"),
        ("RUN <<EOF bash\npip install numpy\nEOF", "RUN with text of its own"),
        ("COPY <<-one.txt <<'two.txt' /\nnumpy\none.txt\nRUN x\ntwo.txt", "COPY with text of its own"),
        ("ADD https://files.example/x /", "ADD of an address or an archive"),
        ("ADD git@forge.example:a/b.git /", "ADD of an address or an archive"),
        ("ADD ./software.tar.gz /", "ADD of an address or an archive"),
    ],
)
def test_what_no_file_says_is_refused_without_its_values(step: str, refusal: str) -> None:
    copied = f"FROM {BASE}\nCOPY requirements.txt .\n"
    assert followed(f"{copied}{step}\nENV A=b\n")[0] == [f"{refusal} brings what isn't carried"]


def test_what_only_an_image_or_the_service_has_is_refused() -> None:
    text = f"FROM {BASE}\nCOPY --chown=1 --from=other /a /b\nPIP install numpy\n"
    assert followed(text)[0] == [
        "COPY --from brings what another image has",
        "is no instruction of a Dockerfile",
    ]


@pytest.mark.parametrize(
    "copy",
    ["COPY other/requirements.txt .", "COPY dev.txt requirements.txt", "COPY conda.yaml requirements.txt"],
)
def test_another_file_of_the_same_name_in_the_image_is_not_the_one_that_is_read(copy: str) -> None:
    text = f"FROM {BASE}\nCOPY requirements.txt .\n{copy}\nRUN pip install -r requirements.txt\n"
    assert followed(text)[1] in ({"conda.yaml"}, set())


def test_a_step_that_never_ends_is_one(tmp_path: Path) -> None:
    assert [step.line for step in dockerfile_steps("FROM a\nRUN <<X <<Y\nb\nX\n")] == [1, 2]
    assert [step.text for step in dockerfile_steps("RUN a \\\n\n# c\n b\\")] == ["a b"]
    assert dockerfile_steps("\\\n\\\n") == dockerfile_steps("\\\n")


def test_an_image_with_nothing_installed_is_read_with_what_it_sets(tmp_path: Path) -> None:
    dockerfile = f"FROM --platform=linux/amd64 {BASE}:{{{{latest-image-tag}}}} AS last\nENV A=b\nLABEL c=d\n"
    spec = load_spec(asset(tmp_path / "a", dockerfile, requirements="numpy==2.0.0\n"))
    assert spec.base == ImageBaseSpec(reference=f"{BASE}:latest")
    assert spec.pip.requirements == ()
    assert spec.environment_variables == (("A", "b"),)
    assert spec.left_out == (
        "context/Dockerfile:1: {{latest-image-tag}}: 'latest', as the lock pins it",
        "context/Dockerfile:3: LABEL",
        "context/requirements.txt: no step installs it",
    )


def test_a_refused_dockerfile_is_built_as_it_is_once_its_templates_are_filled(tmp_path: Path) -> None:
    installs = "RUN pip install numpy=={{latest-pypi-version}}\n"
    directory = asset(tmp_path / "a", f"FROM {BASE}:{{{{latest-image-tag}}}}\n{installs}")
    with pytest.raises(SpecError) as raised:
        load_spec(directory)
    place = directory / "context/Dockerfile"
    assert raised.value.problems == (f"{place}:2: RUN pip install brings what isn't carried",)
    assert raised.value.exit_code == 3
    assert raised.value.hint == (
        "only a conda file or requirements.txt that the Dockerfile copies and installs can be carried; "
        "write what the templates of the context stand for, and the directory, or its context as the SPEC, "
        "is built by that Dockerfile as it is (user-managed)"
    )
    place.write_text(f"FROM {BASE}:1\nRUN pip install numpy==2.0.0\n", encoding="utf-8")
    for spec in (load_spec(directory), load_spec(directory / "context")):
        assert spec.type is EnvironmentType.USER_MANAGED
        assert isinstance(spec.base, BuildContextSpec)


def test_many_refused_steps_are_counted(tmp_path: Path) -> None:
    steps = "".join(f"RUN apt-get install {name}\n" for name in "abcdef")
    with pytest.raises(SpecError) as raised:
        load_spec(asset(tmp_path / "a", f"FROM {BASE}:{{{{latest-image-tag}}}}\n{steps}"))
    assert len(raised.value.problems) == 6
    assert raised.value.problems[-1].endswith("context/Dockerfile: so does 1 more of its steps")


def written(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def context_of(dockerfile: Path) -> tuple[str, str]:
    base = load_spec(dockerfile).base
    assert isinstance(base, BuildContextSpec)
    return base.path.as_posix(), base.dockerfile_path


@pytest.mark.parametrize(
    "name",
    [
        "Dockerfile-gpu",
        "Dockerfile_cpu",
        "Dockerfile.gpu",
        "gpu-dockerfile",
        "gpu.Dockerfile",
        "Containerfile-x",
        "docker",
    ],
)
def test_a_dockerfile_is_known_by_any_usual_name_or_by_its_first_step(name: str, tmp_path: Path) -> None:
    file = written(tmp_path / name, "# syntax=docker/dockerfile:1\nARG TAG=1\nFROM base:$TAG\n")
    assert context_of(file) == (".", name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("docker", "RUN true\n"),
        ("docker", "from\n"),
        ("docker", "\0"),
        ("Dockerfile-gpu.dockerignore", "FROM x\n"),
    ],
)
def test_what_begins_with_no_image_is_no_dockerfile(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="its format isn't known by its name"):
        load_spec(written(tmp_path / name, text))


def test_a_directory_names_the_dockerfile_of_another_name(tmp_path: Path) -> None:
    file = written(tmp_path / "Dockerfile-gpu", "FROM base\n")
    with pytest.raises(SpecError) as raised:
        load_spec(tmp_path)
    assert raised.value.hint == f"a file of another name is given by itself: {file.as_posix()}"


@pytest.mark.parametrize(
    "step",
    [
        "COPY requirements.txt /r.txt",
        "COPY --chown=1:1 src/a.py requirements.txt /opt/",
        'COPY ["requirements.txt", "/"]',
        "COPY /src /src",
        "ADD ../requirements.txt /r.txt",
        "COPY require*.txt /",
        "ARG DIR=src\nENV FILE=$DIR/a.py\nCOPY ${FILE} /",
        "RUN --mount=type=bind,source=requirements.txt,target=/r.txt pip install -r /r.txt",
    ],
)
def test_the_context_is_the_directory_above_that_has_what_is_copied(
    step: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path / "requirements.txt")
    written(tmp_path / "src/a.py")
    file = written(tmp_path / "docker/gpu/Dockerfile", f"FROM base\n{step}\n")
    assert context_of(file) == ("../..", "docker/gpu/Dockerfile")
    (line,) = caplog.messages
    assert line.endswith("as with build: {path: ../.., dockerfile_path: docker/gpu/Dockerfile}")


@pytest.mark.parametrize(
    "step",
    [
        "COPY . /src",
        "COPY --from=build /opt /opt",
        "COPY $FILES /opt/",
        "ADD https://files.example/x /x",
        "COPY <<EOF /x\ntext\nEOF",
        "RUN --mount=type=cache,target=/root/.cache true",
        "RUN --mount=type=bind,from=build,source=/x,target=/x true",
        "COPY here.txt /",
    ],
)
def test_its_own_directory_is_the_context_where_nothing_is_missing(
    step: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path / "docker/here.txt")
    assert context_of(written(tmp_path / "docker/Dockerfile", f"FROM base\n{step}\n")) == (".", "Dockerfile")
    assert caplog.messages == []


def test_a_directory_of_dockerfiles_that_copy_all_of_it_is_questioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path / "docker/Dockerfile.gpu.dockerignore")
    file = written(tmp_path / "docker/Dockerfile.gpu", "FROM base\nCOPY . /app\n")
    assert context_of(file) == (".", "Dockerfile.gpu")
    (line,) = caplog.messages
    assert line.endswith("in a spec: build: {path: .., dockerfile_path: docker/Dockerfile.gpu}")


def test_what_no_directory_of_the_repository_has_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "repository/.git").mkdir(parents=True)
    written(tmp_path / "secret.txt")
    file = written(tmp_path / "repository/docker/Dockerfile", "FROM base\nCOPY secret.txt /\n")
    assert context_of(file) == (".", "Dockerfile")
    (line,) = caplog.messages
    assert "copies secret.txt, which its directory hasn't; name the build context" in line


CARRIED = """FROM registry.example/base:{{latest-image-tag}}
ENV CONDA_PREFIX=/azureml-envs/trees
ENV CONDA_DEFAULT_ENV=$CONDA_PREFIX PATH=${CONDA_PREFIX}/bin:$PATH
ARG APP=trees
ENV ROOT="/var/app" THREADS=4 MODEL_TOKEN=hunter2
ENV APP_HOME $ROOT/$APP
ENV OTHER=$UNKNOWN TOOL=$CONDA_PREFIX/bin/tool 1BAD=x
ENV THREADS=8
COPY requirements.txt .
RUN pip install -r requirements.txt
"""


def test_variables_are_carried_but_those_of_the_dockerfile_s_own_places(tmp_path: Path) -> None:
    spec = load_spec(asset(tmp_path / "trees", CARRIED, requirements="six\n"))
    assert spec.environment_variables == (
        ("APP_HOME", "/var/app/trees"),
        ("ROOT", "/var/app"),
        ("THREADS", "8"),
    )
    lines = [line.partition("Dockerfile:")[2] for line in spec.left_out if "ENV" in line]
    stands = "where its environment stands; here it is in /opt/env"
    assert lines == [
        f"2: ENV CONDA_PREFIX: {stands}",
        f"3: ENV CONDA_DEFAULT_ENV: {stands}",
        f"3: ENV PATH: {stands}",
        "7: ENV OTHER: its value is what another variable says",
        f"7: ENV TOOL: {stands}",
        " ENV: environment variable 'MODEL_TOKEN': may hold a credential: give it when a container is run",
        " ENV: environment variable '1BAD': '1BAD' is no name of an environment variable",
    ]
    assert "hunter2" not in str(spec)


@pytest.mark.parametrize(
    ("image", "described", "expected"),
    [
        ("{{image.name}}", "name: registry.example/trees:2", "registry.example/trees:2"),
        (
            "{{image.name}}",
            "{name: 'azureml/trees:{{latest-image-tag}}', publish: {location: mcr}}",
            "/azureml/trees:latest",
        ),
        ("{{image.name}}:{{asset.version}}", "name: registry.example/trees", "registry.example/trees:3"),
    ],
)
def test_the_publisher_s_image_is_named_where_no_context_makes_it(
    image: str, described: str, expected: str, tmp_path: Path
) -> None:
    written(tmp_path / "asset.yaml", f"{ASSET}version: 3\n")
    written(tmp_path / "spec.yaml", f'name: trees\nimage: "{image}"\n')
    written(tmp_path / "environment.yaml", f"image:\n  {described}\n")
    base = load_spec(tmp_path).base
    assert isinstance(base, ImageBaseSpec)
    assert base.reference.endswith(expected)


def test_the_publisher_s_image_is_the_context_that_makes_it(tmp_path: Path) -> None:
    written(tmp_path / "asset.yaml", f"{ASSET}version: auto\n")
    written(tmp_path / "spec.yaml", 'name: trees\nimage: "{{image.name}}:{{asset.version}}"\n')
    written(tmp_path / "context/Dockerfile", "FROM registry.example/base:1\n")
    base = load_spec(tmp_path).base
    assert isinstance(base, BuildContextSpec)
    assert (base.path.as_posix(), base.dockerfile_path) == ("context", "Dockerfile")


def test_a_template_with_braces_in_its_expression_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as raised:
        load_spec(
            asset(tmp_path / "trees", "FROM registry.example/base:{{latest-image-tag:\\d{8}\\.v\\d{1,2}}}\n")
        )
    assert "the template {{latest-image-tag:\\d{8}\\.v\\d{1,2}}} can't be filled" in str(raised.value)
