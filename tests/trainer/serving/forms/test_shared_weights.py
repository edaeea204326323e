"""Models with equal embeddings hold one copy, which goes with the last of them; other tables stay apart."""

from __future__ import annotations

import gc

import torch

from trainer.serving.forms import shared_weights
from trainer.serving.forms.shared_weights import share_embeddings


def model(*, seed: int) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Embedding(50, 8), torch.nn.Linear(8, 8)).eval()


def test_equal_tables_are_one_and_others_stay_apart() -> None:
    first, second, other = model(seed=0), model(seed=0), model(seed=1)
    expected = [each(torch.arange(50)) for each in (first, second, other)]
    found = [share_embeddings(each, smallest=1) for each in (first, second, other)]
    assert found[0] == found[1] != found[2] and list(found[0].values()) == [50 * 8 * 4]
    assert first[0].weight is second[0].weight and first[0].weight is not other[0].weight
    assert first[1].weight is not second[1].weight
    for each, before in zip((first, second, other), expected, strict=True):
        assert torch.equal(each(torch.arange(50)), before)
    assert share_embeddings(model(seed=0)) == {}, "small tables are not worth it"


def test_a_table_goes_with_the_last_model_that_has_it() -> None:
    (name,) = kept_name()
    gc.collect()
    assert name not in shared_weights._kept


def kept_name() -> list[str]:
    first, second = model(seed=2), model(seed=2)
    names = [*share_embeddings(first, smallest=1)]
    share_embeddings(second, smallest=1)
    if names[0] not in shared_weights._kept:
        raise AssertionError("it is not kept while models have it")
    return names
