"""A bill of materials as CycloneDX 1.6 JSON."""

from __future__ import annotations

from envbuild.attest.base import CYCLONEDX, AttachedDocument, Bill, Item, json_document, time_of, uuid_of


def cyclonedx(bill: Bill) -> AttachedDocument:
    """The same bill gives the same bytes anywhere. The version of envbuild isn't named, as it says nothing
    of the image."""
    needed = {reference for item in bill.items for reference in item.depends if reference != item.reference}
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid_of('cyclonedx', bill.digest)}",
        "version": 1,
        "metadata": {
            "timestamp": time_of(bill.created),
            "tools": {"components": [{"type": "application", "name": "envbuild"}]},
            "component": {
                "type": "container",
                "bom-ref": bill.digest,
                "name": bill.digest,
                "version": bill.digest,
                "properties": _properties(
                    definition=bill.definition_digest,
                    level=bill.level,
                    lock=bill.lock_digest,
                    platform=bill.platform,
                ),
            },
        },
        "components": [*_system(bill), *(_component(item) for item in bill.items)],
        "dependencies": [
            {
                "ref": bill.digest,
                "dependsOn": sorted(i.reference for i in bill.items if i.reference not in needed),
            },
            *({"ref": item.reference, "dependsOn": list(item.depends)} for item in bill.items),
        ],
    }
    return AttachedDocument(
        name="sbom.cdx.json", media_type=CYCLONEDX, artifact_type=CYCLONEDX, content=json_document(document)
    )


def _system(bill: Bill) -> list[dict[str, object]]:
    release = dict(bill.release)
    if "ID" not in release:
        return []
    system: dict[str, object] = {"type": "operating-system", "bom-ref": "os", "name": release["ID"]}
    if "VERSION_ID" in release:
        system["version"] = release["VERSION_ID"]
    return [system]


def _component(item: Item) -> dict[str, object]:
    hashes = [("MD5", item.md5), ("SHA-256", item.sha256)]
    group, _, artifact = item.name.rpartition(":")
    component: dict[str, object] = {"type": "library", "bom-ref": item.reference}
    if group:
        component["group"] = group
    component |= {"name": artifact, "version": item.version}
    if any(content for _, content in hashes):
        component["hashes"] = [{"alg": name, "content": content} for name, content in hashes if content]
    if item.licence.expression:
        component["licenses"] = [{"expression": item.licence.expression, "acknowledgement": "declared"}]
    elif item.licence.text:
        component["licenses"] = [{"license": {"name": item.licence.text, "acknowledgement": "declared"}}]
    return component | {
        "purl": item.purl,
        "properties": _properties(
            file=item.file,
            kind=item.kind,
            layer=item.layer,
            path=item.path,
            size=str(item.size) if item.size else "",
        ),
    }


def _properties(**values: str) -> list[dict[str, str]]:
    return [{"name": f"dev.envbuild.{name}", "value": value} for name, value in values.items() if value]
