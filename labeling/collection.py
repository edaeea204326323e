"""The texts of a project for judges and retrievers: `records.Collection` on the database.

It gives no access to people's grades, so that no judge can read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from labeling.models import Candidate, Document, ModelGrade, Query
from labeling.records import PointwiseGrade, TextRecord


class ProjectCollection:
    """Texts of one project, read when they are asked for."""

    def __init__(self, project_id: int, annotator_id: int | None = None) -> None:
        self.project_id = project_id
        self.annotator_id = annotator_id

    def documents(self) -> Iterator[TextRecord]:
        rows = Document.objects.filter(project_id=self.project_id).order_by("id").values_list("id", "text")
        for pk, text in rows.iterator(chunk_size=2000):
            yield TextRecord(pk, text)

    def candidates(self, query_id: int) -> Sequence[TextRecord]:
        rows = (
            Candidate.objects.filter(query_id=query_id, query__project_id=self.project_id)
            .order_by("document_id")
            .values_list("document_id", "document__text")
        )
        return [TextRecord(pk, text) for pk, text in rows]

    def query(self, query_id: int) -> TextRecord:
        pk, text = Query.objects.values_list("id", "text").get(pk=query_id, project_id=self.project_id)
        return TextRecord(pk, text)

    def named_documents(self, names: Sequence[str]) -> Mapping[str, TextRecord]:
        rows = Document.objects.filter(project_id=self.project_id, external_id__in=list(names))
        return {name: TextRecord(pk, text) for name, pk, text in rows.values_list("external_id", "id", "text")}

    def named_queries(self, names: Sequence[str]) -> Mapping[str, TextRecord]:
        rows = Query.objects.filter(project_id=self.project_id, external_id__in=list(names))
        return {name: TextRecord(pk, text) for name, pk, text in rows.values_list("external_id", "id", "text")}

    def own_grades(self, most: int) -> list[PointwiseGrade]:
        """Return the latest grades that this judge itself gave, at most `most`."""
        if self.annotator_id is None:
            return []
        rows = ModelGrade.objects.filter(annotator_id=self.annotator_id).order_by("-id")[:most]
        return [
            PointwiseGrade(query, document, value)
            for query, document, value in rows.values_list("candidate__query_id", "candidate__document_id", "value")
        ][::-1]

    def queries(self) -> list[TextRecord]:
        """Yield all queries in id order."""
        rows = Query.objects.filter(project_id=self.project_id).order_by("id").values_list("id", "text")
        return [TextRecord(pk, text) for pk, text in rows]
