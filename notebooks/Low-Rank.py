# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: -all
#     notebook_metadata_filter: kernelspec
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Weights that grow in rank
#
# Under the nuclear norm a weight starts at rank 4, and a singular direction wakes when the gradients along it add up to
# λ. What comes out is stored as two thin factors.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Markdown

import torch_bregman as tb
from torch_bregman.experiments import find
from torch_bregman.experiments.queue import run_missing
from torch_bregman.report.experiment_table import markdown_table
from torch_bregman.train import reopen

FOLDER = Path(tempfile.mkdtemp())

# %%
conf = tb.Conf.from_dict(
    {
        "name": "nuclear",
        "epochs": 4,
        "out": str(FOLDER),
        "threads": 1,
        "data": {"name": "sample", "batch_size": 64},
        "model": {"hidden": [200, 80]},
        "start": {"kind": "low_rank", "rank": 4},
        "regularizer": {"name": "nuclear", "lam": 0.2},
        "optim": {"name": "linbreg", "lr": 0.1},
    }
)
result = tb.fit(conf)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
for style, name in zip(("-", "--", ":"), result.rows[0]["layer_rank"], strict=True):
    left.plot(
        [row["epoch"] for row in result.rows], [row["layer_rank"][name] for row in result.rows], style, label=name
    )
left.set(xlabel="epoch", ylabel="rank")
left.legend(frameon=False)

parts = reopen(result.folder)  # model and optimizer as they were after the last epoch
for style, (name, weight) in zip(("-", "--", ":"), tb.metrics.named_weights(parts.model).items(), strict=True):
    right.plot(parts.optimizer.spectrum(weight), style, label=name)
right.set(xlabel="singular value", yscale="log", title="Spectra of the weights")
plt.show()
# %% [markdown]
# The optimizer has the factors at hand, W = leftᵀ · right:

# %%
weight = parts.model.fc1.weight
factor_left, factor_right = parts.optimizer.factors(weight)
error = (factor_left.T @ factor_right - weight).norm() / weight.norm()
print(f"{weight.numel():,} numbers as {factor_left.numel() + factor_right.numel():,}, error {error:.1e}")

# %% [markdown]
# ## Truncated SVD against following the subspace
#
# `randomized(10)` is the truncated SVD of the literature with its cap below the true rank; `tracked` follows the
# leading subspace. Three seeds on all of MNIST: [docs/experiments.md](../docs/experiments.md).

# %%
results = run_missing(
    find("truncated-svd"), "smoke", only=["tracked", "randomized-10"], out=str(FOLDER), results=str(FOLDER)
)
Markdown(markdown_table(results))
