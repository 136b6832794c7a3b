"""The classifier among scikit-learn's own checks and tools."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch

sklearn = pytest.importorskip("sklearn", reason="the extra integrations is not installed")

from sklearn.base import clone  # noqa: E402
from sklearn.datasets import make_classification  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import PolynomialFeatures  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

from torch_bregman.integrations import BregmanClassifier  # noqa: E402


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    X, y = make_classification(300, 20, n_informative=4, n_redundant=0, n_classes=3, random_state=0, class_sep=2.0)
    return X, np.array(["a", "b", "c"])[y]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_check_of_scikit_learn():
    results = check_estimator(
        BregmanClassifier(density=0.5, hidden=(20,), epochs=30, random_state=0), on_skip=None, on_fail="raise"
    )
    assert sum(each["status"] == "passed" for each in results) > 40


def test_exactly_the_density_asked_for(data: Any):
    classifier = BregmanClassifier(density=0.1, hidden=(30,), epochs=30, random_state=0).fit(*data)
    weights = [p for p in classifier.model_.parameters() if p.ndim > 1]
    total = sum(p.numel() for p in weights)
    assert sum(int(torch.count_nonzero(p)) for p in weights) == int(0.1 * total)
    assert classifier.score(*data) > 0.85
    np.testing.assert_allclose(classifier.predict_proba(data[0]).sum(1), 1)
    assert set(classifier.predict(data[0])) <= set(classifier.classes_) == {"a", "b", "c"}


def test_a_seed_gives_the_same_again_and_copies_say_the_same(data: Any):
    first = BregmanClassifier(hidden=(10,), epochs=3, random_state=1).fit(*data)
    again = clone(first).fit(*data)
    other = clone(first).set_params(random_state=2).fit(*data)
    assert np.array_equal(first.predict_proba(data[0]), again.predict_proba(data[0]))
    assert not np.array_equal(first.predict_proba(data[0]), other.predict_proba(data[0]))
    copy = pickle.loads(pickle.dumps(first))
    assert np.array_equal(first.predict_proba(data[0]), copy.predict_proba(data[0]))


def test_in_a_pipeline_under_a_search(data: Any):
    pipeline = make_pipeline(PolynomialFeatures(1), BregmanClassifier(hidden=(8,), epochs=3, random_state=0))
    search = GridSearchCV(pipeline, {"bregmanclassifier__density": [0.2, 0.6]}, cv=2).fit(*data)
    assert search.best_params_["bregmanclassifier__density"] in (0.2, 0.6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"density": 0.0}, r"density must be a number in \(0, 1\], got 0.0"),
        ({"density": 1.5}, r"density must be a number in \(0, 1\], got 1.5"),
        ({"lr": -1}, "lr must be a number > 0, got -1"),
        ({"epochs": 0}, "epochs must be whole and >= 1, got 0"),
        ({"hidden": (0,)}, "hidden must be whole and >= 1, got 0"),
    ],
)
def test_wrong_numbers_are_refused(options: dict[str, Any], said: str, data: Any):
    with pytest.raises(ValueError, match=said):
        BregmanClassifier(**options).fit(*data)
