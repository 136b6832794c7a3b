"""A scikit-learn classifier: a perceptron of a given density."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, check_random_state, validate_data
except ImportError as error:
    raise ImportError("scikit-learn is not installed: pip install 'torch-bregman[integrations]'") from error

from torch_bregman.data import Batches
from torch_bregman.groups import param_groups
from torch_bregman.init import sparsify_
from torch_bregman.models import mlp
from torch_bregman.optim import AdaBreg
from torch_bregman.regularizers import L1
from torch_bregman.schedulers import Consolidation, Density, LamByQuantile, cubic


class BregmanClassifier(ClassifierMixin, BaseEstimator):
    """A multilayer perceptron that ends with exactly the share of weights asked for.

    Features are standardised; AdaBreg with an ℓ1 norm grows the network from few weights, λ is steered to the density,
    and the last quarter of the training refines the weights that are left.

    Args:
        density: share of the weights in (0, 1]; default 0.05.
        hidden: widths of the hidden layers, default (200, 80).
        epochs: passes over the data, default 60.
        batch_size: samples a step, default 32; at most all.
        lr: τ > 0, default 0.01.
        lam: λ the training begins with, > 0, default 0.1.
        random_state: a seed, a generator of numpy, or None.

    Attributes:
        classes_: labels, sorted.
        n_features_in_: number of features.
        model_: the network, a `torch.nn.Module`.
        n_iter_: passes made.

    Raises:
        ImportError: where scikit-learn is missing.
        ValueError: in `fit`, for a number out of range, or data that scikit-learn refuses.

    Example:
        >>> import numpy as np
        >>> draw = np.random.default_rng(0)
        >>> X = draw.normal(size=(200, 10))
        >>> y = np.where(X[:, 0] > 0, "right", "left")
        >>> classifier = BregmanClassifier(density=0.2, hidden=(20,), random_state=0).fit(X, y)
        >>> classifier.score(X, y) > 0.9, round(classifier.density_, 3)
        (True, 0.2)
    """

    def __init__(
        self,
        density: float = 0.05,
        *,
        hidden: Sequence[int] = (200, 80),
        epochs: int = 60,
        batch_size: int = 32,
        lr: float = 0.01,
        lam: float = 0.1,
        random_state: Any = None,
    ) -> None:
        self.density = density
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.lam = lam
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> BregmanClassifier:
        """Train.

        Args:
            X: (samples, features), finite numbers.
            y: (samples,), labels of any kind.

        Returns:
            Itself.
        """
        self._check()
        X, y = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, targets = np.unique(y, return_inverse=True)
        self._mean, spread = X.mean(0), X.std(0)
        self._spread = np.where(spread > 0, spread, 1.0)
        seed = int(check_random_state(self.random_state).randint(2**31))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model_ = mlp([X.shape[1], *self.hidden, len(self.classes_)])
        self._train(self._inputs(X), torch.as_tensor(targets), seed)
        self.n_iter_ = self.epochs
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of every class, (samples, classes), in the order of `classes_`."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)
        with torch.no_grad():
            return self.model_(self._inputs(X)).double().softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely label of every sample."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    @property
    def density_(self) -> float:
        """Share of the weights that are not zero."""
        from torch_bregman.metrics import density

        check_is_fitted(self)
        return density(self.model_)

    def _check(self) -> None:
        for name in ("density", "lr", "lam"):
            value = getattr(self, name)
            most = 1 if name == "density" else np.inf
            if not isinstance(value, Real) or not 0 < float(value) <= most or np.isinf(float(value)):
                range_ = "in (0, 1]" if name == "density" else "> 0"
                raise ValueError(f"{name} must be a number {range_}, got {value!r}")
        for name, value in [
            ("epochs", self.epochs),
            ("batch_size", self.batch_size),
            *(("hidden", w) for w in self.hidden),
        ]:
            if not isinstance(value, Integral) or value < 1:
                raise ValueError(f"{name} must be whole and >= 1, got {value!r}")

    def _inputs(self, X: np.ndarray) -> torch.Tensor:
        return torch.as_tensor((X - self._mean) / self._spread, dtype=torch.float32)

    def _train(self, x: torch.Tensor, y: torch.Tensor, seed: int) -> None:
        model, order = self.model_, torch.Generator().manual_seed(seed)
        batches = Batches(x, y, int(self.batch_size))
        sparsify_(model, min(1.0, 2 * self.density), seed=seed)
        optimizer = AdaBreg(param_groups(model, {nn.Linear: L1(self.lam)}), lr=self.lr)
        total = self.epochs * len(batches)
        freeze = max(1, round(0.75 * total))
        goal = Density(self.density)
        control = LamByQuantile(
            optimizer, goal, relaxation=0.2, every=5, ramp=cubic(min(4.0, 1 / self.density), 1.0, max(1, total // 2))
        )
        end = Consolidation(optimizer, goal, at=freeze)
        rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        for _ in range(self.epochs):
            for inputs, targets in batches.epoch(order):
                optimizer.zero_grad()
                cross_entropy(model(inputs), targets).backward()
                optimizer.step()
                control.step()
                end.step()
                rates.step()
        model.eval()
