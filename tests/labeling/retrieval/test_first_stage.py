"""First-stage ranks of lists that were imported without any."""

from __future__ import annotations

import pytest

from labeling.models import Candidate, Document, Query
from labeling.projects import create_project
from labeling.retrieval.candidates import rank_candidates

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("ids", [["d1", "d2", "d3"], ["d3", "d1", "d2"]])
def test_equal_scores_rank_by_document_id_descending_whatever_the_order_of_the_import(ids: list[str]) -> None:
    project = create_project("ties")
    query = Query.objects.create(project=project, external_id="q", text="carp in ponds")
    for name in [*ids, "best"]:
        text = "carp in ponds" if name == "best" else "carp and bread"
        document = Document.objects.create(project=project, external_id=name, text=text)
        Candidate.objects.create(query=query, document=document)
    assert rank_candidates(project) == 4
    ranked = query.candidates.order_by("first_stage_rank").values_list("document__external_id", flat=True)
    assert list(ranked) == ["best", "d3", "d2", "d1"]
