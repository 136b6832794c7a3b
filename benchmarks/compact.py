"""Dense beside compact beside rivals, on trained networks: python benchmarks/compact.py --data.dir FOLDER.

Three networks are trained on all of Fashion-MNIST's training images:

- the ConvNet (64 and 64 filters, 128 units), group-sparse: outgoing groups found by tracing, a start with a tenth of
  the units awake, LinBreg;
- an MLP 784-1024-1024-10 under ℓ1 with few weights, compacted to CSR layers;
- an MLP 784-1024-1024-10 of low rank under the nuclear norm;

for one, two and five epochs: short, so that accuracies lie below what these networks can do. What is shown is that they
do not change, and what the rest costs.

Each is compacted and timed in turns with the dense original, one thread, median of forward passes on test images.
Beside the ConvNet: torch-pruning on a dense ConvNet with the same numbers of channels in every layer. Beside the
low-rank MLP: torchao's PAT factorisation of the trained weights to the same ranks. Accuracy is that on all 10,000 test
images. `--train` trains one network and keeps it in --work, so that a busy machine can train first and
measure later.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import torch_bregman as tb
from torch_bregman.compaction.latency import side_by_side
from torch_bregman.data import Batches, load, normalize

RESULTS = Path(__file__).parent / "results"
BATCHES = (1, 128)
SEEDS = (0,)


def images(folder: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    data = load("fashion-mnist", folder)
    return *normalize(data.train, data.mean, data.std), *normalize(data.test, data.mean, data.std)


def train(model: nn.Module, optimizer: Any, x: Tensor, y: Tensor, epochs: int, seed: int) -> None:
    """Cosine decay to 0 over the epochs, batches of 128."""
    batches, steps = Batches(x, y, 128), epochs * -(-len(x) // 128)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x), generator=draw).split(batches.batch_size):
            optimizer.zero_grad()
            cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
            schedule.step()


def convnet(x: Tensor, y: Tensor, seed: int, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    model = tb.models.convnet()
    rules = tb.outgoing_groups(model, x[:2], lam=0.08)
    views = {name: rule.view for name, rule in rules.items()}  # pyright: ignore[reportAttributeAccessIssue]
    tb.sparsify_(model, 0.1, seed=seed, view={**views, "features.conv1.weight": None})
    optimizer = tb.LinBreg(tb.param_groups(model, rules), lr=0.05, momentum=0.9, nesterov=True)
    train(model, optimizer, x, y, epochs, seed)
    return model


def sparse_mlp(x: Tensor, y: Tensor, seed: int, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    model = tb.sparsify_(tb.models.mlp([784, 1024, 1024, 10]), 0.01, seed=seed)
    groups = tb.param_groups(model, {"fc[12].weight": tb.L1(0.5), "fc3.weight": tb.L1(0.1)})
    train(model, tb.LinBreg(groups, lr=0.1, momentum=0.9, nesterov=True), x, y, epochs, seed)
    return model


def low_rank_mlp(x: Tensor, y: Tensor, seed: int, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    model = tb.low_rank_(tb.models.mlp([784, 1024, 1024, 10]), 4, seed=seed)
    groups = tb.param_groups(model, {"fc[12].weight": tb.Nuclear(0.5)})
    train(model, tb.LinBreg(groups, lr=0.05), x, y, epochs, seed)
    return model


NETWORKS: dict[str, tuple[Callable[..., nn.Module], Callable[[], nn.Module], int]] = {
    "group-sparse ConvNet": (convnet, tb.models.convnet, 1),
    "CSR MLP": (sparse_mlp, lambda: tb.models.mlp([784, 1024, 1024, 10]), 2),
    "low-rank MLP": (low_rank_mlp, lambda: tb.models.mlp([784, 1024, 1024, 10]), 5),
}
TARGETS = {
    "group-sparse ConvNet": {1: 1.5, 128: 3.0},
    "CSR MLP": {128: 4.0},
    "low-rank MLP": {1: 1.5, 128: 3.0},
}


@torch.no_grad()
def predictions(model: nn.Module, x: Tensor) -> Tensor:
    model.eval()
    return torch.cat([model(part).argmax(1) for part in x.split(1000)])


def measure(name: str, model: nn.Module, x: Tensor, y: Tensor, seed: int, seconds: float) -> dict[str, Any]:
    small, report = tb.compact(model.eval(), x[:8], batch_sizes=())
    rivals = RIVALS[name](model, small, x[:8])
    models = {"dense": NETWORKS[name][1]().eval(), "trained": model, "compact": small.eval(), **rivals}
    times: dict[str, dict[int, float]] = {each: {} for each in models}
    with torch.no_grad():
        for batch in BATCHES:
            inputs = x[:batch].contiguous()
            calls = [lambda model=model, inputs=inputs: model(inputs) for model in models.values()]
            for each, took in zip(models, side_by_side(calls, seconds), strict=True):
                times[each][batch] = took
    before, after = predictions(model, x), predictions(small, x)
    return {
        "network": name,
        "seed": seed,
        "density": tb.density(model),
        "layers": [f"{c.name}: {c.before} -> {c.after}" for c in report.layers],
        "parameters": report.parameters,
        "macs": report.macs,
        "error": report.error,
        "file": file_sizes(model, small, report),
        "accuracy": [float((each == y).float().mean()) for each in (before, after)],
        "predictions that differ": int((before != after).sum()),
        "milliseconds": times,
        "times as fast": {n: times["dense"][n] / times["compact"][n] for n in BATCHES},
    }


def file_sizes(model: nn.Module, small: nn.Module, report: Any) -> tuple[int, int]:
    """Bytes on the disk, both in safetensors, the recipe included."""
    from safetensors.torch import save_file

    with TemporaryDirectory() as scratch:
        dense = Path(scratch) / "dense.safetensors"
        save_file(model.state_dict(), dense)
        folder = tb.save_compact(Path(scratch) / "compact", small, report)
        return dense.stat().st_size, sum(file.stat().st_size for file in folder.iterdir())


def pruned(model: nn.Module, small: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """A dense ConvNet cut by torch-pruning to the channels of the compact one."""
    import torch_pruning  # pyright: ignore[reportMissingImports] - a peer

    dense: Any = NETWORKS["group-sparse ConvNet"][1]()
    graph = torch_pruning.DependencyGraph().build_dependency(dense, example_inputs=x[:1])
    for name, cut in (
        ("features.conv1", torch_pruning.prune_conv_out_channels),
        ("features.conv2", torch_pruning.prune_conv_out_channels),
        ("classifier.fc1", torch_pruning.prune_linear_out_channels),
    ):
        layer: Any = dense.get_submodule(name)
        kept = len(small.get_submodule(name).bias)  # pyright: ignore[reportArgumentType]
        graph.get_pruning_group(layer, cut, list(range(kept, len(layer.bias)))).prune()
    return {"torch-pruning": dense.eval()}


class Ranks:
    """What PAT's `insert_svd_modules_` asks of its optimizer: which weights are of low rank, and of which."""

    def __init__(self, ranks: dict[Tensor, int]) -> None:
        self.state = {weight: {"sv_count": torch.tensor(rank)} for weight, rank in ranks.items()}

    def regularized_param_groups(self) -> list[dict[str, Any]]:
        """Return the groups, as PAT's optimizer does."""
        return [{"params": list(self.state), "group_type": "SVDGrouper"}]


