"""Collects the events of a training into one value for the page: curves, pace, memory, notes. Pure.

Curves are thinned as they grow, so that the row stays small however long the training runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labeling.stored_texts import StoredText, stored_json, stored_text

MOST_POINTS = 200
MOST_NOTES = 20
LONGEST_NOTE = 500
CUT = stored_text(
    "%(cut)s of %(rows)s rows are longer than the model reads and were cut",
    one="%(cut)s of %(rows)s rows is longer than the model reads and was cut",
)
WENT_ON = stored_text("resumed from the checkpoint of step %(step)s")
SMALLER = stored_text("out of memory: continues with rows at once: %(rows)s, batches a step: %(batches)s")
WARM_START = stored_text(
    "first %(steps)s steps on the base's own order", one="first %(steps)s step on the base's own order"
)
FOLD = stored_text("cross-validation with %(folds)s folds chooses the checkpoint and the adapter's scale")
LEFT_OUT = stored_text(
    "%(queries)s training queries have no preference (one Elo, or one candidate) and were left out",
    one="%(queries)s training query has no preference (one Elo, or one candidate) and was left out",
)
CHOSEN = stored_text(
    "%(queries)s held-out queries chose step %(step)s at scale %(scale)s: NDCG@10 %(gain)s against the base (standard error "
    "%(stderr)s)",
    one="%(queries)s held-out query chose step %(step)s at scale %(scale)s: NDCG@10 %(gain)s against the base (standard error "
    "%(stderr)s)",
)
BASE_CHOSEN = stored_text(
    "on %(queries)s held-out queries the best checkpoint has NDCG@10 %(gain)s against the base (standard error %(stderr)s), not more than "
    "chance may give",
    one="on %(queries)s held-out query the best checkpoint has NDCG@10 %(gain)s against the base (standard error %(stderr)s), not more "
    "than chance may give",
)
TOO_FEW_TO_CHOOSE = stored_text(
    "%(queries)s held-out queries are too few to choose a checkpoint, so the base is kept; judge more queries",
    one="%(queries)s held-out query is too few to choose a checkpoint, so the base is kept; judge more queries",
)
HELD_OUT_PAIRS = stored_text("judges held-out pairs and compares the answers with the panel's preference")
GATE = stored_text("compares the student with its untrained base and the first stage")
PUBLISHING = stored_text("after the last step the artefacts are written and compared with the adapter")


class Progress:
    """The progress of a training: `take` adds events in order, `shown` returns what is stored and drawn."""

    def __init__(self, before: Mapping[str, Any] | None = None) -> None:
        self._values: dict[str, Any] = {"loss": [], "ndcg": [], "notes": [], **(before or {})}
        self.error = ""

    @property
    def step(self) -> int:
        return int(self._values.get("step", 0))

    @property
    def steps(self) -> int:
        return int(self._values.get("steps", 0))

    def shown(self) -> dict[str, Any]:
        return dict(self._values)

    def take(self, event: Mapping[str, Any]) -> None:
        """Add an event of the training process; unknown kinds are ignored."""
        handler = getattr(self, f"_on_{event['kind']}", None)
        if handler is not None:
            handler({name: value for name, value in event.items() if name not in ("kind", "at")})

    def _on_prepared(self, facts: dict[str, Any]) -> None:
        self._values["facts"] = facts
        if facts.get("cut_rows"):
            self._note(CUT % {"cut": facts["cut_rows"], "rows": facts["rows"]})
        if facts.get("left_out_queries"):
            self._note(LEFT_OUT % {"queries": facts["left_out_queries"]})

    def _on_resumed(self, facts: dict[str, Any]) -> None:
        for name in ("loss", "ndcg", "log_loss"):
            if name in self._values:
                self._values[name] = [point for point in self._values[name] if point[0] <= facts["step"]]
        self._note(WENT_ON % {"step": facts["step"]})

    def _on_warm_start(self, facts: dict[str, Any]) -> None:
        """A phase before the first step: it moves a bar of its own and no curve."""
        self._note(WARM_START % {"steps": facts["steps"]})
        self._values["warm_start"] = {
            **self._values.get("warm_start", {}),
            "step": facts["step"],
            "steps": facts["steps"],
        }
        self._values |= {name: facts.get(name) for name in ("tokens_per_s", "memory_bytes", "eta_s")}

    def _on_cross_validation(self, facts: dict[str, Any]) -> None:
        """A fold before the first step: it moves a bar of its own and no curve."""
        self._note(FOLD % {"folds": facts["folds"]})
        done = (facts["fold"] - 1) * facts["steps"] + facts["step"]
        self._values["cross_validation"] = {"step": done, "steps": facts["folds"] * facts["steps"]}
        self._values |= {name: facts.get(name) for name in ("tokens_per_s", "memory_bytes", "eta_s")}

    def _on_chosen(self, facts: dict[str, Any]) -> None:
        if facts["base_won"]:
            best = {"gain": f"{facts['best_gain']:+z.3f}", "stderr": f"{facts['best_stderr']:.3f}"}
            said = BASE_CHOSEN % {"queries": facts["queries"], **best}
            self._note(said if facts["enough"] else TOO_FEW_TO_CHOOSE % {"queries": facts["queries"]})
            return
        values = {name: facts[name] for name in ("queries", "step", "scale")}
        self._note(CHOSEN % {**values, "gain": f"{facts['gain']:+z.3f}", "stderr": f"{facts['stderr']:.3f}"})

    def _on_held_out_pairs(self, facts: dict[str, Any]) -> None:
        self._note(HELD_OUT_PAIRS)

    def _on_gate(self, facts: dict[str, Any]) -> None:
        self._note(GATE)

    def _on_step(self, facts: dict[str, Any]) -> None:
        self._add("loss", facts["step"], facts["loss"])
        names = (
            "step",
            "steps",
            "epoch",
            "learning_rate",
            "tokens",
            "tokens_per_s",
            "rows_per_s",
            "padding",
            "memory_bytes",
            "eta_s",
        )
        self._values |= {name: facts[name] for name in names if name in facts}

    def _on_evaluated(self, facts: dict[str, Any]) -> None:
        name = "log_loss" if "log_loss" in facts else "ndcg"
        self._values.setdefault(name, [])
        self._add(name, facts["step"], facts[name])
        if facts["best"]:
            self._values["best"] = {"step": facts["step"], name: facts[name]}

    def _on_checkpoint(self, facts: dict[str, Any]) -> None:
        if "step" in facts:
            self._values["checkpoint"] = facts["step"]
        else:  # one of the warm start, whose steps are not the training's
            self._values["warm_start"] = {**self._values.get("warm_start", {}), "kept": True}

    def _on_out_of_memory(self, facts: dict[str, Any]) -> None:
        self._note(SMALLER % {"rows": facts["batch_size"], "batches": facts["accumulation"]})

    def _on_note(self, facts: dict[str, Any]) -> None:
        self._note(str(facts.get("text", "")))

    def _on_publishing(self, facts: dict[str, Any]) -> None:
        self._values["eta_s"] = None
        self._note(PUBLISHING)

    def _on_failed(self, facts: dict[str, Any]) -> None:
        self.error = str(facts.get("error", ""))

    def _note(self, text: str) -> None:
        note = stored_json(text if isinstance(text, StoredText) else text[:LONGEST_NOTE])
        if text and note not in self._values["notes"]:
            self._values["notes"] = [*self._values["notes"], note][-MOST_NOTES:]

    def _add(self, name: str, step: int, value: float) -> None:
        points = [point for point in self._values[name] if point[0] < step]
        points.append([step, round(float(value), 6)])
        if len(points) > MOST_POINTS:
            points = [*points[:-1:2], points[-1]]
        self._values[name] = points
