"""Trains, serves, scores: one environment, and a prediction that leads back to all it came from.

python train_and_serve.py [WORKSPACE] [PORT]           packages come from your index and mirror
"""

from __future__ import annotations

import json
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from envbuild import Environment, ScriptRun, Workspace
from envbuild.app.environments import look_up

HERE = Path(__file__).parent
FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.2, 2.9, 4.3, 1.3], [6.9, 3.1, 5.4, 2.1]]


def main(where: str, port: int) -> int:
    environment = Environment.from_file(HERE / "environment.yaml")
    with Workspace.open(where) as workspace, tempfile.TemporaryDirectory() as directory:
        environment = environment.register(workspace)
        print(f"registered {environment.name}:{environment.version}")

        model = Path(directory) / "model"
        run = ScriptRun(HERE / "src", "train.py", environment=environment, target="local")
        trained = run.submit(workspace, outputs=model)
        if trained.exit_status != 0:
            return trained.exit_status
        print(f"trained by {trained.name}")

        with environment.serve(HERE / "src" / "score.py", workspace, model=model, port=port) as serving:
            print(f"served at {serving.scoring_url}")
            answer = score(serving.scoring_url, FLOWERS)
        print(f"predicted {', '.join(answer['species'])}")

        # From here on all that is known is what the answer said: the name of the run that gave it.
        service = workspace.environments.run(answer["run"])
        print(f"the answer is of the run {service.name}, of {service.environment}:{service.version}")
        print(f"  its image is {service.image}")
        print(f"  its code is {service.code}")
        print(f"  its model is {serving.model}, written by the run {serving.model_run}")
        trainer = workspace.environments.run(str(serving.model_run))
        found = look_up(workspace, service.base_image)
        print(f"  trained in the same image: {trainer.base_image == service.base_image}")
        print(f"  trained from the same code: {trainer.code == service.code}")
        print(f"  locked: {found.lock.digest if found.lock else 'no'}")
    return 0


def score(url: str, rows: list[list[float]]) -> dict[str, Any]:
    """What the service says of ``rows``, and the run that said it."""
    request = urllib.request.Request(
        url, json.dumps({"data": rows}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return {**json.load(response), "run": response.headers["x-envbuild-run"]}


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *["train-and-serve.db", "5001"][len(sys.argv) - 1 :]]
    sys.exit(main(arguments[0], int(arguments[1])))
