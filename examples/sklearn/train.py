"""Trains a model on data that scikit-learn ships, and writes it with its scores to the working directory."""

import json
import platform
import time
from pathlib import Path

import joblib
import sklearn
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main() -> None:
    started = time.perf_counter()
    features, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    train_x, test_x, train_y, test_y = train_test_split(features, labels, random_state=0, stratify=labels)
    model = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=200, random_state=0))
    model.fit(train_x, train_y)
    scores = {
        "accuracy": round(accuracy_score(test_y, model.predict(test_x)), 4),
        "roc_auc": round(roc_auc_score(test_y, model.predict_proba(test_x)[:, 1]), 4),
        "rows": len(features),
        "python": platform.python_version(),
        "scikit-learn": sklearn.__version__,
    }
    output = Path("outputs")
    output.mkdir(exist_ok=True)
    joblib.dump(model, output / "model.joblib")
    (output / "scores.json").write_text(json.dumps(scores, indent=1) + "\n")
    print(json.dumps(scores), f"trained in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
