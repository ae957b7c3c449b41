"""Installs exactly the conda packages of a lock into a prefix; solves nothing.

    python install_conda.py conda.json /opt/env [--offline DIR] [--certificates FILE]

The file lists the packages as conda records them, each with its address and its SHA-256, which the archive
must have. With --offline, archives are taken from DIR/SUBDIR/NAME. FILE (PEM) says whom to trust, if it is
there; a build may have it as a secret. Needs py-rattler and nothing else.
"""

import argparse
import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.request import url2pathname

from rattler import BuildString, PackageRecord, RepoDataRecord, install
from rattler.exceptions import InstallerError
from rattler.networking import Client


def check(path, sha256):
    """Ends the program unless the file is what was locked; rattler checks only what it downloads."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    if digest.hexdigest() != sha256:
        sys.exit(f"{path}: its SHA-256 is {digest.hexdigest()}, but {sha256} is locked")


def to_record(package, offline):
    """A package of the list as rattler takes it."""
    record = PackageRecord(
        name=package["name"],
        version=package["version"],
        build=BuildString(package["build"]),
        build_number=package["build_number"],
        subdir=package["subdir"],
        noarch=package.get("noarch"),
        depends=package["depends"],
        constrains=package["constrains"],
        sha256=bytes.fromhex(package["sha256"]),
        python_site_packages_path=package.get("python_site_packages_path"),
    )
    url = package["url"]
    if offline:
        url = (offline / package["subdir"] / package["fn"]).absolute().as_uri()
    if url.startswith("file://"):
        check(Path(url2pathname(url.removeprefix("file://"))), package["sha256"])
    return RepoDataRecord(record, package["fn"], url, package["channel"])


def keep_last(prefix, packages):
    """Of several files for one path keeps the one of the package that conda links last, as the list has them.
    rattler has another order; what it doesn't keep, it puts aside and says so in its records."""
    aside = prefix / "__clobbers__"
    if not aside.is_dir():
        return
    owners, records = {}, {}
    for package in packages:
        path = record_path(prefix, package)
        records[path] = json.loads(path.read_text(encoding="utf-8"))
        for entry in records[path]["paths_data"]["paths"]:
            owners[entry.get("original_path") or entry["_path"]] = package["name"]
    for path, last in owners.items():
        if os.path.lexists(kept := aside / last / path):
            kept.replace(prefix / path)
    for path, record in records.items():
        for entry in record["paths_data"]["paths"]:
            entry["_path"] = entry.pop("original_path", None) or entry["_path"]
        record["files"] = [entry["_path"] for entry in record["paths_data"]["paths"]]
        path.write_text(json.dumps(record), encoding="utf-8")
    shutil.rmtree(aside)


def record_path(prefix, package):
    """Where the record of a package is."""
    return prefix / "conda-meta" / f"{package['name']}-{package['version']}-{package['build']}.json"


def write_record(prefix, package):
    """Says in conda-meta what the list says of a package, and nothing of the machine that installed it."""
    path = record_path(prefix, package)
    linked = json.loads(path.read_text(encoding="utf-8"))
    index = Path(linked["extracted_package_dir"], "info", "index.json")
    stated = json.loads(index.read_text(encoding="utf-8"))
    record = {
        **{key: stated[key] for key in ("arch", "license", "platform") if stated.get(key)},
        **{key: linked[key] for key in ("files", "paths_data")},
        **dict.fromkeys(("extracted_package_dir", "package_tarball_full_path", "requested_spec"), ""),
        "link": {"source": "", "type": 1},
        **package,
    }
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def run_script(prefix, package):
    """Runs what a package wants run once it is there, as conda does; rattler would pass over a failure."""
    if (prefix / "bin" / f".{package['name']}-pre-link.sh").exists():
        sys.exit(f"{package['name']} has a script that runs before it is there; nothing runs those any more")
    script = prefix / "bin" / f".{package['name']}-post-link.sh"
    if not script.exists():
        return
    names = {"NAME": "name", "VERSION": "version", "BUILDNUM": "build_number"}
    env = {**os.environ, **{f"PKG_{key}": str(package[field]) for key, field in names.items()}}
    env.update(PREFIX=str(prefix), ROOT_PREFIX=str(prefix), PATH=f"{prefix}/bin:{os.environ.get('PATH', '')}")
    if status := subprocess.run(["sh", script.name], cwd=script.parent, env=env, check=False).returncode:
        sys.exit(f"{package['name']}: its post-link script ended with status {status}")


def set_modes(prefix):
    """Gives files the modes 755 and 644: archives hold those of the machines they were made on."""
    (prefix / "CACHEDIR.TAG").unlink(missing_ok=True)  # An environment in an image is no cache.
    for path in prefix.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def main():
    parser = argparse.ArgumentParser(description="Installs the conda packages of a lock.")
    parser.add_argument("packages", type=Path, help="the list of packages, JSON")
    parser.add_argument("prefix", type=Path, help="where to install them")
    parser.add_argument("--offline", type=Path, metavar="DIR", help="take the archives from here")
    parser.add_argument("--certificates", type=Path, metavar="FILE", help="trust these authorities")
    given = parser.parse_args()
    if given.certificates and given.certificates.is_file():
        os.environ["SSL_CERT_FILE"] = str(given.certificates)
    packages = json.loads(given.packages.read_text(encoding="utf-8"))["packages"]
    records = [to_record(package, given.offline) for package in packages]
    prefix = given.prefix.absolute()  # It is written into the files.
    prefix.mkdir(parents=True, exist_ok=True)
    # On the file system of the prefix, so that files get there by a link and are not written twice.
    with tempfile.TemporaryDirectory(dir=prefix.parent, ignore_cleanup_errors=True) as cache:
        try:
            # A client of its own, as the one install makes by itself looks for no credentials.
            options = {"client": Client.default_client(), "show_progress": False}
            asyncio.run(install(records, prefix, cache, execute_link_scripts=False, **options))
        except InstallerError as error:
            sys.exit(f"the conda packages can't be installed: {error}")
        keep_last(prefix, packages)
        for package in packages:
            write_record(prefix, package)
    for package in packages:
        run_script(prefix, package)
    set_modes(prefix)


if __name__ == "__main__":
    main()
