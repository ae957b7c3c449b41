"""The code of a job as a package of Ray's, for clusters that don't run the image it is in."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile

from envbuild.errors import RunError
from envbuild.store.content import Store
from envbuild.targets.base import CODE_DIRECTORY, Job
from envbuild.targets.ray.client import RayDashboard

_LARGEST = 100 << 20
"""Bytes: what Ray takes of a working directory (``GCS_STORAGE_MAX_SIZE``)."""
_SCHEME = "gcs://"
_DATE = (1980, 1, 1, 0, 0, 0)


def package_address(job: Job) -> str | None:
    """Where the code is when it has been brought; None: there is none. Same code, same address."""
    if job.code_digest is None:
        return None
    return f"{_SCHEME}_ray_pkg_{job.code_digest.removeprefix('sha256:')[:32]}.zip"


def upload_package(job: Job, store: Store, dashboard: RayDashboard) -> None:
    """Puts the code where ``package_address`` says, if it isn't there. Raises ``RunError``."""
    address = package_address(job)
    if address is None:
        return
    name = address.removeprefix(_SCHEME)
    if not dashboard.has_package(name):
        dashboard.put_package(name, code_package(job, store))


def code_package(job: Job, store: Store) -> bytes:
    """The files of the code's layer as a zip archive, without links. Deterministic."""
    root = f"{str(CODE_DIRECTORY).lstrip('/')}/"
    made, total = io.BytesIO(), 0
    layer = store.blob(job.image.layers[-1].digest)
    try:
        with (
            tarfile.open(layer) as archive,
            zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as package,
        ):
            for member in archive:
                if not member.isfile() or not member.name.startswith(root):
                    continue
                total += member.size
                if total > _LARGEST:
                    raise RunError(
                        f"the code has more than the {_LARGEST >> 20} MiB that Ray takes",
                        hint="leave data out of it, by .amlignore",
                    )
                content = archive.extractfile(member)
                assert content is not None, "it is a file"
                info = zipfile.ZipInfo(member.name.removeprefix(root), _DATE)
                info.external_attr = (stat.S_IFREG | (member.mode & 0o777)) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                package.writestr(info, content.read())
    except (OSError, tarfile.TarError) as error:
        raise RunError(f"the code's layer can't be read: {error}", hint="run it again") from error
    return made.getvalue()
