"""``envbuild sbom``: what is inside an image, as a document that scanners read."""

from __future__ import annotations

import click

from envbuild.app import images
from envbuild.cli.call import Call
from envbuild.cli.options import PLATFORM, display_options, offline_option, store_options
from envbuild.cli.requests import with_call
from envbuild.cli.show.text import printable
from envbuild.errors import PublishError
from envbuild.platforms import Platform


@click.command(short_help="Print the bill of materials of an image.")
@click.argument("ref", metavar="REF")
@click.option("-p", "--platform", type=PLATFORM, help="Of which platform [default: this machine's].")
@click.option(
    "--format",
    "form",
    type=click.Choice(["cyclonedx", "spdx"]),
    default="cyclonedx",
    show_default=True,
    help="CycloneDX 1.6 or SPDX 2.3, both as JSON.",
)
@click.option("--attached", is_flag=True, help="Fetch the one that is attached in the registry, no layer.")
@click.option("-o", "--output", metavar="FILE", help="Write it here instead of on stdout.")
@offline_option
@store_options
@display_options
@with_call
def command(
    call: Call,
    ref: str,
    platform: Platform | None,
    form: str,
    attached: bool,
    output: str | None,
) -> None:
    """Print the bill of materials of the image REF: its conda, Python, Debian and Maven packages.

    REF is an image of a registry, of the store (as build printed it) or of the engine (docker-daemon:NAME),
    or a file: oci:DIR, oci-archive:FILE, docker-archive:FILE. Its layers are read; nothing is run. The same
    image gives the same bytes anywhere.
    """
    with call.session() as session:
        document = images.sbom(session, ref, platform=platform, form=form, attached=attached)
    _deliver(call, document.content, output)


def _deliver(call: Call, content: bytes, output: str | None) -> None:
    if output is None or output == "-":
        # Somebody else's document, where one is attached, may have bytes that are no text.
        call.stdout.write(content.decode(errors="replace"))
        return
    path = call.cwd / output
    try:
        path.write_bytes(content)
    except OSError as error:
        raise PublishError(f"can't write {output}: {error.strerror}") from error
    call.say(f"{printable(output)} written")
