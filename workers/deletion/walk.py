"""Deletes rows with everything that depends on them, in slices of one short transaction each.

A slice has as many rows as its table lets go within a twentieth of a second, so that locks are short on a busy machine too.

The walk follows the foreign keys of the models, so that a new table needs no entry here: rows that refer to a deleted row
go first, and references that may be empty are cleared. A crash leaves a smaller tree; the walk is then started again and
finds what is left. Rejected: Django's collector and ON DELETE CASCADE, which hold all locks until the last row is gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db import IntegrityError, models, transaction
from django.db.models import QuerySet
from django.db.models.fields.reverse_related import ForeignObjectRel

# Rows of a table's first slice, and the bounds of the later ones.
SLICE = 200
FEWEST, MOST = 10, 2_000
# How long a slice's transaction should take, which is how long it holds its locks.
GOAL_S = 0.05
MOST_TRIES = 5

# Called in the transaction that deletes rows of a model, before it deletes them, with their primary keys.
Hook = Callable[[Sequence[Any]], None]


class Slices:
    """The number of rows of each table's next slice, from how long its last ones took. `longest_s` is that of any."""

    def __init__(self) -> None:
        self._sizes: dict[type[models.Model], int] = {}
        self.longest_s = 0.0

    def size(self, model: type[models.Model]) -> int:
        return self._sizes.get(model, SLICE)

    def took(self, model: type[models.Model], rows: int, seconds: float) -> None:
        """Note a transaction. Slices at most double, and shrink at once, as the machine gets busier or the rows larger."""
        self.longest_s = max(self.longest_s, seconds)
        if seconds > GOAL_S or rows >= self.size(model):
            fitting = int(rows * min(2.0, GOAL_S / max(seconds, 1e-6)))
            self._sizes[model] = min(max(fitting, FEWEST), MOST)


@dataclass
class Walk:
    """One deletion. `hooks`: what else happens to rows of a model; `kept`: primary keys of rows to leave, by model.

    `progress` is called with the number of rows deleted so far, after each slice; it may raise to stop the walk.
    """

    hooks: Mapping[type[models.Model], Hook] = field(default_factory=dict)
    kept: Mapping[type[models.Model], Sequence[Any]] = field(default_factory=dict)
    progress: Callable[[int], None] = lambda done: None
    done: int = 0
    slices: Slices = field(default_factory=Slices)

    def delete(self, rows: QuerySet[Any]) -> None:
        """Delete the rows and everything that depends on them."""
        kept = self.kept.get(rows.model, ())
        rows = rows.exclude(pk__in=kept) if kept else rows
        rows = rows.order_by("pk")
        rest = rows
        # From the last key on, so that each slice does not read past the deleted rows, and those of others, again.
        while ids := list(rest.values_list("pk", flat=True)[: (size := self.slices.size(rows.model))]):
            self._delete_slice(rows.model, ids)
            if len(ids) < size:
                break
            rest = rows.filter(pk__gt=ids[-1])

    def delete_references(self, model: type[models.Model], ids: Sequence[Any]) -> None:
        """Delete the rows that refer to these, which stay, or clear their references."""
        for relation in relations(model):
            self._follow(relation, ids)

    def _delete_slice(self, model: type[models.Model], ids: Sequence[Any]) -> None:
        """Delete these rows. A row that arrives for one of them meanwhile is deleted in another try."""
        for tries_left in reversed(range(MOST_TRIES)):
            self.delete_references(model, ids)
            try:
                with self._timed(model, len(ids)), transaction.atomic():
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
        model = relation.related_model
        while found := list(rows.order_by("pk").values_list("pk", flat=True)[: (size := self.slices.size(model))]):
            with self._timed(model, len(found)):
                _every(model).filter(pk__in=found).update(**{relation.field.name: None})
            if len(found) < size:
                break

    @contextmanager
    def _timed(self, model: type[models.Model], rows: int) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.slices.took(model, rows, time.monotonic() - began)


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
