"""Documents that moved between two evaluations, with the ranks that the measures count."""

from __future__ import annotations

import numpy as np

from tests.factories.frozen import a_query
from trainer.evaluation.metrics import measure
from trainer.evaluation.rank_changes import moved_documents
from trainer.evaluation.rankers import RunFile


def test_ranks_of_a_run_are_those_among_all_documents_that_it_names() -> None:
    """d1 is third for the measures, behind two documents that are no candidates, and not first."""
    query = a_query(grades=[1.0, 0.0])
    order = RunFile({"q1": {"x": 9.0, "y": 8.0, "d1": 7.0, "d2": 6.0}})
    (given,) = order.scores([query], lambda done, total: None)
    values = measure([query], [given], "grades", ["mrr"], run=order.beyond([query])).values["mrr"]
    rows = moved_documents(query, np.array([0.2, 0.1]), given, are_ranks=(False, True))
    assert [(row.document_id, row.before, row.after) for row in rows] == [("d1", 1, 3), ("d2", 2, 4)]
    assert values == [1.0 / 3.0]
