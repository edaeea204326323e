"""bfloat16 is chosen where it is faster and ranks the same, and nowhere else."""

from __future__ import annotations

import time

import numpy as np
import pytest

from labeling.retrieval import precision
from labeling.retrieval.precision import Vectors, bfloat16_pays, same_order


class FakeModel:
    """Unit vectors by text length; slow and exact unless bfloat16 is on, which may turn the order around."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, speedup: float, turns: bool = False) -> None:
        self.fast, self.speedup, self.turns = False, speedup, turns
        monkeypatch.setattr(precision, "has_bfloat16", lambda: True)
        monkeypatch.setattr(precision, "computing", self.computing)

    def computing(self, *, bfloat16: bool) -> FakeModel:
        self.wanted = bfloat16
        return self

    def __enter__(self) -> None:
        self.fast = self.wanted

    def __exit__(self, *_: object) -> None:
        self.fast = False

    def encode(self, texts: list[str], role: str) -> Vectors:
        end = time.thread_time() + (0.02 / self.speedup if self.fast else 0.02)
        while time.thread_time() < end:
            pass
        angle = np.array([len(text) / 200 for text in texts])
        angle = 3.0 - angle if self.fast and self.turns and role == "document" else angle
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


@pytest.mark.parametrize(("speedup", "turns", "pays"), [(3.0, False, True), (1.05, False, False), (3.0, True, False)])
def test_it_pays_if_it_is_faster_and_ranks_the_same(
    monkeypatch: pytest.MonkeyPatch, speedup: float, turns: bool, pays: bool
) -> None:
    assert bfloat16_pays(FakeModel(monkeypatch, speedup=speedup, turns=turns).encode) is pays


def test_without_the_instructions_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bfloat16", lambda: False)

    def encode(texts: list[str], role: str) -> Vectors:
        raise AssertionError("nothing to measure")

    assert bfloat16_pays(encode) is False


def test_a_model_that_cannot_compute_so_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel(monkeypatch, speedup=3.0)

    def encode(texts: list[str], role: str) -> Vectors:
        if model.fast:
            raise RuntimeError("could not create a primitive descriptor")
        return model.encode(texts, role)

    assert bfloat16_pays(encode) is False


def test_only_clear_differences_count_as_an_order() -> None:
    exact = np.array([[0.9, 0.5, 0.499]])
    assert same_order(exact, np.array([[0.88, 0.49, 0.495]]))
    assert not same_order(exact, np.array([[0.48, 0.49, 0.495]]))
