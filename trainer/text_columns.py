"""Columns of texts that stay in Arrow's memory until they are read, one text at a time. Imports no Django.

A list of Python strings takes a text's bytes and some fifty more, and pyarrow's table a second time as long as both exist. A million
documents of a snapshot are held once here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, overload

import pyarrow as pa


class TextColumn(Sequence[str]):
    """Texts in order; those that are equal within one part share memory. A slice is a list of strings."""

    def __init__(self, parts: Iterable[pa.Array]) -> None:
        self._parts = [_encoded(part) for part in parts if len(part)]
        self._ends = list(accumulate(len(part) for part in self._parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        place = at + len(self) if at < 0 else at
        if not 0 <= place < len(self):
            raise IndexError(f"text {at} of {len(self)}")
        number = bisect_right(self._ends, place)
        part = self._parts[number]
        return str(part.dictionary[part.indices[place - (self._ends[number] - len(part))].as_py()])

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            words = part.dictionary.to_pylist()
            yield from (words[at] for at in part.indices.to_pylist())

    def strings(self) -> pa.ChunkedArray:
        """The texts as an Arrow column."""
        return pa.chunked_array([part.cast(pa.string()) for part in self._parts], type=pa.string())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return TextColumn, (self._parts,)


def _encoded(part: pa.Array) -> pa.DictionaryArray:
    """The part with each text once; indices point to them. Copied, so that it keeps no larger buffer alive."""
    return part if isinstance(part, pa.DictionaryArray) else part.dictionary_encode()
