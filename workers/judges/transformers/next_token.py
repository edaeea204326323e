"""Log-probabilities of the next token for many token sequences: sorted, batched, prefixes computed once.

The engine of the judge `transformers-local`, without prompts and verdicts. Works with any causal language model of
transformers; the caller imports torch.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Padding = Literal["left", "right"]
LEAST_SHARED = 16  # tokens; a shorter prefix is not worth a separate pass


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence in a batch: the tokens after its prefix, and the index of the prefix (-1: none)."""

    index: int
    suffix: Sequence[int]
    prefix: int = -1


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences that go through the model together: prefixes in one pass, then the rest of every row."""

    prefixes: list[Sequence[int]]
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class NextTokens:
    """`log_probabilities` float32[N, L] on the CPU, NaN if a row has none; the two sets say why."""

    log_probabilities: torch.Tensor
    out_of_memory: frozenset[int]
    out_of_time: frozenset[int]


@dataclass(slots=True)
class _Group:
    """Rows with a common prefix of `shared` tokens; a group of one has no shared prefix."""

    indices: list[int]
    shared: int
    longest: int = field(default=0)


def next_token_log_probabilities(
    model: Any,
    sequences: Sequence[list[int]],
    token_ids: Sequence[int],
    *,
    keys: Sequence[str] | None = None,
    padding: Padding = "left",
    pad_id: int = 0,
    batch_tokens: int = 16384,
    deadline: float = float("inf"),
) -> NextTokens:
    """log P(token | sequence) for each of N sequences and each of L tokens.

    Sequences with equal keys should begin alike, and share one pass over their common prefix; without keys there is no
    sharing. `batch_tokens` limits rows times length, padding included; if memory runs out, batches are halved. No batch
    starts after `deadline` (time.monotonic()).
    """
    import torch

    values = torch.full((len(sequences), len(token_ids)), float("nan"))
    columns = torch.tensor(list(token_ids), device=model.device)
    out_of_memory: set[int] = set()
    out_of_time: set[int] = set()
    waiting = plan_batches(sequences, keys, batch_tokens)[::-1]
    while waiting:
        batch = waiting.pop()
        indices = [row.index for row in batch.rows]
        if time.monotonic() >= deadline:
            out_of_time.update(indices)
            continue
        try:
            with torch.inference_mode():
                logits = _logits(model, batch, padding, pad_id).float()
                values[indices] = (logits[:, columns] - logits.logsumexp(-1, keepdim=True)).cpu()
        except torch.OutOfMemoryError:
            if len(indices) == 1:
                out_of_memory.update(indices)
            else:
                waiting.extend(_halves(batch))
    return NextTokens(values, frozenset(out_of_memory), frozenset(out_of_time))


# --- planning ----------------------------------------------------------------------------


def plan_batches(
    sequences: Sequence[list[int]], keys: Sequence[str] | None, batch_tokens: int, least_shared: int = LEAST_SHARED
) -> list[Batch]:
    """Every sequence in exactly one batch, longest first, so that a batch pads little and memory fails early."""
    sharing: list[_Group] = []
    alone: list[_Group] = []
    for group in _groups(sequences, keys, least_shared):
        (sharing if group.shared else alone).append(group)
    return [*_pack(sequences, sharing, batch_tokens), *_pack(sequences, alone, batch_tokens)]


def _groups(sequences: Sequence[list[int]], keys: Sequence[str] | None, least_shared: int) -> list[_Group]:
    members: dict[object, list[int]] = defaultdict(list)
    for index in range(len(sequences)):
        members[keys[index] if keys is not None else index].append(index)
    groups = []
    for indices in members.values():
        shared = common_prefix([sequences[index] for index in indices]) if len(indices) > 1 else 0
        if shared >= least_shared:
            groups.append(_Group(indices, shared))
        else:
            groups.extend(_Group([index], 0) for index in indices)
    for group in groups:
        group.longest = max(len(sequences[index]) for index in group.indices)
    return sorted(groups, key=lambda group: -group.longest)


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """Length of the common prefix of all sequences, leaving at least one token to each."""
    low, high = min(sequences), max(sequences)  # in lexical order: the common prefix of these two is common to all
    most = min(len(sequence) for sequence in sequences) - 1
    return next((i for i in range(most) if low[i] != high[i]), most)


def _pack(sequences: Sequence[list[int]], groups: list[_Group], batch_tokens: int) -> list[Batch]:
    """Fill batches in order; a group that is too large for one batch repeats its prefix in several."""
    batches: list[Batch] = []
    prefixes: list[Sequence[int]] = []
    rows: list[Row] = []
    longest = 0
    for group in groups:
        number = -1
        for index in group.indices:
            longest = max(longest, group.longest)
            if rows and (len(rows) + 1) * longest > batch_tokens:
                batches.append(Batch(prefixes, rows))
                prefixes, rows, longest, number = [], [], group.longest, -1
            if group.shared and number < 0:
                number = len(prefixes)
                prefixes.append(sequences[index][: group.shared])
            rows.append(Row(index, sequences[index][group.shared :], number))
    return [*batches, Batch(prefixes, rows)] if rows else batches


def _halves(batch: Batch) -> list[Batch]:
    """The batch in two, each with the prefixes that its rows need."""
    middle = len(batch.rows) // 2
    halves = []
    for rows in (batch.rows[:middle], batch.rows[middle:]):
        used = sorted({row.prefix for row in rows} - {-1})
        place = {prefix: new for new, prefix in enumerate(used)}
        renumbered = [Row(row.index, row.suffix, place.get(row.prefix, -1)) for row in rows]
        halves.append(Batch([batch.prefixes[prefix] for prefix in used], renumbered))
    return halves


# --- passes through the model ------------------------------------------------------------


def _logits(model: Any, batch: Batch, padding: Padding, pad_id: int) -> torch.Tensor:
    """Logits [rows, vocabulary] that follow the last real token of every row of the batch."""
    import torch

    ids, mask = _padded([row.suffix for row in batch.rows], padding, pad_id, model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    last = _last_positions(mask)
    cache = None
    if batch.prefixes:
        from transformers import DynamicCache

        prefix_ids, prefix_mask = _padded(batch.prefixes, padding, pad_id, model.device)
        cache = DynamicCache(config=model.config)
        model(
            input_ids=prefix_ids,
            attention_mask=prefix_mask,
            position_ids=(prefix_mask.cumsum(-1) - 1).clamp(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        owner = torch.tensor([row.prefix for row in batch.rows], device=model.device)
        cache.batch_select_indices(owner)
        positions = positions + prefix_mask.sum(-1)[owner, None]  # padding takes no position
        mask = torch.cat([prefix_mask[owner], mask], dim=-1)
    kept = torch.unique(last)
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
        logits_to_keep=kept,
    )
    rows = torch.arange(len(batch.rows), device=model.device)
    logits: torch.Tensor = output.logits[rows, torch.searchsorted(kept, last)]
    return logits


def _last_positions(mask: torch.Tensor) -> torch.Tensor:
    """Index of the last real token of each row, wherever the padding is."""
    import torch

    places = torch.arange(mask.shape[1], device=mask.device)
    return (mask * places).argmax(-1)


def _padded(
    sequences: Sequence[Sequence[int]], padding: Padding, pad_id: int, device: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both int64[rows, longest]; mask is 1 on real tokens."""
    import torch

    longest = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), longest), pad_id)
    mask = torch.zeros((len(sequences), longest), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        start = longest - len(sequence) if padding == "left" else 0
        ids[row, start : start + len(sequence)] = torch.tensor(list(sequence))
        mask[row, start : start + len(sequence)] = 1
    return ids.to(device), mask.to(device)
