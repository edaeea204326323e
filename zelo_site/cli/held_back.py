"""Why a training published no reranker, or held one back, as lines of a terminal."""

from __future__ import annotations

from trainer.models import TrainingRun

RIVALS = {"base": "the untrained base", "first_stage": "the first stage"}
REFERENCES = {"grades": "human grades", "elo": "Elo"}


def held_back_lines(run: TrainingRun) -> list[str]:
    """Return a line for each comparison that was lost, or one that says that the base won; empty for other runs."""
    if run.state != TrainingRun.State.HELD_BACK:
        return []
    gate = run.gate
    if gate.get("base_won"):
        return ["no checkpoint ranks the dev queries better than the untrained base, so nothing was published"]
    lost = [
        f"worse than {RIVALS[each['rival']]} on {each['split']} ({each['queries']:,} queries, {REFERENCES[each['reference']]}): "
        f"NDCG@10 {each['student']:.3f} against {each['other']:.3f}, difference {each['difference']:+.3f} "
        f"({each['low']:+.3f} to {each['high']:+.3f})"
        for each in gate.get("comparisons", [])
        if each["worse"]
    ]
    return ["the student is held back", *lost] if lost else ["the student is held back: it is no better than chance"]
