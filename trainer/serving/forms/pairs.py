"""Tokenised pairs, and how they are put into passes with little padding. Imports no Django and no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Of the tokens of a pass, at most this share is padding.
MOST_PADDING = 0.05


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """A tokenised pair. `ids` and `types` are token ids and segments; `cut`: the document was truncated."""

    ids: tuple[int, ...]
    types: tuple[int, ...] | None
    cut: bool

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class EncodedRequest:
    """All pairs of one request, in the order of its documents; `query_cut`: the query was truncated."""

    pairs: tuple[EncodedPair, ...]
    query_cut: bool

    @property
    def tokens(self) -> int:
        return sum(len(pair) for pair in self.pairs)


def distinct(pairs: Sequence[EncodedPair]) -> tuple[list[EncodedPair], list[int]]:
    """The pairs without repetitions, and the place of each given pair among them.

    Equal texts then have equal scores: computed twice, they differ in their last digits with the texts beside them.
    """
    places: dict[EncodedPair, int] = {}
    rows = [places.setdefault(pair, len(places)) for pair in pairs]
    return list(places), rows


def batches(lengths: Sequence[int], most_tokens: int, *, pads: bool = True) -> Iterator[list[int]]:
    """Batches of rows, longest first, each within `most_tokens` including padding; `pads`: rows are padded to the longest."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    while order:
        longest = max(1, lengths[order[0]])
        count, tokens = 1, longest
        for row in order[1:]:
            size = (count + 1) * longest if pads else tokens + lengths[row]
            if size > most_tokens or (pads and too_padded(tokens + lengths[row], size)):
                break
            count, tokens = count + 1, tokens + lengths[row]
        yield order[:count]
        order = order[count:]


def too_padded(tokens: int, size: int) -> bool:
    """Whether more than MOST_PADDING of the `size` places of a pass would hold no token."""
    return size - tokens > MOST_PADDING * size
