"""Manage: list, fetch, label, describe, clone, compare, export and archive what create.py registered.

python manage.py [WORKSPACE]        after python create.py [WORKSPACE]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from envbuild import Environment, Workspace
from envbuild.app.compare import compare
from envbuild.errors import WorkspaceError


def main(where: str) -> None:
    with Workspace.open(where) as workspace:
        for each in Environment.list(workspace):
            print(f"{each.name}: latest {each.latest}, versions: {each.count}")

        Environment.label(workspace, "sklearn-train", 1, ["production"])
        production = Environment.get(workspace, "sklearn-train", label="production")
        newest = Environment.get(workspace, "sklearn-train")
        print(f"production {production.version}, latest {newest.version}")

        # Description and tags may change; the content of a version never does.
        workspace.environments.update("sklearn-train", "2", description="eight threads", tags=[("team", "x")])
        difference = compare(
            workspace, workspace.get("sklearn-train@production"), workspace.get("sklearn-train")
        )
        print("\n".join(difference.definition))

        mine = production.clone("sklearn-mine")
        mine.python = "3.13"
        print(f"clone: {mine.register(workspace).version}")

        with tempfile.TemporaryDirectory() as directory:
            production.save_to_directory(directory)
            print(f"saved: {', '.join(sorted(path.name for path in Path(directory).iterdir()))}")
            again = Environment.load_from_directory(directory)
            print(f"the same: {again.definition_digest == production.definition_digest}")
        for line in production.export("azure-v2").left_out:
            print(f"left out of Azure ML's v2: {line}")

        workspace.environments.archive("as-it-is")
        print(f"archived: {'as-it-is' not in [each.name for each in Environment.list(workspace)]}")
        workspace.environments.restore("as-it-is")
        try:
            Environment.get(workspace, "sklearn-trian")
        except WorkspaceError as error:
            print(f"{error} ({error.hint})")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "azure.db")
