"""Packed linear layers compute what torch's do, and are left out where they do not pay."""

from __future__ import annotations

import pytest
import torch

from trainer.serving.forms import packed_linear
from trainer.serving.forms.packed_linear import pack_linears


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(96, 128),
        torch.nn.GELU(),
        torch.nn.Sequential(torch.nn.Linear(128, 64, bias=False)),
        torch.nn.Linear(64, 1),
    ).eval()


@pytest.mark.parametrize("rows", [(1,), (7,), (600,), (3, 41)])
def test_packed_layers_compute_the_same(rows: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_linear, "packing_pays", lambda: True)
    plain, packed = model(), model()
    assert pack_linears(packed) == 2  # the head of one label stays as it is
    values = torch.randn(*rows, 96)
    with torch.inference_mode():
        assert torch.allclose(packed(values), plain(values), atol=1e-5)


def test_half_precision_and_machines_where_it_does_not_pay_keep_torch_s_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_linear, "packing_pays", lambda: True)
    assert pack_linears(model().to(torch.bfloat16)) == 0
    monkeypatch.setattr(packed_linear, "packing_pays", lambda: False)
    assert pack_linears(model()) == 0


def test_whether_it_pays_is_found_out_here() -> None:
    packed_linear.packing_pays.cache_clear()
    assert packed_linear.packing_pays() in (True, False)
