from __future__ import annotations

import pytest
from torch import nn

from torch_bregman.rules import Key, assign, collect


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3))
        self.norm = nn.LayerNorm((2, 3))
        self.head = nn.Linear(6, 3)


def chosen(model: nn.Module, *keys: Key) -> dict[str, Key]:
    places = collect(model, model.named_parameters(remove_duplicate=False))
    return {place.name: key for place, key in zip(places, assign(keys, places), strict=True) if key is not None}


def test_types_cover_weights_of_the_type_and_its_subclasses() -> None:
    class MyLinear(nn.Linear):
        pass

    assert chosen(nn.Sequential(nn.Linear(2, 2), MyLinear(2, 2), nn.Conv1d(2, 2, 1)), nn.Linear) == {
        "0.weight": nn.Linear,
        "1.weight": nn.Linear,
    }


def test_types_and_names_of_containers_cover_what_lies_within() -> None:
    features = {"features.0.weight", "features.2.weight"}
    assert chosen(Net(), nn.Sequential).keys() == features
    assert chosen(Net(), "features").keys() == features
    assert chosen(Net(), "feat*").keys() == features
    assert chosen(Net(), Net).keys() == {*features, "head.weight"}


def test_names_that_match_weights_and_others_cover_the_weights() -> None:
    weights = {"features.0.weight", "features.2.weight", "head.weight"}
    assert chosen(Net(), "*").keys() == chosen(Net(), "*.weight").keys() == weights


def test_names_that_match_no_weight_cover_biases_and_norms() -> None:
    assert chosen(Net(), "head.bias").keys() == {"head.bias"}
    assert chosen(Net(), "features.1").keys() == {"features.1.weight", "features.1.bias"}
    assert chosen(Net(), "norm.weight").keys() == {"norm.weight"}
    assert chosen(Net(), "*.bias").keys() == {
        f"{m}.bias" for m in ("features.0", "features.1", "features.2", "norm", "head")
    }


def test_names_go_before_types_and_earlier_before_later() -> None:
    assert chosen(Net(), nn.Module, "features.0", "features.*") == {
        "features.0.weight": "features.0",
        "features.2.weight": "features.*",
        "head.weight": nn.Module,
    }


def test_names_heed_case() -> None:
    with pytest.raises(ValueError, match="'Head' applies to nothing"):
        chosen(Net(), "Head")


def test_a_bare_layer_is_a_model_too() -> None:
    assert chosen(nn.Linear(2, 2), nn.Linear) == {"weight": nn.Linear}
    assert chosen(nn.Linear(2, 2), "weight") == {"weight": "weight"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("feature.0",), r"'feature.0' applies to nothing: there are 'features.0"),
        ((nn.BatchNorm2d,), r"BatchNorm2d applies to nothing: its parameters are no weights .* name them"),
        (("*", "head.*"), r"'head.\*' applies to nothing: what it matches falls under '\*', tried before it"),
        ((nn.Linear, "head", "head.*"), r"'head.\*' applies to nothing: what it matches falls under 'head'"),
        ((nn.Module, nn.Linear), "Linear applies to nothing: .* falls under Module, tried before it: put the narrower"),
        ((nn.Module, nn.LSTM), "LSTM applies to nothing: .* falls under Module"),
        ((3,), "3 cannot name a rule: use a module type"),
        ((int,), "<class 'int'> cannot name a rule"),
    ],
)
def test_keys_for_nothing_are_refused_saying_why(keys: tuple[Key, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(Net(), *keys)


def test_types_may_be_idle_so_that_one_set_of_rules_serves_several_models() -> None:
    assert chosen(Net(), nn.LSTM) == {}
    assert chosen(Net(), "head", nn.Linear) == {"head.weight": "head"}
    assert chosen(Net(), nn.Linear, nn.Conv2d, nn.LSTM, nn.Module).keys() == chosen(Net(), "*").keys()
    model = nn.ModuleDict({"embedding": nn.Embedding(4, 3), "decoder": nn.Linear(3, 4, bias=False)})
    model["decoder"].weight = model["embedding"].weight
    assert chosen(model, nn.Linear) == {}


def test_tied_weights_go_by_their_first_name() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(4, 3), "decoder": nn.Linear(3, 4)})
    model["decoder"].weight = model["embedding"].weight
    assert chosen(model, "embedding") == {"embedding.weight": "embedding"}
    with pytest.raises(ValueError, match=r"what it matches is tied to 'embedding.weight': use that name"):
        chosen(model, "decoder.weight")


def test_modules_used_twice_go_by_their_first_name() -> None:
    layer = nn.Linear(2, 2)
    assert chosen(nn.Sequential(layer, nn.ReLU(), layer), nn.Linear) == {"0.weight": nn.Linear}


def test_lazy_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'0.weight' has no shape yet"):
        chosen(nn.Sequential(nn.LazyLinear(2)), "*")
