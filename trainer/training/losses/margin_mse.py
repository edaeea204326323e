"""Margin MSE: squared error between every pair's difference of scores and its difference of Elo, both in logits.

Hofstätter et al., *Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation*,
arXiv 2010.02666, equation 4, on all pairs of a query. Imports no Django.
"""

from __future__ import annotations

import torch

from trainer.training.losses.elo import ELO_A_LOGIT


def margin_mse(scores: torch.Tensor, elo: torch.Tensor) -> torch.Tensor:
    """Mean over the pairs a < b of ((s_a - s_b) - (e_a - e_b) ln 10 / 400)^2.

    `scores` (logits) and `elo` float[n] of one query; a scalar, 0 gradient where there is one candidate only.
    """
    a, b = torch.triu_indices(len(scores), len(scores), offset=1, device=scores.device)
    if not len(a):
        return scores.sum() * 0.0
    wanted = (elo[a] - elo[b]).to(scores) / ELO_A_LOGIT
    return (scores[a] - scores[b] - wanted).square().mean()
