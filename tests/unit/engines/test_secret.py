"""Build secrets as docker's ``--secret`` writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from envbuild.engines.secret import Secret
from envbuild.errors import UsageError


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("id=netrc,src=/home/me/.netrc", Secret(id="netrc", file=Path("/home/me/.netrc"))),
        ("type=file,id=pip.conf,source=a b.conf", Secret(id="pip.conf", file=Path("a b.conf"))),
        ('id=x,"src=a,b"', Secret(id="x", file=Path("a,b"))),
        ("id=token,env=INDEX_TOKEN", Secret(id="token", variable="INDEX_TOKEN")),
        ("type=env,id=token,env=T", Secret(id="token", variable="T")),
    ],
)
def test_a_secret_is_read(text: str, secret: Secret) -> None:
    assert Secret.parse(text) == secret


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a secret needs an id of letters, digits, dots, dashes and underscores"),
        ("token", "a secret is a list of key=value"),
        ("id=token", "the secret 'token' needs src or env, and one only"),
        ("id=token,src=a,env=B", "the secret 'token' needs src or env, and one only"),
        ("id=token,value=hunter2", "a secret has no 'value'"),
        ("id=to ken,src=a", "a secret needs an id of letters, digits, dots, dashes and underscores"),
        ("id=-x,src=a", "a secret needs an id of letters, digits, dots, dashes and underscores"),
        ("id=a,src=a,src=b", "a secret has 'src' twice"),
        ("id=a,src=", "the secret 'a' names no file"),
        ("id=a,env=hunter-2", "the secret 'a' names no environment variable"),
        ("type=env,id=a,src=b", "the secret 'a' has a type that doesn't fit its source"),
        ('id=a,"src=b', "a secret's quotes don't close"),
        ("id=a,src=b\nc", "a secret is one line"),
        ("id=a,hunter.2=b", "a secret's keys are id, src and env"),
    ],
)
def test_a_bad_secret_is_refused_and_its_value_not_repeated(text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Secret.parse(text)
    assert raised.value.message == message
    assert "hunter" not in str(raised.value)


def test_a_secret_has_one_source() -> None:
    with pytest.raises(UsageError):
        Secret(id="a")
