"""All rules with their codes. A code is never used again for another thing; ``docs/lint.md`` explains each.

EB1xx requirements and Python, EB2xx the base, EB3xx secrets and variables, EB4xx channels, EB5xx names,
EB6xx serving, EB7xx the image's run, EB8xx the source files.
"""

from __future__ import annotations

from envbuild.lint import channels, image, names, python, requirements, serving, source, variables
from envbuild.lint.model import Rule, Severity

_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

CREDENTIAL = "EB301"
"""Only its whole code ignores it, so that no list of families switches it off unnoticed."""

RULES = tuple(
    Rule(code=code, severity=severity, title=title, check=check)
    for code, severity, title, check in (
        ("EB101", _WARNING, "pip requirement without a version", requirements.unversioned_pip),
        ("EB102", _WARNING, "conda dependency without a version", requirements.unversioned_conda),
        ("EB103", _INFO, "pip requirement without an upper bound", requirements.open_pip),
        ("EB104", _ERROR, "requirements that exclude each other", requirements.conflicts),
        ("EB105", _WARNING, "one package from conda and from pip", requirements.twice),
        ("EB106", _INFO, "conda dependency without an upper bound", requirements.open_conda),
        ("EB110", _WARNING, "Python not stated", python.unstated),
        ("EB111", _WARNING, "Python past its end of life", python.dead),
        ("EB112", _INFO, "Python near its end of life", python.dying),
        ("EB113", _ERROR, "versions of Python that exclude each other", python.disagreement),
        ("EB201", _WARNING, "base image without a tag", image.untagged),
        ("EB202", _WARNING, "base image without a digest", image.unpinned),
        ("EB203", _WARNING, "base image with the tag latest", image.latest),
        ("EB204", _WARNING, "Dockerfile that starts from an image without a digest", image.dockerfile),
        (CREDENTIAL, _ERROR, "credential", variables.credentials),
        ("EB302", _WARNING, "EXAMPLE_ENV_VAR", variables.example),
        ("EB303", _WARNING, "variable that changes how programs are found", variables.overrides),
        ("EB401", _WARNING, "conda dependencies without channels", channels.missing),
        ("EB402", _INFO, "channel under Anaconda's terms", channels.licence),
        ("EB403", _INFO, "pip list without pip", requirements.pip_without_conda_pip),
        ("EB501", _WARNING, "name that says what isn't inside", names.dishonest),
        ("EB601", _WARNING, "serving without a server", serving.no_server),
        ("EB602", _INFO, "routes on different ports", serving.ports_apart),
        ("EB603", _WARNING, "privileged port without root", serving.privileged_port),
        ("EB701", _WARNING, "root user", serving.root),
        ("EB702", _WARNING, "as_of in the future", serving.future),
        ("EB801", _WARNING, "line that was not carried over", source.left_out),
        ("EB802", _WARNING, "lock that can't be read", source.unreadable_lock),
    )
)