def factorised(model: nn.Module, small: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """The trained weights as torchao's PAT stores them, to the ranks of the compact model."""
    from torchao.prototype.pat.utils import insert_svd_modules_  # pyright: ignore[reportMissingImports] - a peer

    rival = copy.deepcopy(model)
    now = {name: small.get_submodule(name) for name in ("fc1", "fc2")}
    ranks = {name: made[0].out_features for name, made in now.items() if isinstance(made, nn.Sequential)}
    found = {rival.get_submodule(name).weight: rank for name, rank in ranks.items()}
    insert_svd_modules_(rival, Ranks(found))  # pyright: ignore[reportArgumentType]
    return {"torchao PAT": rival.eval()}


RIVALS: dict[str, Callable[..., dict[str, nn.Module]]] = {
    "group-sparse ConvNet": pruned,
    "CSR MLP": lambda model, small, x: {},
    "low-rank MLP": factorised,
}


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = {name: installed(name) for name in ("torch-pruning", "torchao")}
    where = {"processor": (names or [platform.processor()])[0], "cores": os.cpu_count(), "threads": 1}
    return {**where, "python": platform.python_version(), "torch": torch.__version__, **packages}


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def stored(work: Path, name: str, seed: int) -> Path:
    return work / f"{name.replace(' ', '-')}-{seed}.pt"


def trained(work: Path, name: str, seed: int, data: tuple[Tensor, ...]) -> nn.Module:
    """Take the network from the folder, or train it and keep it there."""
    make, fresh, epochs = NETWORKS[name]
    path = stored(work, name, seed)
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        torch.save(make(data[0], data[1], seed, epochs).state_dict(), path)
    model = fresh()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def write(results: list[dict[str, Any]]) -> None:
    RESULTS.mkdir(exist_ok=True)
    content = {"machine": machine(), "results": results}
    (RESULTS / "compact.json").write_text(json.dumps(content, indent=1) + "\n")
    about = (__doc__ or "").partition("\n\n")[2]
    lines = ["# Compact networks", "", about, *table(results), "", "Machine: " + spelled(machine()), ""]
    (RESULTS / "compact.md").write_text("\n".join(lines))


def spelled(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def table(results: list[dict[str, Any]]) -> list[str]:
    header = ["network", "seed", "weights", "parameters", "MACs", "file", "accuracy before, after", "differ"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for each in results:
        shares = [each[key][1] / each[key][0] for key in ("parameters", "macs", "file")]
        accuracy = ", ".join(f"{100 * value:.2f} %" for value in each["accuracy"])
        cells = [each["network"], each["seed"], f"{each['density']:.2%}", *(f"{share:.1%}" for share in shares)]
        lines.append("| " + " | ".join(map(str, [*cells, accuracy, each["predictions that differ"]])) + " |")
    lines += ["", "Milliseconds a pass, and how many times as fast as dense:", ""]
    lines += ["| network | seed | batch | model | ms | times as fast | reach |", "|---" * 7 + "|"]
    for each in results:
        for batch in BATCHES:
            dense = each["milliseconds"]["dense"][batch]
            for model, took in each["milliseconds"].items():
                reach = TARGETS[each["network"]].get(batch, "") if model == "compact" else ""
                cells = [
                    each["network"],
                    each["seed"],
                    batch,
                    model,
                    f"{took[batch]:.3f}",
                    f"{dense / took[batch]:.2f}",
                    reach,
                ]
                lines.append("| " + " | ".join(map(str, cells)) + " |")
    return [*lines, "", "Layers of the first seed:", "", *layers_of(results)]


def layers_of(results: list[dict[str, Any]]) -> list[str]:
    return [f"- {each['network']}: {'; '.join(each['layers'])}" for each in results if each["seed"] == SEEDS[0]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data.dir", dest="data", required=True, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--work", type=Path, default=Path("runs/compact"), help="folder of the trained networks")
    parser.add_argument("--train", choices=list(NETWORKS), help="train this one and stop")
    parser.add_argument("--only", choices=list(NETWORKS), nargs="+", default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing, for each network and batch size")
    parser.add_argument("--dry", action="store_true", help="print only, leave the results as they are")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = images(arguments.data)
    if arguments.train:
        for seed in arguments.seeds:
            model = trained(arguments.work, arguments.train, seed, data)
            accuracy = float((predictions(model, data[2]) == data[3]).float().mean())
            print(f"{arguments.train}, seed {seed}: {accuracy:.2%}, {tb.density(model):.2%} of the weights", flush=True)
        return
    results = []
    for name in arguments.only:
        for seed in arguments.seeds:
            model = trained(arguments.work, name, seed, data)
            results.append(measure(name, model, data[2], data[3], seed, arguments.seconds))
            print(name, seed, results[-1]["times as fast"], results[-1]["accuracy"], results[-1]["file"], flush=True)
    print("\n".join(table(results)))
    if not arguments.dry:
        write(results)


if __name__ == "__main__":
    main()
