"""Experiment 5.3: a rank that grows by rule (`DynamicRankNuclearRegularizer`) beside fixed ranks and the free norm."""

from __future__ import annotations

from typing import Any

from torch_bregman.experiments.recipe import (
    ACCURACY,
    SECONDS,
    VALIDATION,
    Curves,
    Experiment,
    Quantity,
    Scale,
    Variant,
)

_RANK = Quantity("layer_rank/fc1.weight", "rank of the first layer", 1, 0)
_SECOND = Quantity("layer_rank/fc2.weight", "rank of the second layer", 1, 0)
_STORED = Quantity("stored", "numbers stored", 1, 0)


def _capped(rank: int, **schedule: Any) -> dict[str, Any]:
    plan = {"rank_schedule": schedule} if schedule else {}
    return {"regularizer": {"name": "dynamic_rank_nuclear", "lam": 0.1, "options": {"rank": rank}}, **plan}


def _free(**schedule: Any) -> dict[str, Any]:
    plan = {"lam_schedule": schedule} if schedule else {}
    return {"regularizer": {"name": "nuclear", "lam": 1.0}, **plan}


_PLATEAU = _capped(16, name="plateau", options={"increase": 16, "patience": 1, "times": 5})
_CALENDAR = _capped(16, name="linear", options={"start": 16, "end": 96})
_ENERGY = _capped(16, name="energy", options={"tolerance": 1e-3, "increase": 4})
_HALVED = _free(name="plateau", options={"factor": 0.5, "patience": 1})

DYNAMIC_RANK = Experiment(
    name="dynamic-rank",
    title="5.3 Dynamic rank: perceptron on MNIST",
    about=(
        "Perceptron 784-200-80-10 on MNIST by plain LinBreg with lr = 0.2, batches of 256, from rank 4. Ranks are "
        "capped with λ = 0.1: fixed at 8, 16, 32; 16 more at most 5 times, after 2 stagnant epochs (the "
        "dissertation's) or by calendar, evenly to 96; by energy, where the last singular value kept holds more than "
        "0.1 % of it. Beside them the free nuclear norm, λ = 1, as it is and halved after 2 stagnant epochs. Stagnant "
        "is judged by the loss on the validation images."
    ),
    config="dynamic_rank.yaml",
    variants=(
        *(Variant(f"fixed-{rank}", f"fixed at {rank}", _capped(rank)) for rank in (8, 16, 32)),
        Variant("plateau", "plateau, 16 + 16", _PLATEAU),
        Variant("calendar", "calendar, 16 to 96", _CALENDAR),
        Variant("energy", "energy", _ENERGY),
        Variant("free", "free, λ = 1", _free()),
        Variant("free-halved", "free, λ halved on a plateau", _HALVED),
    ),
    scales={
        "smoke": Scale(
            "2 epochs of the embedded sample, 1 seed.",
            1,
            {"epochs": 2, "data": {"name": "sample", "batch_size": 128}},
        ),
        "small": Scale("12 epochs, 3 seeds.", 3, {"epochs": 12}),
        "full": Scale("100 epochs, 5 seeds.", 5, {"epochs": 100}),
    },
    columns=(ACCURACY, _RANK, _SECOND, _STORED, SECONDS),
    figures=(Curves("curves", "Accuracy and rank", (VALIDATION, _RANK)),),
)
