"""Puts the instruction of a request before its query, as the student was trained. Imports no Django."""

from __future__ import annotations

from labeling.retrieval.query_instruction import with_instruction
from trainer.instructions import InstructionTooLong, check_instruction
from trainer.serving.protocols import RerankRefused
from trainer.serving.published import LoadedModel

NOT_TRAINED = "the model was not trained with instructions, so the instruction may not help"


def told_query(model: LoadedModel, query: str, instruction: str) -> str:
    """The text to encode as query. Raises RerankRefused if the instruction leaves no room for the query."""
    if not instruction.strip():
        return query
    try:
        check_instruction(model.count_tokens(instruction), longest=model.query_tokens, what=f"model {model.name!r}")
    except InstructionTooLong as error:
        raise RerankRefused(422, str(error)) from error
    return with_instruction(query, instruction)


def warnings_of(model: LoadedModel, instruction: str) -> tuple[str, ...]:
    """A warning where an instruction was sent to a model that was trained without any."""
    return (NOT_TRAINED,) if instruction.strip() and not model.reads_instruction else ()
