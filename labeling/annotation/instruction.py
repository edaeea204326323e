"""What people are told before they compare, and whether they have read it as it stands.

Reading is remembered as the hash of the text on the person's annotator: a changed instruction has to be read again.
Neighbours: `zelo_site.pages.annotation.views` shows it, `labeling.annotation.actions` asks nothing before it has been read.
"""

from __future__ import annotations

import hashlib
from typing import Any

from labeling.access.annotators import get_person
from labeling.models import Annotator, Project


def instruction_hash(project: Project) -> str:
    """SHA-256 of the project's instruction; white space around it does not count."""
    return hashlib.sha256(project.instruction.strip().encode()).hexdigest()


def has_read(annotator: Annotator, project: Project) -> bool:
    """Whether this person has confirmed the instruction as it stands now."""
    return annotator.instruction_read == instruction_hash(project)


def confirm_read(project: Project, user: Any, *, seen: str) -> bool:
    """Note that `user` has read the instruction with the hash `seen`; False where it has been changed since."""
    if seen != instruction_hash(project):
        return False
    Annotator.objects.filter(pk=get_person(project, user).pk).update(instruction_read=seen)
    return True
