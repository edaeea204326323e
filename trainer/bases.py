"""Finds and checks base models, and loads them as `CrossEncoder`.

Encoders (BERT and relatives) get a head of one label; decoders (Qwen3 and relatives) answer yes or no after a chat
template, and the difference of the two logits is the score. The trainer attaches LoRA to the model from `cross_encoder`,
and `trainer.publishing.export` merges the adapter into the same base. Imports no Django, and torch only to load a model.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from labeling.retrieval.embedder import embedder_location
from labeling.retrieval.model_folders import folder_problem, json_object, modules_of
from labeling.retrieval.model_names import BUNDLED, ModelNotAllowed, check_model

Kind = Literal["encoder", "decoder"]

MINILM = "minilm"
# The bundled weights are those of this commit on the hub, byte for byte.
MINILM_ON_HUB = ("sentence-transformers/all-MiniLM-L6-v2", "1110a243fdf4706b3f48f1d95db1a4f5529b4d41")
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LOGIT_SCORE = "LogitScore"
YES, NO = "yes", "no"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_ENCODER_TARGETS = ("query", "key", "value", "dense")
_DECODER_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# PEFT finds the layers of other encoders by their type.
_ENCODERS = {
    "bert": (_ENCODER_TARGETS, ("classifier",)),
    "electra": (_ENCODER_TARGETS, ("classifier",)),
    "roberta": (_ENCODER_TARGETS, ("classifier",)),
    "xlm-roberta": (_ENCODER_TARGETS, ("classifier",)),
    "camembert": (_ENCODER_TARGETS, ("classifier",)),
    "distilbert": (("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"), ("pre_classifier", "classifier")),
    "mpnet": (("q", "k", "v", "o", "dense"), ("classifier",)),
    "deberta-v2": (("query_proj", "key_proj", "value_proj", "dense"), ("classifier",)),
    "modernbert": (("Wqkv", "Wo", "Wi"), ("head", "classifier")),
}
# Documents cannot inject the template's control tokens: "<|im_end|>" in a document stays text.
_TEXT = "{{ message['content'] | replace('<|', '< |') }}"
_INSTRUCTION = "Does the document answer the query? Reply with one word, yes or no."
# sentence-transformers sends the roles `query` and `document` and adds no generation prompt, so the template holds the
# whole prompt up to the position of the answer.
CHATML_TEMPLATE = (
    "<|im_start|>system\n" + _INSTRUCTION + "<|im_end|>\n<|im_start|>user\n"
    "{% for message in messages %}{% if message['role'] == 'query' %}Query: " + _TEXT + "\n\n"
    "{% elif message['role'] == 'document' %}Document: " + _TEXT + "{% endif %}{% endfor %}"
    "<|im_end|>\n<|im_start|>assistant{{ '\\n' }}"  # a bare newline at a template's end is dropped
)
THINKING_SKIPPED = "<think>\n\n</think>{{ '\\n\\n' }}"
PLAIN_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'query' %}" + _INSTRUCTION + "\n\n"
    "Query: " + _TEXT + "\n\n{% elif message['role'] == 'document' %}Document: " + _TEXT + "{% endif %}{% endfor %}"
    "\n\nAnswer:{{ '\\n' }}"
)


class BaseMissing(FileNotFoundError):
    """The base has no weights at its location."""


class PickleRefused(ValueError):
    """A folder stores its weights as a pickle, which can run any code when it is loaded."""


class UnsupportedBase(ValueError):
    """The folder holds a model that cannot be made into a reranker."""


@dataclass(frozen=True, slots=True)
class Base:
    """A checked base. `ranks_untrained`: its head is trained, so its zero-shot ranking is meaningful.

    `lora_targets` and `saved_modules` are PEFT's defaults: layers to adapt, and modules (a new head) to train fully
    and save with the adapter. `max_length` is in tokens, None if the model has no limit.
    """

    name: str
    folder: Path
    kind: Kind
    model_type: str
    ranks_untrained: bool
    lora_targets: tuple[str, ...]
    saved_modules: tuple[str, ...]
    max_length: int | None


def load_base(name_or_path: str) -> Base:
    """Find and check a base without loading its weights.

    The name is "minilm" (the weights that come with the installation), a folder, or the name of a downloaded model. Raises ModelNotAllowed, BaseMissing, PickleRefused, UnsupportedBase.
    """
    folder = _folder_of(name_or_path)
    _check_weights(folder, name_or_path)
    config = _config_of(folder, name_or_path)
    architecture = (config.get("architectures") or [""])[0]
    model_type = str(config.get("model_type", ""))
    trained_head = architecture.endswith("ForSequenceClassification")
    if trained_head and _labels(config) != 1:
        raise UnsupportedBase(
            f"base {name_or_path!r} has {_labels(config)} labels; expected one relevance score; choose a reranker or a "
            "model without a head"
        )
    targets: tuple[str, ...]
    saved: tuple[str, ...]
    kind: Kind
    if architecture.endswith("ForCausalLM"):
        targets, saved, kind = _DECODER_TARGETS, (), "decoder"
    elif model_type in _ENCODERS:
        (targets, saved), kind = _ENCODERS[model_type], "encoder"
    elif trained_head:
        targets, saved, kind = _DECODER_TARGETS, ("score",), "encoder"
    else:
        raise UnsupportedBase(
            f"base {name_or_path!r} is a {architecture or model_type or 'model of unknown type'}; expected an encoder "
            f"({', '.join(sorted(_ENCODERS))}), a decoder (architecture ...ForCausalLM) or a reranker with one label"
        )
    return Base(
        name=MINILM if name_or_path == BUNDLED else name_or_path,
        folder=folder,
        kind=kind,
        model_type=model_type,
        ranks_untrained=trained_head or kind == "decoder",
        lora_targets=targets,
        saved_modules=saved,
        max_length=_length(config, name_or_path),
    )


def embedder_name(base: str) -> str:
    """The name of a base for `labeling.retrieval.embedder`; its folder may be outside the operator's list."""
    return BUNDLED if base == MINILM else base


