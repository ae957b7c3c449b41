"""A bill of materials as SPDX 2.3 JSON."""

from __future__ import annotations

import hashlib
import re

from envbuild.attest.base import SPDX, AttachedDocument, Bill, Item, Licence, json_document, time_of, uuid_of

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9.-]+")
_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
_NONE = "NOASSERTION"
_IMAGE = "SPDXRef-image"


def spdx(bill: Bill) -> AttachedDocument:
    """The same bill gives the same bytes anywhere. The version of envbuild isn't named, as it says nothing
    of the image."""
    names = {item.reference: _name(item) for item in bill.items}
    licences: dict[str, str] = {}
    packages = [_package(item, names[item.reference], licences) for item in bill.items]
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": bill.digest,
        "documentNamespace": f"https://spdx.org/spdxdocs/envbuild-{uuid_of('spdx', bill.digest)}",
        "creationInfo": {"created": time_of(bill.created), "creators": ["Tool: envbuild"]},
        "packages": [_image(bill), *packages],
        "hasExtractedLicensingInfos": [
            {"licenseId": name, "extractedText": text, "name": text[:80]}
            for name, text in sorted(licences.items())
        ],
        "relationships": [
            _relationship("SPDXRef-DOCUMENT", "DESCRIBES", _IMAGE),
            *(_relationship(_IMAGE, "CONTAINS", names[item.reference]) for item in bill.items),
            *(
                _relationship(names[item.reference], "DEPENDS_ON", names[depend])
                for item in bill.items
                for depend in item.depends
            ),
        ],
    }
    if not licences:
        del document["hasExtractedLicensingInfos"]
    return AttachedDocument(
        name="sbom.spdx.json", media_type=SPDX, artifact_type=SPDX, content=json_document(document)
    )


def _image(bill: Bill) -> dict[str, object]:
    facts = {
        "platform": bill.platform,
        "level": bill.level,
        "lock": bill.lock_digest,
        "definition": bill.definition_digest,
        **{
            f"os-release {key}": value
            for key, value in bill.release
            if key in ("ID", "VERSION_ID", "VERSION_CODENAME")
        },
    }
    return {
        "SPDXID": _IMAGE,
        "name": bill.digest,
        "versionInfo": bill.digest,
        "primaryPackagePurpose": "CONTAINER",
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": _NONE,
        "copyrightText": _NONE,
        "checksums": [{"algorithm": "SHA256", "checksumValue": bill.digest.removeprefix("sha256:")}],
        "comment": "; ".join(f"{key}: {value}" for key, value in facts.items() if value),
    }


def _package(item: Item, name: str, licences: dict[str, str]) -> dict[str, object]:
    package: dict[str, object] = {"SPDXID": name, "name": item.name, "versionInfo": item.version}
    if item.file:
        package["packageFileName"] = item.file
    package |= {
        "primaryPackagePurpose": "LIBRARY",
        "supplier": _NONE,
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": _declared(item.licence, licences),
        "copyrightText": _NONE,
        "sourceInfo": f"{item.path} in layer {item.layer}",
    }
    checksums = [("MD5", item.md5), ("SHA256", item.sha256)]
    if any(value for _, value in checksums):
        package["checksums"] = [
            {"algorithm": kind, "checksumValue": value} for kind, value in checksums if value
        ]
    package["externalRefs"] = [
        {
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": item.purl,
        }
    ]
    return package


def _declared(licence: Licence, licences: dict[str, str]) -> str:
    """The expression; where there is none the package's own words, under a name made of them."""
    if licence.expression:
        for name in _REFERENCE.findall(licence.expression):
            licences[name] = f"The package names its licence {name} and doesn't say what that is."
        return licence.expression
    if not licence.text:
        return _NONE
    name = f"LicenseRef-{hashlib.sha256(licence.text.encode()).hexdigest()[:16]}"
    licences[name] = licence.text
    return name


def _name(item: Item) -> str:
    """Unique, and tells people what it is."""
    mark = hashlib.sha256(item.reference.encode("utf-8", "replace")).hexdigest()[:12]
    return f"SPDXRef-{_NOT_ALLOWED.sub('-', f'{item.kind}-{item.name}-{item.version}')[:120]}-{mark}"


def _relationship(one: str, kind: str, other: str) -> dict[str, str]:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
