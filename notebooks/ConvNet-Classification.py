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
# # Convolutions that wake kernel by kernel
#
# The JMLR paper's ConvNet: two convolutions of 64 filters, 5 × 5, and two linear layers. J is the group norm over
# kernels for the convolutions, ℓ1 for the rest. Here on 6,000 digits in the package; `configs/convnet-fashion.yaml` is
# the same on Fashion-MNIST.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import torch_bregman as tb
from torch_bregman.report import draw_curves

FOLDER = Path(tempfile.mkdtemp())

# %%
conf = tb.Conf.from_dict(
    {
        "name": "kernels",
        "epochs": 2,
        "out": str(FOLDER),
        "threads": 1,
        "data": {"name": "sample", "batch_size": 64},
        "model": {"name": "convnet"},
        "start": {"kind": "sparse", "density": 0.05},
        "regularizer": {"name": "l1", "lam": 0.1},
        "rules": {"Conv2d": {"name": "group_l2", "lam": 0.1, "options": {"view": "kernels"}}},
        "optim": {"name": "linbreg", "lr": 0.01, "momentum": 0.9},
    }
)
result = tb.fit(conf)

# %%
print(tb.metrics.density_report(result.model))

# %% [markdown]
# Which of the 64 × 64 kernels of the second convolution are awake: rows are filters, columns the channels they read.

# %%
weight = result.model.features.conv2.weight.detach()
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.5))
left.imshow(weight.flatten(2).norm(dim=2), cmap="gray_r")
left.set(xlabel="channel read", ylabel="filter", title="Norm of each kernel")
right.bar(range(64), (weight.flatten(2).abs().sum(2) > 0).sum(1), color="black")
right.set(xlabel="filter", ylabel="kernels awake", title="Channels that a filter reads")
plt.show()
# %% [markdown]
# Multiply-adds an image, as computed and by what is not zero:

# %%
data = tb.data.load("sample")
x, _ = tb.data.normalize(data.test, data.mean, data.std)
print(tb.metrics.cost_report(result.model, x[:1]))

# %% [markdown]
# The log of the run as a picture, which `bregman train` leaves in its folder:

# %%
path = draw_curves(result.rows, FOLDER / "curves.png", "kernels")
plt.figure(figsize=(10, 4))
plt.imshow(plt.imread(path))
plt.axis("off")
plt.show()
