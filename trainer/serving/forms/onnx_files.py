"""Rerankers of the BERT family in ONNX Runtime, float32 or int8, and in OpenVINO.

The file is exported where the model is loaded and kept in the cache of the host; only safetensors are published. Both engines
run a pass in the calling thread. Imports no Django; onnxruntime, onnx and openvino are optional.
"""

from __future__ import annotations

import abc
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.serving.forms.pairs import EncodedPair
from trainer.serving.forms.scorers import PRECISIONS, padded
from trainer.serving.forms.unpadded import first_position, head_of, supports

EXACT_FILE, INT8_FILE = "model.onnx", "model-int8.onnx"
OPSET = 17


class NotExportable(RuntimeError):
    """The model has layers that are not exported to ONNX."""


class _FileScorer(abc.ABC):
    """Scores padded pairs with a model in a file."""

    pads = True

    def __init__(self, model: Any, *, form: str) -> None:
        self.form = form
        self._padding = int(model.tokenizer.pad_token_id)

    @property
    def dtype(self) -> str:
        return PRECISIONS.get(self.form, "float32")

    def __call__(self, pairs: Sequence[EncodedPair]) -> list[float]:
        features = padded(pairs, padding=self._padding, left=False)
        features.setdefault("token_type_ids", 0 * features["input_ids"])
        return [float(each) for each in self._run(features).reshape(len(pairs)).tolist()]

    @abc.abstractmethod
    def _run(self, features: dict[str, Any]) -> Any:
        """The logits of a padded batch, an array of one value a pair."""


class OnnxScorer(_FileScorer):
    """ONNX Runtime on one thread; `int8` quantises the weights of all products, and their inputs as they come."""

    def __init__(self, model: Any, folder: Path, *, form: str, int8: bool = False) -> None:
        import onnxruntime

        super().__init__(model, form=form)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = _int8_file(model, folder) if int8 else exported(model, folder)
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def _run(self, features: dict[str, Any]) -> Any:
        return self._session.run(None, features)[0]


class OpenVinoScorer(_FileScorer):
    """OpenVINO in float32 on one thread."""

    def __init__(self, model: Any, folder: Path, *, form: str) -> None:
        import openvino

        super().__init__(model, form=form)
        options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._compiled = openvino.Core().compile_model(str(exported(model, folder)), "CPU", options)

    def _run(self, features: dict[str, Any]) -> Any:
        request = self._compiled.create_infer_request()  # one for each pass: several threads compute at once
        request.infer(features)
        return request.get_output_tensor(0).data


def exported(model: Any, folder: Path) -> Path:
    """The ONNX file of a `CrossEncoder` in the folder, written if it is not there. Raises NotExportable."""
    import torch

    path = folder / EXACT_FILE
    if path.is_file():
        return path
    if not supports(model.model):
        raise NotExportable(f"a {type(model.model).__name__} is not exported to ONNX; only the BERT family is")
    folder.mkdir(parents=True, exist_ok=True)
    sample = torch.ones((2, 8), dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    with tempfile.TemporaryDirectory(dir=folder) as draft, torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of this exporter
        torch.onnx.export(
            _graph(model.model),
            (sample, sample, torch.zeros_like(sample)),
            str(Path(draft) / EXACT_FILE),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "texts", 1: "tokens"} for name in names} | {"logits": {0: "texts"}},
            opset_version=OPSET,
            dynamo=False,  # the newer exporter needs another package
        )
        (Path(draft) / EXACT_FILE).replace(path)
    return path


def _int8_file(model: Any, folder: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path = folder / INT8_FILE
    if not path.is_file():
        source = exported(model, folder)
        with tempfile.TemporaryDirectory(dir=folder) as draft:
            made = Path(draft) / INT8_FILE
            quantize_dynamic(
                source, made, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"]
            )
            made.replace(path)
    return path


def _graph(model: Any) -> Any:
    """The classifier as a module of plain operations, whose trace holds for all lengths."""
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
            own = self.model.base_model.embeddings
            places = (torch.cumsum(mask, 1) - 1).clamp(min=0) + first_position(self.model)
            states = own.word_embeddings(ids) + own.token_type_embeddings(types) + own.position_embeddings(places)
            states = own.LayerNorm(states)
            hidden = (1.0 - mask[:, None, None, :].float()) * -1e9
            for layer in self.model.base_model.encoder.layer:
                states = _after_layer(layer, states, hidden, heads=self.model.config.num_attention_heads)
            logits: torch.Tensor = head_of(self.model)(states[:, 0])
            return logits[:, 0]

    return Graph().eval()


def _after_layer(layer: Any, states: Any, hidden: Any, *, heads: int) -> Any:
    import torch

    own, out = layer.attention.self, layer.attention.output
    size = own.query.out_features // heads

    def split(values: Any) -> Any:
        return values.reshape(values.shape[0], values.shape[1], heads, size).transpose(1, 2)

    queries, keys, values = split(own.query(states)), split(own.key(states)), split(own.value(states))
    weights = torch.softmax(queries @ keys.transpose(2, 3) * size**-0.5 + hidden, dim=-1)
    attended = (weights @ values).transpose(1, 2).reshape(states.shape)
    states = out.LayerNorm(out.dense(attended) + states)
    inner = torch.nn.functional.gelu(layer.intermediate.dense(states))
    return layer.output.LayerNorm(layer.output.dense(inner) + states)
