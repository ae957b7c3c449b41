"""Trains a classifier on the irises that scikit-learn ships, and writes it to outputs/."""

import json
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main() -> None:
    irises = load_iris()
    train_x, test_x, train_y, test_y = train_test_split(
        irises.data, irises.target, random_state=0, stratify=irises.target
    )
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train_x, train_y)
    outputs = Path("outputs")
    outputs.mkdir(exist_ok=True)
    joblib.dump({"model": model, "names": irises.target_names.tolist()}, outputs / "model.joblib")
    print(json.dumps({"accuracy": round(model.score(test_x, test_y), 4)}))


if __name__ == "__main__":
    main()
