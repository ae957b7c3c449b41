"""How layers are named after the steps that made them."""

from __future__ import annotations

import pytest

from envbuild.oci.layer import layer_names, step_name
from envbuild.oci.manifest import ConfigDocument


@pytest.mark.parametrize(
    ("created_by", "name"),
    [
        ("/bin/sh -c #(nop)  CMD [x]", "CMD [x]"),
        ("/bin/sh -c true   &&\ttrue", "RUN true && true"),
        ("RUN /bin/sh -c true # buildkit", "RUN true"),
        ("RUN /bin/true # buildkit", "RUN /bin/true"),
        ("RUN echo '/bin/sh -c x'", "RUN echo '/bin/sh -c x'"),
        ("RUN \x1b[31m red", "RUN ?[31m red"),
        ("RUN " + "x" * 100, "RUN " + "x" * 55 + "…"),
    ],
)
def test_a_step_is_named_by_its_beginning(created_by: str, name: str) -> None:
    assert step_name(created_by) == name


def config(history: object) -> ConfigDocument:
    return ConfigDocument({"history": history, "rootfs": {"diff_ids": ["a", "b"]}})


@pytest.mark.parametrize("history", [None, "text", [], [{"created_by": "a"}], [1, 2]])
def test_a_history_that_does_not_fit_names_no_layer(history: object) -> None:
    assert layer_names(config(history)) == ["", ""]


def test_steps_that_made_no_layer_name_none() -> None:
    history = [{"created_by": "COPY a"}, {"created_by": "ENV b", "empty_layer": True}, {}]
    assert layer_names(config(history)) == ["COPY a", ""]
