"""Answers with the species of irises: {"data": [[5.1, 3.5, 1.4, 0.2]]} becomes {"species": ["setosa"]}.

The server answers 500 to whatever run() raises: what a client did wrong is told apart here, and answered
with 400. Either way the server lives on.
"""

import json
import os
from pathlib import Path

import joblib
from azureml_inference_server_http.api.aml_response import AMLResponse


def init() -> None:
    """Called once by each worker, before the first request. What it raises ends the server."""
    global trained
    trained = joblib.load(Path(os.environ["AZUREML_MODEL_DIR"]) / "model.joblib")


def run(raw_data: str) -> dict[str, list[str]] | AMLResponse:
    try:
        rows = [[float(number) for number in row] for row in json.loads(raw_data)["data"]]
        if not rows or any(len(row) != 4 for row in rows):
            raise ValueError("data must be rows of four numbers")
        found = trained["model"].predict(rows)
    except (KeyError, TypeError, ValueError) as error:
        return AMLResponse({"message": f"not a request: {error!r}"}, 400, json_str=True)
    return {"species": [trained["names"][number] for number in found]}
