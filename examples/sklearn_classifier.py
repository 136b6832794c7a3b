"""A perceptron with a twentieth of its weights in a scikit-learn pipeline: python examples/sklearn_classifier.py."""

from __future__ import annotations

from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import cross_val_score

from torch_bregman.integrations import BregmanClassifier


def main(epochs: int = 60) -> float:
    """Return the accuracy by cross-validation."""
    X, y = load_breast_cancer(return_X_y=True)
    classifier = BregmanClassifier(density=0.05, hidden=(50,), epochs=epochs, random_state=0)
    return float(cross_val_score(classifier, X, y, cv=3).mean())


if __name__ == "__main__":
    print(f"accuracy {main():.1%} with 5 % of the weights")
