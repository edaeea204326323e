"""RankNet: binary cross-entropy of every pair's difference of scores against the preference that Elo implies.

Burges et al., *Learning to Rank using Gradient Descent*, ICML 2005, equation 3. Imports no Django.
"""

from __future__ import annotations

import torch

from trainer.training.losses.elo import ELO_A_LOGIT


def ranknet(scores: torch.Tensor, elo: torch.Tensor) -> torch.Tensor:
    """Mean over the pairs a < b of the cross-entropy between sigmoid(s_a - s_b) and 1 / (1 + 10^((e_b - e_a) / 400)).

    `scores` (logits) and `elo` float[n] of one query; a scalar, 0 gradient where there is one candidate only.
    """
    a, b = torch.triu_indices(len(scores), len(scores), offset=1, device=scores.device)
    if not len(a):
        return scores.sum() * 0.0
    preference = torch.sigmoid((elo[a] - elo[b]).to(scores) / ELO_A_LOGIT)
    return torch.nn.functional.binary_cross_entropy_with_logits(scores[a] - scores[b], preference)
