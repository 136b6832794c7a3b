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
# # A perceptron that starts almost empty
#
# A network 784-200-80-10 learns MNIST from 1 % of its weights. LinBreg wakes a weight when the gradients it has seen
# add up to λ: what the data does not ask for stays zero.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from torch import nn

import torch_bregman as tb
from torch_bregman.experiments import find
from torch_bregman.experiments.queue import run_missing
from torch_bregman.report.experiment_table import markdown_table

SCALE = "smoke"  # small and full take the whole MNIST: minutes, hours
FOLDER = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Three lines in a training loop of your own

# %%
data = tb.data.load("sample")  # 6,000 real digits, in the package
x, y = tb.data.normalize(data.train, data.mean, data.std)
model = tb.models.mlp([784, 200, 80, 10])

tb.sparsify_(model, density=0.01, seed=0)
groups = tb.param_groups(model, {nn.Linear: tb.L1(lam=0.1)})
optimizer = tb.LinBreg(groups, lr=0.1)

batches = tb.data.Batches(x, y, batch_size=32)
generator = torch.Generator().manual_seed(0)
density = []
for _epoch in range(3):
    for images, labels in batches.epoch(generator):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        density.append(100 * tb.density(model))
print(tb.metrics.density_report(model))

# %%
figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(density, color="black")
axes.set(xlabel="step", ylabel="weights left, %", title="The network grows")
plt.show()
# %% [markdown]
# Each pixel of this picture is the number of weights that read that pixel: the border of the images, where nothing is
# ever drawn, is never looked at.

# %%
reads = (model.fc1.weight != 0).sum(0).reshape(28, 28)
plt.figure(figsize=(3, 3))
plt.imshow(reads, cmap="gray_r")
plt.axis("off")
plt.show()
# %% [markdown]
# ## The same from a configuration: log, checkpoints, resume
#
# `bregman train` does this from the command line.

# %%
conf = tb.Conf(name="linbreg", epochs=3, out=str(FOLDER), threads=1)
result = tb.fit(conf)

# %% [markdown]
# ## The JMLR paper's experiment
#
# `bregman experiment run jmlr-mlp --scale small` from the command line; results, with three seeds and the marks of the
# paper, are in [docs/experiments.md](../docs/experiments.md).

# %%
results = run_missing(
    find("jmlr-mlp"),
    SCALE,
    only=["sgd", "linbreg-0.1", "adabreg-0.5", "proxsgd-1e-4"],
    out=str(FOLDER),
    results=str(FOLDER),
)
Markdown(markdown_table(results))
