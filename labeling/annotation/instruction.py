"""The instruction of a project, and whether a person has read its current text.

The person's annotator stores the hash of the text that they confirmed; after a change they have to read it again.
`zelo_site.pages.annotation.views` shows it, and `labeling.annotation.actions` gives out no pair before it is read.
"""

from __future__ import annotations

import hashlib
from typing import Any

from labeling.access.annotators import get_person
from labeling.models import Annotator, Project


def instruction_hash(project: Project) -> str:
    """SHA-256 of the project's instruction without surrounding white space."""
    return hashlib.sha256(project.instruction.strip().encode()).hexdigest()


def has_read(annotator: Annotator, project: Project) -> bool:
    """Whether this person has confirmed the current instruction."""
    return annotator.instruction_read == instruction_hash(project)


def confirm_read(project: Project, user: Any, *, seen: str) -> bool:
    """Record that `user` has read the instruction with the hash `seen`; False if it has changed since."""
    if seen != instruction_hash(project):
        return False
    Annotator.objects.filter(pk=get_person(project, user).pk).update(instruction_read=seen)
    return True