def cross_encoder(
    base: Base, *, max_length: int | None = None, seed: int = 0, device: str | None = None, dtype: str = "float32"
) -> Any:
    """The base as a `sentence_transformers.CrossEncoder` with one raw logit per pair; `predict` applies the sigmoid.

    A new head is initialised from `seed` without changing torch's random state. `max_length` (tokens of the pair) is
    limited to the model's maximum. Raises UnsupportedBase.
    """
    import torch
    from sentence_transformers import CrossEncoder

    quiet()
    length = min(filter(None, (max_length, base.max_length)), default=None)
    with torch.random.fork_rng(devices=[]), loading(base):
        torch.manual_seed(seed)
        if _own_modules(base.folder):
            model: Any = CrossEncoder(
                str(base.folder),
                device=device,
                max_length=length,
                local_files_only=True,
                model_kwargs=_model_options(dtype),
                activation_fn=torch.nn.Sigmoid(),
            )
        else:
            modules = _decoder_modules(base, length, dtype) if base.kind == "decoder" else _encoder(base, length, dtype)
            model = CrossEncoder(modules=modules, device=device, activation_fn=torch.nn.Sigmoid())
    if model.num_labels != 1:
        raise UnsupportedBase(f"base {base.name!r} gives {model.num_labels} scores a pair; expected one")
    if model.tokenizer.pad_token_id is None:
        model.tokenizer.pad_token = model.tokenizer.eos_token
    model.model.config.pad_token_id = model.tokenizer.pad_token_id
    return model


@contextlib.contextmanager
def loading(base: Base) -> Iterator[None]:
    """Name the base in whatever error its loading raises, as UnsupportedBase; errors of this module and of memory stay."""
    try:
        yield
    except (BaseMissing, PickleRefused, UnsupportedBase, ModelNotAllowed, MemoryError):
        raise
    except Exception as error:  # files of others fail in many ways
        if "memory" in str(error).lower():
            raise
        said = " ".join(str(error).split())[:300]
        raise UnsupportedBase(
            f"base {base.name!r} cannot be loaded ({type(error).__name__}: {said}); check that all its files are there and belong "
            "together, or choose another base"
        ) from error


def base_checksum(base: Base) -> str:
    """SHA-256, in hex, over the weight files in name order; identifies the base of an adapter."""
    digest = hashlib.sha256()
    for path in sorted(base.folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def base_revision(base: Base) -> str | None:
    """The commit of a base from the hub's cache, the package's version of the bundled one; None for another folder."""
    if base.name == MINILM:
        return importlib.metadata.version(BUNDLED)
    return base.folder.name if base.folder.parent.name == "snapshots" else None


def hub_reference(base: Base) -> tuple[str, str | None]:
    """Name and commit under which another program finds the base on the hub; its own name and no commit for a folder."""
    if base.name == MINILM and base_checksum(base) == MINILM_SHA256:
        return MINILM_ON_HUB
    cache = base.folder.parent.parent.name
    if base.folder.parent.name == "snapshots" and cache.startswith("models--"):
        return cache.removeprefix("models--").replace("--", "/", 1), base.folder.name
    return base.name, base_revision(base)


def quiet() -> None:
    """Turn off progress bars and advice in the logs of servers and jobs."""
    import logging

    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    disable_progress_bar()
    set_verbosity_error()
    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)


def _folder_of(name: str) -> Path:
    if name in (MINILM, BUNDLED):
        return Path(embedder_location(BUNDLED))
    check_model(name)
    folder = Path(name)
    if folder.is_dir():
        return folder
    downloaded = None if folder.is_absolute() or name.startswith(".") else _downloaded(name)
    if downloaded is not None:
        return downloaded
    if folder.is_absolute() or name.startswith("."):
        raise BaseMissing(
            f"base {name!r} is not a folder on this machine; copy the model to the machine that trains, or correct the path"
        )
    raise BaseMissing(
        f"base {name!r} is neither a folder nor among the downloaded models; expected {MINILM!r}, a folder with "
        f"safetensors, or a downloaded model: run `hf download {name}` on the machine that trains"
    )


