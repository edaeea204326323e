"""Words of pages and the report for the orders of rerankers by human grades, Elo and LLM grades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils.translation import gettext as _

from scoring.numerics.measures.systems import FEWEST_SYSTEMS
from trainer.evaluation.system_orders import FEWEST_QUERIES, NoSystemOrders, Pair, SystemOrders
from zelo_site.templatetags.figures import count


@dataclass(frozen=True, slots=True)
class OrdersLine:
    """Two references by name; `found` is their agreement, None if `missing` says why there is none."""

    name: str
    found: SystemOrders | None
    missing: str = ""

    @property
    def documents(self) -> str:
        """Return how many documents each reference judges, in its order in the name."""
        if self.found is None:
            return ""
        return " / ".join(map(count, self.found.documents))

    @property
    def models(self) -> str:
        """Return the language models that gave LLM grades."""
        return ", ".join(self.found.models) if self.found else ""


def orders_lines(orders: Sequence[SystemOrders | NoSystemOrders]) -> list[OrdersLine]:
    """Return a line for each pair of references."""
    return [
        OrdersLine(pair_name(each.pair), None, missing_text(each))
        if isinstance(each, NoSystemOrders)
        else OrdersLine(pair_name(each.pair), each)
        for each in orders
    ]


def pair_name(pair: Pair) -> str:
    """Return two references as a heading."""
    names = {
        ("grades", "elo"): _("human grades and Elo"),
        ("grades", "llm_grades"): _("human grades and LLM grades"),
        ("elo", "llm_grades"): _("Elo and LLM grades"),
    }
    return names[pair]


def missing_text(error: NoSystemOrders) -> str:
    """Return what the comparison lacks and what to do."""
    if error.missing == "rerankers":
        return _(
            "Rerankers with both: %(systems)s, on queries: %(queries)s. Evaluate at least %(fewest)s rerankers on %(fewest_queries)s queries."
        ) % {
            "systems": count(error.systems),
            "queries": count(error.queries),
            "fewest": FEWEST_SYSTEMS,
            "fewest_queries": FEWEST_QUERIES,
        }
    reasons = {
        "evaluation": _("Nothing is evaluated on this split yet; start an evaluation first."),
        "grades": _("No human grades on this split. Import grades, freeze a snapshot and evaluate again."),
        "elo": _("No Elo on this split. Judge pairs, freeze a snapshot and evaluate again."),
        "order": _("One of the two gives all rerankers the same mean, which orders nothing. Choose another measure."),
        "llm_grades": _(
            "No LLM grades on this split. Start a run with the judge “grade” on its queries, or import grades of models."
        ),
    }
    return reasons[error.missing]
