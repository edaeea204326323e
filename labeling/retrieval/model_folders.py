"""Checks the files of a model's folder before anything loads it. Imports no Django, and no torch.

transformers makes an empty tokenizer for a folder without a vocabulary, and the model then reads every text as unknown tokens: it
answers, and its answers mean nothing. Weights that a copy has cut off, or that git has left as pointers, fail with the error of a parser.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "tekken.json")
_VOCABULARY_SUFFIXES = (".model", ".tiktoken")
_WITHOUT_VOCABULARY = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
_INDEX = "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"


class FolderIncomplete(ValueError):
    """A folder lacks files of its model, or has damaged ones."""


def check_folder(name: str) -> None:
    """Raise FolderIncomplete for a model's folder with a `folder_problem`; names of the hub are not checked."""
    folder = Path(name)
    if folder.is_dir() and (problem := folder_problem(folder)):
        raise FolderIncomplete(f"model {name!r} {problem}")


def folder_problem(folder: Path) -> str:
    """The fault of the files of a model of transformers, and what to do; "" where there is none."""
    return weights_problem(folder) or tokenizer_problem(folder)


def tokenizer_problem(folder: Path) -> str:
    """Whether the folder has a model and no vocabulary."""
    if not (folder / "config.json").is_file():  # its parts have folders of their own
        return ""
    if any(path.name in _VOCABULARIES or path.suffix in _VOCABULARY_SUFFIXES for path in folder.iterdir()):
        return ""
    if json_object(folder / "tokenizer_config.json").get("tokenizer_class") in _WITHOUT_VOCABULARY:
        return ""
    return f"has no tokenizer in {folder}, such as tokenizer.json or vocab.txt; download all files of the model"


def weights_problem(folder: Path) -> str:
    """Whether a file of weights in safetensors is missing or cannot be read."""
    from safetensors import SafetensorError, safe_open

    listed = json_object(folder / _INDEX).get("weight_map")
    parts = {str(each) for each in listed.values()} if isinstance(listed, dict) else set()
    missing = sorted(name for name in parts if not (folder / name).is_file())
    if missing:
        return f"has no {missing[0]}, which its {_INDEX} lists; download all files of the model"
    for path in sorted(folder.glob("*.safetensors")):
        if _begins_as_pointer(path):
            return f"has a pointer of Git LFS in the place of {path.name}; run `git lfs pull` in {folder}, or download the model"
        try:
            with safe_open(str(path), framework="numpy"):
                pass
        except SafetensorError as error:
            return f"has a {path.name} that cannot be read ({error}); download it again"
    return ""


def modules_of(folder: Path) -> list[dict[str, Any]]:
    """The modules of a model of sentence-transformers; none where its modules.json is missing or no list of modules."""
    try:
        found = json.loads((folder / "modules.json").read_text())
    except (FileNotFoundError, ValueError):
        return []
    whole = isinstance(found, list) and all(isinstance(each, dict) for each in found)
    return found if whole else []


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where the file is missing or holds none."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _begins_as_pointer(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(_POINTER)) == _POINTER
