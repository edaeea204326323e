"""The weights of token and list similarity are chosen only where they order the queries better."""

from __future__ import annotations

import numpy as np

from scoring.numerics.measures.rankings import ndcg
from trainer.training.embedding.token_weight import WEIGHTS, Signals, choose_weight, chosen_weights, list_losses


def test_token_similarity_is_kept_only_where_it_orders_the_queries_better() -> None:
    rng = np.random.default_rng(0)
    elo = rng.normal(size=(30, 12)) * 200.0
    cosine, useful = rng.normal(size=(30, 12)), elo / 200.0 + 0.3 * rng.normal(size=(30, 12))
    for tokens, expected in ((useful, True), (rng.normal(size=(30, 12)), False), (cosine, False)):
        mixed = [[(1 - w) * c + w * t for w in WEIGHTS] for c, t in zip(cosine, tokens, strict=True)]
        losses = [list_losses(own, each, elo_scale=100.0) for own, each in zip(mixed, elo, strict=True)]
        values = [
            [ndcg(row, 1 / (1 + np.exp(-each / 200)), 10) for row in own] for own, each in zip(mixed, elo, strict=True)
        ]
        assert (choose_weight(np.array(losses), np.array(values)) > 0) is expected
    assert choose_weight(np.array(losses)[:3], np.array(values)[:3]) == 0


def test_the_similarity_to_the_list_enters_where_its_queries_are_ordered_better_by_it() -> None:
    rng = np.random.default_rng(1)
    elo = [each * 200.0 for each in rng.normal(size=(30, 12))]
    relevance = [1 / (1 + 10 ** (-each / 400)) for each in elo]
    for noise, sure in ((0.3, True), (100.0, False)):
        signals = [
            Signals(
                0.1 * rng.normal(size=12), 0.1 * rng.normal(size=12), 0.2 * (own / 200 + noise * rng.normal(size=12))
            )
            for own in elo
        ]
        found = chosen_weights(signals, elo, relevance, elo_scale=100.0, tokens=True, context=True)
        assert (found.context > 0.0) is sure and (found.gain > 0.0) is sure
        alone = chosen_weights(signals, elo, relevance, elo_scale=100.0, tokens=True, context=False)
        assert alone.context == 0.0
