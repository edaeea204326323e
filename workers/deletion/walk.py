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

from django.db import IntegrityError, connection, models, transaction
from django.db.models import QuerySet
from django.db.models.fields.reverse_related import ForeignObjectRel

# Rows of a table's first slice, and the bounds of the later ones.
SLICE = 200
FEWEST, MOST = 10, 2_000
# The duration of a slice's transaction, during which it holds its locks.
GOAL_S = 0.05
MOST_TRIES = 5
# The number of primary keys that are read at once.
READ = 20_000

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
        # Many slices' keys at once, and from the last key on: finding them may read past deleted rows and those of others.
        while ids := list(rest.values_list("pk", flat=True)[:READ]):
            self._delete_all(rows.model, ids)
            if len(ids) < READ:
                break
            rest = rows.filter(pk__gt=ids[-1])

    def delete_references(self, model: type[models.Model], ids: Sequence[Any]) -> None:
        """Delete the rows that refer to these, which stay, or clear their references."""
        for leaf, rows in self._clear_way(model, ids):
            self._delete_all(leaf, rows)

    def _delete_all(self, model: type[models.Model], ids: Sequence[Any]) -> None:
        start = 0
        while part := ids[start : start + self.slices.size(model)]:
            self._delete_slice(model, part)
            start += len(part)

    def _delete_slice(self, model: type[models.Model], ids: Sequence[Any]) -> None:
        """Delete these rows. A row that arrives for one of them meanwhile is deleted in another try."""
        for tries_left in reversed(range(MOST_TRIES)):
            leaves = self._clear_way(model, ids)
            try:
                with self._transaction(model, len(ids)):
                    if model in self.hooks:
                        self.hooks[model](ids)
                    for each, rows in (*leaves, (model, ids)):
                        _execute(f"DELETE FROM {_table(each)} WHERE {_key(each)} = ANY(%s)", rows)
                break
            except IntegrityError:
                if not tries_left:
                    raise
        self.done += len(ids) + sum(len(rows) for _, rows in leaves)
        self.progress(self.done)

    def _clear_way(self, model: type[models.Model], ids: Sequence[Any]) -> list[tuple[type[models.Model], list[Any]]]:
        """Delete or clear what refers to these rows, but return the few rows that nothing refers to: they go with them."""
        leaves = []
        for relation in relations(model):
            other = relation.related_model
            while found := self._referring(relation, ids):
                if clears(relation):
                    self._clear(relation, found)
                elif len(found) <= self.slices.size(other) and _is_leaf(other) and other not in self.hooks:
                    leaves.append((other, found))
                    break
                else:
                    self._delete_all(other, found)
                if len(found) < READ:
                    break
        return leaves

    def _referring(self, relation: ForeignObjectRel, ids: Sequence[Any]) -> list[Any]:
        """Primary keys of up to READ rows that refer to these, in order."""
        key, column = _key(relation.related_model), connection.ops.quote_name(str(relation.field.column))
        statement = f"SELECT {key} FROM {_table(relation.related_model)} WHERE {column} = ANY(%s)"
        kept = self.kept.get(relation.related_model)
        if kept:
            statement += f" AND {key} <> ALL(%s)"
        return sorted(row[0] for row in _execute(f"{statement} LIMIT {READ}", ids, *([kept] if kept else [])))

    def _clear(self, relation: ForeignObjectRel, ids: Sequence[Any]) -> None:
        model, start = relation.related_model, 0
        while part := ids[start : start + self.slices.size(model)]:
            with self._transaction(model, len(part)):
                QuerySet(model).filter(pk__in=part).update(**{relation.field.name: None})
            start += len(part)

    @contextmanager
    def _transaction(self, model: type[models.Model], rows: int) -> Iterator[None]:
        """A timed transaction that does not wait for the disk while it holds locks: a slice that a crash loses is deleted again."""
        began = time.monotonic()
        with transaction.atomic():
            _execute("SET LOCAL synchronous_commit = off")
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


def _is_leaf(model: type[models.Model]) -> bool:
    return not any(relations(model))


def _table(model: type[models.Model]) -> str:
    return connection.ops.quote_name(model._meta.db_table)


def _key(model: type[models.Model]) -> str:
    return connection.ops.quote_name(str(model._meta.pk.column))


def _execute(statement: str, *values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run a statement with arrays, which cost less than a placeholder for each of a thousand keys."""
    with connection.cursor() as cursor:
        cursor.execute(statement, [list(each) for each in values] or None)
        return cursor.fetchall() if cursor.description else []
