"""The requirements file: pip-tools' form, one byte string for one set of pins, read back whole."""

from __future__ import annotations

import pytest

from envbuild.errors import LockError
from envbuild.lock.model import PipPin
from envbuild.lock.pip.requirements import LockedRequirement, dump_requirements, load_requirements

A, B = "a" * 64, "b" * 64
PINS = (
    PipPin(name="beta", version="2.0", file="beta.whl", size=2, sha256=B, via=("zeta", "alpha")),
    PipPin(name="alpha", version="1.0", file="alpha.whl", size=1, sha256=A, via=("-r requirements.in",)),
    PipPin(
        name="gamma", version="3", file="g.whl", size=1, sha256=A, url="https://x.test/g-3-py3-none-any.whl"
    ),
)
TEXT = f"""\
#
# head
#
alpha==1.0 \\
    --hash=sha256:{A}
    # via -r requirements.in
beta==2.0 \\
    --hash=sha256:{B}
    # via
    #   alpha
    #   zeta
gamma @ https://x.test/g-3-py3-none-any.whl \\
    --hash=sha256:{A}
"""


def test_the_text_is_a_function_of_the_pins() -> None:
    assert dump_requirements(PINS, header=["head"]) == TEXT
    assert dump_requirements(reversed(PINS), header=["head"]) == TEXT


def test_what_is_written_is_read_back() -> None:
    assert load_requirements(dump_requirements(PINS)) == (
        LockedRequirement(name="alpha", version="1.0", sha256s=(A,)),
        LockedRequirement(name="beta", version="2.0", sha256s=(B,)),
        LockedRequirement(
            name="gamma", version=None, sha256s=(A,), url="https://x.test/g-3-py3-none-any.whl"
        ),
    )


def test_all_damaged_lines_are_named_at_once() -> None:
    text = f"alpha==1.0\nbeta>=2 --hash=sha256:{B}\n!! --hash=sha256:{B}\n"
    text += f"good==1 --hash=sha256:{A}\nx==1 --hash=md5:00\n"
    with pytest.raises(LockError) as caught:
        load_requirements(text, name="r.txt")
    lines = caught.value.message.splitlines()
    assert [line.split(" ")[0] for line in lines if line.startswith("r.txt")] == [
        "r.txt:1:",
        "r.txt:2:",
        "r.txt:3:",
        "r.txt:5:",
    ]
    assert lines[0] == "r.txt:1: alpha has no SHA-256, or a damaged one"
    assert lines[1] == "r.txt:2: beta>=2 is not an exact pin"
