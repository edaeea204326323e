"""Ties, agreement and flips: the one definition, the same in numpy and in the database."""

from __future__ import annotations

import numpy as np
import pytest
from django.db import connection

from scoring.numerics.measures.sides import SAME_SQL, SIDE_SQL, agreement, by_order, flips, side

PREFERENCES = np.array([0.0, 0.2, 0.4, 0.44, 0.45, 0.46, 0.5, 0.54, 0.55, 0.56, 0.8, 1.0])


def test_sides_and_ties() -> None:
    assert side(PREFERENCES).tolist() == [-1, -1, -1, -1, 0, 0, 0, 0, 0, 1, 1, 1]
    assert np.isnan(side(np.array([np.nan]))).all()


def test_documents_exchanged_exchange_the_sides() -> None:
    hundredths = np.arange(101) / 100
    means = (hundredths[:, None] + hundredths[None, :]).ravel() / 2
    for preference in (hundredths, means):
        assert np.array_equal(side(1.0 - preference), -side(preference))
    assert side(np.array([0.45, 0.55, (0.4 + 0.5) / 2, (0.5 + 0.6) / 2])).tolist() == [0, 0, 0, 0]


def test_two_ties_agree_and_a_tie_against_a_side_is_half() -> None:
    first, second = np.array([0.5, 0.5, 0.9, 0.1, np.nan]), np.array([0.52, 0.9, 0.8, 0.9, 0.9])
    same = agreement(first, second)
    assert (same.hits, same.count, same.value) == (2.5, 4, 0.625)
    assert agreement(first, second) == agreement(second, first) == agreement(1 - first, 1 - second)


def test_flips_are_what_agreement_leaves() -> None:
    in_order, turned = np.array([0.9, 0.9, 0.6, np.nan]), np.array([0.2, 0.8, 0.5, 0.5])
    assert (flips(in_order, turned).hits, flips(in_order, turned).count) == (1.5, 3)


def test_answers_are_laid_out_by_order() -> None:
    pair, swapped = np.array([7, 7, 9]), np.array([True, False, True])
    in_order, turned = by_order(pair, swapped, np.array([0.1, 0.2, 0.3]))
    assert np.array_equal(in_order, [0.2, np.nan], equal_nan=True)
    assert np.array_equal(turned, [0.1, 0.3])


@pytest.mark.django_db
def test_the_database_counts_as_numpy_does() -> None:
    grid = [(float(p), float(q)) for p in PREFERENCES for q in PREFERENCES]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {SIDE_SQL.format('p')}, {SAME_SQL.format('p', 'q')} "
            "FROM unnest(%s::float8[], %s::float8[]) WITH ORDINALITY AS pairs (p, q, n) ORDER BY n",
            [[p for p, _ in grid], [q for _, q in grid]],
        )
        rows = np.array(cursor.fetchall(), dtype=np.float64)
    p, q = np.array(grid).T
    assert np.array_equal(rows[:, 0], side(p))
    assert rows[:, 1].tolist() == [agreement(p[at : at + 1], q[at : at + 1]).hits for at in range(len(grid))]
