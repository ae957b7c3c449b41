"""A stand-in for conda that speaks its dry-run JSON and solves with rattler.

It knows what conda-lock asks of a conda: ``create --dry-run --json`` with channels and specs,
``info --json`` and ``--version``. Virtual packages come, as conda-lock passes them, from its own channel.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def make_conda_executable(directory: Path, name: str = "conda") -> Path:
    """Writes an executable that behaves as conda; its runs are noted in ``<name>.log`` beside it."""
    path = directory / name
    path.write_text(
        f"#!{sys.executable}\n"
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"open({str(path)!r} + '.log', 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        "import os\nfrom tests.fakes.conda_executable import main\nstatus = main(sys.argv[1:])\n"
        # A worker thread of rattler's may still run, and would end the interpreter with a signal.
        "sys.stdout.flush()\nos._exit(status)\n"
    )
    path.chmod(0o755)
    return path


def main(arguments: list[str]) -> int:
    """The exit status, as conda gives it; the answer is on stdout."""
    if arguments == ["--version"]:
        print("conda 24.9.2")
        return 0
    if arguments[:1] == ["info"]:
        print(json.dumps({"pkgs_dirs": [os.environ.get("CONDA_PKGS_DIRS", "")]}))
        return 0
    parser = argparse.ArgumentParser(exit_on_error=True)
    parser.add_argument("command", choices=["create"])
    parser.add_argument("--prefix")
    parser.add_argument("--dry-run", action="store_true", required=True)
    parser.add_argument("--json", action="store_true", required=True)
    parser.add_argument("--override-channels", action="store_true")
    parser.add_argument("--channel", action="append", default=[])
    parser.add_argument("specs", nargs="*")
    options = parser.parse_intermixed_args(arguments)
    try:
        records = asyncio.run(_solve(options.channel, options.specs, os.environ["CONDA_SUBDIR"]))
    except Exception as error:  # noqa: BLE001 - conda reports whatever happened as JSON
        print(json.dumps({"success": False, "error": str(error), "message": str(error)}))
        return 1
    print(json.dumps({"success": True, "dry_run": True, "actions": {"FETCH": records, "LINK": records}}))
    return 0


async def _solve(channels: list[str], specs: list[str], subdir: str) -> list[dict[str, Any]]:
    from rattler import Channel, Gateway, GenericVirtualPackage, MatchSpec, PackageName, Version, solve
    from rattler.package import BuildString

    real, virtual = [], []
    for channel in channels:
        found = _virtual(channel, subdir)
        if not found:
            real.append(channel)
        for record in found:
            virtual.append(
                GenericVirtualPackage(
                    PackageName(record["name"]),
                    Version(record["version"]),
                    BuildString(record["build"] or "0"),
                )
            )
    solved = await solve(
        sources=[Channel(each) for each in real],
        specs=[MatchSpec(spec, strict=False) for spec in specs],
        gateway=Gateway(cache_dir=Path(os.environ["CONDA_PKGS_DIRS"]) / "cache"),
        platforms=[subdir, "noarch"],  # type: ignore[list-item]
        virtual_packages=virtual,
    )
    return [json.loads(record.to_json()) for record in solved]


def _virtual(channel: str, subdir: str) -> list[dict[str, Any]]:
    """The virtual packages of conda-lock's own channel; none for any other channel."""
    found: list[dict[str, Any]] = []
    for each in (subdir, "noarch"):
        path = Path(channel.removeprefix("file://"), each, "repodata.json")
        if not path.is_file():
            continue
        repodata = json.loads(path.read_text())
        records = [*repodata.get("packages", {}).values(), *repodata.get("packages.conda", {}).values()]
        found += [record for record in records if record["name"].startswith("__")]
    return found
