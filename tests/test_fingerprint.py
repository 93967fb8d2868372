"""The name of a model's weights: the same for the same values, another for any other."""

from __future__ import annotations

import pytest
import torch

from gracl.config import Config
from gracl.files import load_model, save_model
from gracl.models.fingerprint import fingerprint
from gracl.training import build_model

TINY = Config().replace({"model": {"backbone": "test_resnet", "weights": "none", "size": [64, 32]}})


@pytest.fixture
def model():
    return build_model(TINY.model, seed=0)


def test_it_is_64_hexadecimal_digits(model):
    assert len(fingerprint(model)) == 64
    assert set(fingerprint(model)) <= set("0123456789abcdef")


def test_it_stays_through_modes_layouts_in_memory_and_a_file(model, tmp_path):
    before = fingerprint(model)
    save_model(tmp_path / "model.safetensors", model, TINY.model)
    assert fingerprint(load_model(tmp_path)) == before
    assert fingerprint(model.eval()) == before
    assert fingerprint(model.to(memory_format=torch.channels_last)) == before
    assert fingerprint(build_model(TINY.model, seed=0)) == before


def test_any_value_of_any_tensor_changes_it(model):
    seen = {fingerprint(model), fingerprint(build_model(TINY.model, seed=1))}
    tensors = list(model.state_dict().values())
    for tensor in tensors:
        flat = tensor.view(-1)
        kept = flat[-1].clone()
        flat[-1] += 1
        seen.add(fingerprint(model))
        flat[-1] = kept
    assert len(seen) == 2 + len(tensors)
    assert fingerprint(model) in seen


class Holds(torch.nn.Module):
    def __init__(self, **tensors):
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor)


def test_names_types_and_shapes_count_and_their_order_does_not():
    zeros = torch.zeros(2, 3)
    models = [
        Holds(a=zeros),
        Holds(b=zeros),
        Holds(a=zeros.T),
        Holds(a=zeros.int()),
        Holds(a=zeros, b=zeros),
        Holds(a=zeros.bfloat16()),
        Holds(a=torch.tensor(0)),
        Holds(a=torch.zeros(0)),
    ]
    assert len({fingerprint(model) for model in models}) == len(models)
    one, other = torch.ones(2), torch.zeros(3)
    assert fingerprint(Holds(a=one, b=other)) == fingerprint(Holds(b=other, a=one))
