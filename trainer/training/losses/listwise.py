"""Listwise softmax: KL between the softmax of Elo and the softmax of the scores of one query's candidates.

Cao et al., *Learning to Rank: From Pairwise Approach to Listwise Approach* (ListNet), ICML 2007; with the target as a
distribution it is the distillation loss of Hinton et al., arXiv 1503.02531. Imports no Django.
"""

from __future__ import annotations

import torch


def listwise(scores: torch.Tensor, elo: torch.Tensor, *, elo_scale: float) -> torch.Tensor:
    """KL(softmax(elo / elo_scale) || softmax(scores)), a scalar; `scores` and `elo` float[n] of one query.

    0 where both orders and distances agree; `scores` are logits, for a cosine already divided by the temperature.
    """
    return softmax_distance(torch.softmax(elo.to(scores) / elo_scale, dim=0), scores)


def softmax_distance(wanted: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """KL(wanted || softmax(scores)), a scalar; `wanted` float[n] sums to one."""
    return torch.nn.functional.kl_div(torch.log_softmax(scores, dim=0), wanted, reduction="sum")
