"""What looks like a credential, by its own form or by the name of the variable that holds it."""

from __future__ import annotations

import re

from envbuild.specs.fields import refuse_credential
from envbuild.specs.problems import Refused

# Each begins at a boundary and has a bounded length, so that a long text is looked through once.
_SHAPES = {
    "an AWS access key id": r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    "a GitHub token": r"gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40}",
    "a GitLab token": r"glpat-[A-Za-z0-9_-]{20}",
    "a Slack token": r"xox[abprs]-[A-Za-z0-9-]{10}",
    "a Hugging Face token": r"hf_[A-Za-z0-9]{30}",
    "a PyPI token": r"pypi-AgE[A-Za-z0-9_-]{50}",
    "an npm token": r"npm_[A-Za-z0-9]{36}",
    "a Google API key": r"AIza[A-Za-z0-9_-]{35}",
    "an API key": r"sk-(?:[a-z]{2,10}-)?[A-Za-z0-9_-]{32}",
    "a JSON web token": r"eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,4096}\.",
    "an Azure account key": r"(?i:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{30}",
    "a private key": r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY-----",
}
_SHAPE = re.compile(
    "(?<![A-Za-z0-9_-])(?:"
    + "|".join(f"(?P<s{number}>{shape})" for number, shape in enumerate(_SHAPES.values()))
    + ")"
)
_KINDS = tuple(_SHAPES)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s,'\"\]<>]{1,8192}")

_NAME = re.compile(
    r"(?:^|_|(?<=PG)|(?<=DB))(?:TOKEN|(?<=_)PWD|PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIALS?|CONNECTION_?STRING|"
    r"(?:API|ACCESS|SECRET|PRIVATE|ACCOUNT|ENCRYPTION|SIGNING|STORAGE|SHARED)_?KEY)$"
)
_KEY = re.compile(r"(?:^|_)KEY$")
# A reference to a variable, a placeholder, a switch: no credential by itself.
_HARMLESS = re.compile(
    r"\$\{?[A-Za-z_][A-Za-z0-9_]*\}?|<[^<>]{0,100}>|true|false|yes|no|on|off|none", re.IGNORECASE
)


def secret_in(text: str) -> str | None:
    """What a text holds that opens a door (``a GitHub token``), never the thing itself; None: nothing."""
    match = _SHAPE.search(text)
    if match is not None and match.lastgroup is not None:
        return _KINDS[int(match.lastgroup[1:])]
    if "://" in text:
        for address in _ADDRESS.findall(text):
            try:
                refuse_credential(address)
            except Refused:
                return "a credential in an address"
    return None


def secret_variable(name: str, value: str) -> bool:
    """Whether a variable's name says that its value is secret, and the value could be."""
    value, upper = value.strip(), name.upper()
    if not value or _HARMLESS.fullmatch(value):
        return False
    if value.startswith(("/", "./", "../", "~/")) and not re.search(r"\s", value):
        return False  # The path of a file that holds it, as DOCKER_PASSWORD_FILE would have.
    if _NAME.search(upper):
        return True
    # A key may be that of a table: only what looks drawn at random counts.
    return bool(_KEY.search(upper) and re.fullmatch(r"(?=.*[0-9])(?=.*[A-Za-z])\S{16,}", value))
