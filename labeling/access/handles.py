"""Opaque names of assignments for those who compare: numbers that tell nothing of when, or why, an assignment was made.

An assignment of a gold pair is made when it is given to somebody, so its id is higher than those that were planned before, and
shows which pairs have a known answer. A handle is the id under a keyed permutation of all numbers below 2^52 (a Feistel network),
which a browser's numbers hold exactly.
"""

from __future__ import annotations

import functools
import hashlib

from django.conf import settings

HALF_BITS = 26
HALF = (1 << HALF_BITS) - 1
MOST = 1 << (2 * HALF_BITS)
ROUNDS = 8


def handle_of(assignment_id: int) -> int:
    """The handle of an assignment; raises ValueError for an id that is no number from 0 to 2^52 - 1."""
    _check(assignment_id)
    key = _key(settings.SECRET_KEY)
    left, right = assignment_id >> HALF_BITS, assignment_id & HALF
    for number in range(ROUNDS):
        left, right = right, left ^ _mixed(key, number, right)
    return (left << HALF_BITS) | right


def assignment_of(handle: int) -> int:
    """The id that a handle names, whether there is such an assignment or not; raises ValueError as `handle_of`."""
    _check(handle)
    key = _key(settings.SECRET_KEY)
    left, right = handle >> HALF_BITS, handle & HALF
    for number in reversed(range(ROUNDS)):
        left, right = right ^ _mixed(key, number, left), left
    return (left << HALF_BITS) | right


def _check(number: int) -> None:
    if not 0 <= number < MOST:
        raise ValueError(f"the number is {number}; expected 0 to {MOST - 1}")


def _mixed(key: bytes, number: int, half: int) -> int:
    digest = hashlib.blake2b(half.to_bytes(4), key=key, digest_size=4, salt=bytes([number])).digest()
    return int.from_bytes(digest) & HALF


@functools.lru_cache(maxsize=4)
def _key(secret: str) -> bytes:
    return hashlib.blake2b(secret.encode(), person=b"zelo handles", salt=b"1", digest_size=32).digest()
