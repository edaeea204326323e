"""The forms in which a reranker can run on a CPU: their names, whether they are there, and how each is made.

A form is the published sequence-classification model in another arithmetic or engine. `trainer.serving.forms.choice` times
and checks them. Imports no Django, and torch only when it is called.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeling.retrieval.precision import has_bfloat16
from trainer.serving.forms import onnx_files
from trainer.serving.forms.packed_linear import Arithmetic, packing_pays, replace_linears
from trainer.serving.forms.scorers import PaddedScorer, RefinedScorer, Scorer, UnpaddedScorer
from trainer.serving.forms.unpadded import supports

FP32, PACKED, BF16, REFINED = "fp32", "packed", "bf16", "bf16-refined"
ONNX, ONNX_INT8, OPENVINO = "onnx", "onnx-int8", "openvino"


class NotSupported(RuntimeError):
    """The model has layers that the form does not compute."""


@dataclass(frozen=True, slots=True)
class Form:
    """One form. `missing` returns why it cannot run here, or an empty text; `make` the scorer of a loaded `CrossEncoder`.

    `make(model, folder)`: `folder` keeps files that are made for the form, for the next start. `own_threads`: the engine
    computes in threads of its own; `exports`: the model is written to a file for it first.
    """

    name: str
    missing: Callable[[], str]
    make: Callable[[Any, Path], Scorer]
    own_threads: bool = False
    exports: bool = False


def forms() -> tuple[Form, ...]:
    """All forms, the exact one first."""
    return (
        Form(FP32, _nothing, lambda model, folder: torch_scorer(model, FP32, "fp32")),
        Form(PACKED, _no_gain, lambda model, folder: torch_scorer(model, PACKED, "packed")),
        Form(BF16, _no_bfloat16, lambda model, folder: torch_scorer(model, BF16, "bf16")),
        Form(REFINED, _no_bfloat16, lambda model, folder: _refined(model)),
        Form(ONNX, _no_onnx, lambda model, folder: onnx_files.OnnxScorer(model, folder, form=ONNX), exports=True),
        Form(
            ONNX_INT8,
            _no_onnx,
            lambda model, folder: onnx_files.OnnxScorer(model, folder, form=ONNX_INT8, int8=True),
            exports=True,
        ),
        Form(
            OPENVINO,
            _no_openvino,
            lambda model, folder: onnx_files.OpenVinoScorer(model, folder, form=OPENVINO),
            own_threads=True,
            exports=True,
        ),
    )


def form_called(name: str) -> Form:
    """The form of that name. Raises ValueError."""
    found = next((each for each in forms() if each.name == name), None)
    if found is None:
        raise ValueError(f"form is {name!r}; expected one of {', '.join(each.name for each in forms())}")
    return found


def default_scorer(model: Any) -> Scorer:
    """The exact scorer of a `CrossEncoder` on its device, with packed layers on a CPU where they are faster."""
    own = next(model.parameters())
    if own.device.type != "cpu" or str(own.dtype) != "torch.float32":
        return PaddedScorer(model, form=FP32)
    return torch_scorer(model, PACKED, "packed") if packing_pays() else torch_scorer(model, FP32, "fp32")


def torch_scorer(model: Any, form: str, arithmetic: Arithmetic) -> Scorer:
    """A scorer by torch: without padding for the BERT family, else the model's own code with other linear layers."""
    if supports(model.model):
        return UnpaddedScorer(model.model, arithmetic, form=form)
    if arithmetic != "fp32":
        model = copy.deepcopy(model)  # the exact weights stay, for other forms; `release` drops them
        replace_linears(model, arithmetic)
    return PaddedScorer(model, form=form)


def _refined(model: Any) -> Scorer:
    if not supports(model.model):
        raise NotSupported(f"a {type(model.model).__name__} is not refined; only the BERT family is")
    return RefinedScorer(model.model, "packed" if packing_pays() else "fp32", form=REFINED)


def _nothing() -> str:
    return ""


def _no_gain() -> str:
    return "" if packing_pays() else "oneDNN's products in float32 are not faster than torch's own here"


def _no_bfloat16() -> str:
    return "" if has_bfloat16() else "the processor does not multiply bfloat16"


def _no_onnx() -> str:
    missing = [name for name in ("onnxruntime", "onnx") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} is not installed; install zelo[onnx]" if missing else ""


def _no_openvino() -> str:
    missing = [name for name in ("openvino", "onnx") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} is not installed" if missing else ""
