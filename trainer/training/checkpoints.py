"""Checkpoints for exact resumption of training: weights, optimizer, schedule, random states, position in the data.

The format is our own: tensors in safetensors, everything else in JSON, because transformers' checkpoints contain pickles.
A checkpoint is written to a temporary folder and then moved atomically. Imports no Django.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
KEPT = 2


class PickleRefused(ValueError):
    """The folder of a checkpoint holds a file that may be a pickle."""


class CheckpointBroken(ValueError):
    """A checkpoint cannot be read or does not fit the training."""


def _broken(checkpoint: Path, problem: str) -> CheckpointBroken:
    return CheckpointBroken(
        f"checkpoint {checkpoint} {problem}; remove this folder and resume: training continues from the checkpoint before it "
        "or starts again"
    )


def last_checkpoint(folder: Path) -> Path | None:
    """The latest complete checkpoint, or None."""
    found = sorted(folder.glob("step-*/" + STATE), key=lambda path: _number(path.parent))
    return found[-1].parent if found else None


def _number(folder: Path) -> int:
    match = re.fullmatch(r"step-(\d+)", folder.name)
    return int(match[1]) if match else -1


def read_state(checkpoint: Path) -> dict[str, Any]:
    """The `state` that `finish_checkpoint` stored. Raises PickleRefused, CheckpointBroken."""
    for path in checkpoint.iterdir():
        if path.suffix not in {".safetensors", ".json"}:
            raise PickleRefused(
                f"{path} is not part of a checkpoint; expected only *.safetensors and *.json, which cannot run code: remove it"
            )
    return _json(checkpoint, STATE)


def _json(checkpoint: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((checkpoint / name).read_text())
    except (OSError, ValueError) as error:
        raise _broken(checkpoint, f"has no readable {name} ({error})") from error
    if not isinstance(found, dict):
        raise _broken(checkpoint, f"has a {name} that holds no JSON object")
    return found


def _tensors(checkpoint: Path, name: str) -> dict[str, torch.Tensor]:
    """The tensors of a file. Raises CheckpointBroken, also if a number is NaN or infinite."""
    try:
        found = load_file(str(checkpoint / name))
    except (OSError, SafetensorError) as error:
        raise _broken(checkpoint, f"has no readable {name} ({error})") from error
    if not is_finite(found):
        raise _broken(checkpoint, f"holds a number in {name} that is not finite")
    return found


def is_finite(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether all numbers are finite."""
    return all(bool(torch.isfinite(each).all()) for each in tensors.values())


def begin_checkpoint(folder: Path, step: int) -> Path:
    """Create an empty temporary folder for checkpoint `step`, into which all processes write."""
    draft = folder / f".step-{step}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    return draft


def finish_checkpoint(
    draft: Path, *, model: torch.nn.Module, optimizer: Any, scheduler: Any, state: Mapping[str, Any]
) -> Path:
    """Write the shared state, move the checkpoint to its place atomically, and delete older ones."""
    tensors, described = _optimizer_state(optimizer)
    save_file(trainable(model), str(draft / WEIGHTS))
    save_file(tensors, str(draft / OPTIMIZER))
    written = {**state, "optimizer": described, "scheduler": scheduler.state_dict()}
    (draft / STATE).write_text(json.dumps(written, allow_nan=False))
    _flush(draft)
    target = draft.with_name(draft.name.removeprefix("."))
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    for old in sorted(draft.parent.glob("step-*"), key=_number)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _flush(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def trainable(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights that training changes, by name."""
    return {
        name: weights.detach().cpu().contiguous() for name, weights in model.named_parameters() if weights.requires_grad
    }


def restore_weights(checkpoint: Path, model: torch.nn.Module) -> None:
    """Load the stored weights into the model, which must have the same names. Raises CheckpointBroken."""
    stored = _tensors(checkpoint, WEIGHTS)
    weights = {name: each for name, each in model.named_parameters() if each.requires_grad}
    if stored.keys() != weights.keys():
        odd = sorted(stored.keys() ^ weights.keys())[0]
        raise CheckpointBroken(f"checkpoint {checkpoint} and the model differ in {odd!r}; start a new training")
    with torch.no_grad():
        for name, each in weights.items():
            each.copy_(stored[name])


def restore_optimizer(checkpoint: Path, optimizer: Any, scheduler: Any) -> None:
    """Restore moments, step counts, learning rates and the position of the schedule."""
    state = read_state(checkpoint)
    tensors = _tensors(checkpoint, OPTIMIZER)
    by_parameter: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        by_parameter.setdefault(int(number), {})[name] = value
    groups = [
        {key: tuple(value) if key == "betas" else value for key, value in group.items()}
        for group in state["optimizer"]["groups"]
    ]
    optimizer.load_state_dict({"state": by_parameter, "param_groups": groups})
    scheduler.load_state_dict(state["scheduler"])


def _optimizer_state(optimizer: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    state = optimizer.state_dict()
    tensors = {
        f"{number}.{name}": value.detach().cpu().contiguous()
        for number, values in state["state"].items()
        for name, value in values.items()
    }
    return tensors, {"groups": state["param_groups"]}


# --- random numbers ----------------------------------------------------------------------


def write_random_state(checkpoint: Path, process: int) -> None:
    """Store the state of every random generator of this process in the checkpoint."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    tensors = {"torch": torch.random.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.random.get_rng_state()
    save_file(tensors, str(checkpoint / f"random-{process}.safetensors"))
    numpy_state = [str(name), [int(each) for each in keys], int(position), int(has_gauss), float(cached)]
    python_state = [version, list(words), gauss]
    (checkpoint / f"random-{process}.json").write_text(json.dumps({"python": python_state, "numpy": numpy_state}))


def restore_random_state(checkpoint: Path, process: int) -> None:
    """Restore the state of every random generator."""
    state = _json(checkpoint, f"random-{process}.json")
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    tensors = _tensors(checkpoint, f"random-{process}.safetensors")
    torch.random.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.random.set_rng_state(tensors["cuda"])