def _downloaded(name: str) -> Path | None:
    """The snapshot folder of a model in the hub's local cache; training itself never uses the network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def _check_weights(folder: Path, name: str) -> None:
    if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
        raise UnsupportedBase(f"{name!r} is an adapter, not a model; choose its base or the merged model")
    if any(folder.glob("*.safetensors")):
        if problem := folder_problem(folder):
            raise BaseMissing(f"base {name!r} {problem}")
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise PickleRefused(
            f"base {name!r} stores its weights in {pickles[0]}, a pickle, which can run any code when it is loaded; expected "
            "*.safetensors; take a revision that has them, or convert the model on an isolated machine"
        )
    raise BaseMissing(
        f"base {name!r} has no *.safetensors in {folder}; download all its files, or choose the folder with the weights"
    )


def _config_of(folder: Path, name: str) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise BaseMissing(f"base {name!r} has no config.json in {folder}; download all files of the model") from None
    except ValueError as error:
        raise UnsupportedBase(f"base {name!r}: its config.json cannot be read ({error}); download it again") from error
    if not isinstance(config, dict):
        raise UnsupportedBase(f"base {name!r}: its config.json holds no JSON object; download it again")
    if "auto_map" in config:
        raise UnsupportedBase(
            f"base {name!r} needs its own code, which is never run; choose a model that transformers supports"
        )
    return config


def _length(config: dict[str, Any], name: str) -> int | None:
    """The most tokens that the model reads, None without a limit."""
    length = config.get("max_position_embeddings")
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise UnsupportedBase(
            f"base {name!r}: max_position_embeddings is {length!r} in its config.json; expected a number of tokens; download it again"
        )
    return length


def _labels(config: dict[str, Any]) -> int:
    """Number of labels of a saved classifier; transformers omits its default, two."""
    return len(config["id2label"]) if "id2label" in config else int(config.get("num_labels", 2))


def _own_modules(folder: Path) -> bool:
    """Whether a CrossEncoder saved the folder, so that its modules.json describes the scoring.

    Without modules.json the tokens of a merged decoder would be guessed, and an embedder's modules do not rank.
    """
    modules = modules_of(folder)
    if not modules:
        return False
    if json_object(folder / "config_sentence_transformers.json").get("model_type") == "CrossEncoder":
        return True
    return any(str(module.get("type", "")).endswith(LOGIT_SCORE) for module in modules)


def _model_options(dtype: str) -> dict[str, Any]:
    return {"use_safetensors": True, "dtype": dtype, "attn_implementation": "sdpa", "local_files_only": True}


def _encoder(base: Base, max_length: int | None, dtype: str) -> list[Any]:
    from sentence_transformers.base.modules import Transformer

    return [
        Transformer(
            str(base.folder),
            transformer_task="sequence-classification",
            model_kwargs=_model_options(dtype),
            config_kwargs={"num_labels": 1, "local_files_only": True},
            processor_kwargs=_processor_options(max_length),
        )
    ]


def _decoder_modules(base: Base, max_length: int | None, dtype: str) -> list[Any]:
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base.folder), local_files_only=True)
    transformer = Transformer(
        str(base.folder),
        transformer_task="text-generation",
        model_kwargs=_model_options(dtype),
        config_kwargs={"local_files_only": True},
        processor_kwargs=_processor_options(max_length) | {"chat_template": chat_template(tokenizer)},
    )
    yes, no = (_answer_token(tokenizer, word, base) for word in (YES, NO))
    return [transformer, LogitScore(true_token_id=yes, false_token_id=no)]


def _processor_options(max_length: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {"local_files_only": True}
    return options if max_length is None else options | {"model_max_length": max_length}


def chat_template(tokenizer: Any) -> str:
    """The tokenizer's own template if it renders the roles query and document, otherwise one of ours."""
    own = tokenizer.chat_template
    if isinstance(own, str) and _carries_pair(tokenizer):
        return own
    vocabulary = tokenizer.get_vocab()
    if "<|im_start|>" not in vocabulary:
        return PLAIN_TEMPLATE
    thinks = "<think>" in vocabulary
    return CHATML_TEMPLATE + (THINKING_SKIPPED if thinks else "")


def _carries_pair(tokenizer: Any) -> bool:
    """Whether both texts reach the prompt under the two roles, and the template knows the roles rather than printing them."""
    messages = [{"role": "query", "content": "q7Zk"}, {"role": "document", "content": "d4Xw"}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
    except Exception:  # templates raise any exception, for instance on unknown roles
        return False
    return "q7Zk" in text and "d4Xw" in text and "'query'" in tokenizer.chat_template.replace('"', "'")


def _answer_token(tokenizer: Any, word: str, base: Base) -> int:
    """The single token of the answer. Raises UnsupportedBase."""
    ids = tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise UnsupportedBase(
            f"base {base.name!r}: its tokenizer has no single token for {word!r}, so the answer cannot be read; "
            "choose another decoder"
        )
    return int(ids[0])
