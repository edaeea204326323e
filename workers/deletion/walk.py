"""Deletes rows with everything that depends on them, in slices of one short transaction each.

The walk follows the foreign keys of the models, so that a new table needs no entry here: rows that refer to a deleted row
go first, and references that may be empty are cleared. A crash leaves a smaller tree; the walk is then started again and
finds what is left. Rejected: Django's collector and ON DELETE CASCADE, which hold all locks until the last row is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, models, transaction
from django.db.models import QuerySet
from django.db.models.fields.reverse_related import ForeignObjectRel

SLICE = 500
MOST_TRIES = 5

# Called in the transaction that deletes rows of a model, before it deletes them, with their primary keys.
Hook = Callable[[Sequence[Any]], None]


@dataclass
class Walk:
    """One deletion. `hooks`: what else happens to rows of a model; `kept`: primary keys of rows to leave, by model.

    `progress` is called with the number of rows deleted so far, after each slice; it may raise to stop the walk.
    """

    hooks: Mapping[type[models.Model], Hook] = field(default_factory=dict)
    kept: Mapping[type[models.Model], Sequence[Any]] = field(default_factory=dict)
    progress: Callable[[int], None] = lambda done: None
    done: int = 0

    def delete(self, rows: QuerySet[Any]) -> None:
        """Delete the rows and everything that depends on them."""
        kept = self.kept.get(rows.model, ())
        rows = rows.exclude(pk__in=kept) if kept else rows
        rows = rows.order_by("pk")
        rest = rows
        # From the last key on, so that each slice does not read past the deleted rows, and those of others, again.
        while ids := list(rest.values_list("pk", flat=True)[:SLICE]):
            self._delete_slice(rows.model, ids)
            if len(ids) < SLICE:
                break
            rest = rows.filter(pk__gt=ids[-1])

    def _delete_slice(self, model: type[models.Model], ids: Sequence[Any]) -> None:
        """Delete these rows. A row that arrives for one of them meanwhile is deleted in another try."""
        for tries_left in reversed(range(MOST_TRIES)):
            for relation in relations(model):
                self._follow(relation, ids)
            try:
                with transaction.atomic():
                    if model in self.hooks:
                        self.hooks[model](ids)
                    _every(model).filter(pk__in=ids)._raw_delete(using="default")
                break
            except IntegrityError:
                if not tries_left:
                    raise
        self.done += len(ids)
        self.progress(self.done)

    def _follow(self, relation: ForeignObjectRel, ids: Sequence[Any]) -> None:
        """Delete the rows that refer to these, or clear their references where those may be empty."""
        rows = _every(relation.related_model).filter(**{f"{relation.field.name}__in": ids})
        if not clears(relation):
            self.delete(rows)
            return
        while found := list(rows.order_by("pk").values_list("pk", flat=True)[:SLICE]):
            _every(relation.related_model).filter(pk__in=found).update(**{relation.field.name: None})
            if len(found) < SLICE:
                break


def relations(model: type[models.Model]) -> Iterator[ForeignObjectRel]:
    """The foreign keys of other models, and of hidden tables between two models, that lead to `model`."""
    for each in model._meta.get_fields(include_hidden=True):
        if isinstance(each, ForeignObjectRel) and each.auto_created and not each.concrete and not each.many_to_many:
            yield each


def clears(relation: ForeignObjectRel) -> bool:
    """Whether a row stays when the row that it refers to is deleted."""
    return relation.on_delete is models.SET_NULL


def _every(model: Any) -> QuerySet[Any]:
    return QuerySet(model)
