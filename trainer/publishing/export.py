"""Publishes a trained adapter as three artefacts: adapter, merged model, sequence-classification form. All or nothing.

It writes them in fp32 to a temporary folder, reads them back and compares their logits with base + adapter. Only then it
writes the manifest and moves the folder to its place. The training process calls it; `trainer.serving.loading` loads the
artefacts. Imports no Django, and torch only while publishing.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import itertools
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.bases import Base, base_checksum, base_revision, cross_encoder, hub_reference, load_base
from trainer.publishing.manifests import (
    ADAPTER,
    ARTEFACTS,
    CROSS_ENCODER,
    MANIFEST,
    MERGED,
    SEQUENCE_CLASSIFICATION,
    file_checksum,
    read_manifest,
    write_manifest,
)
from trainer.publishing.model_cards import ModelCard, render_card

__all__ = ["AdapterBroken", "ModelCard", "NotEnoughDisk", "ParityFailed", "Published", "publish"]

TOLERANCE = 1e-4
SIGMOID = "torch.nn.modules.activation.Sigmoid"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_BYTES_A_WEIGHT = 4
# Texts of different lengths, so that every batch is padded; the run adds its own texts.
_PROBE = (
    ("how do fish breathe", "Gills take oxygen from the water."),
    ("how do fish breathe", "A bakery opens before dawn. " * 12),
    ("bread", "Yeast makes the dough rise; the oven does the rest."),
    ("what is the boiling point of water at high altitude, and why is it lower there", "It falls with the pressure."),
    ("price", "x"),
    ("tax law", "Whoever is resident owes tax on the income of the whole world. " * 4),
)


class ParityFailed(ValueError):
    """An artefact scores differently from base + adapter, so nothing was published."""


class AdapterBroken(ValueError):
    """The folder of the adapter is incomplete or belongs to another base."""


class NotEnoughDisk(OSError):
    """The disk has too little free space for the artefacts."""


@dataclass(frozen=True, slots=True)
class Published:
    """The published `folder`; `checksum` is the manifest's SHA-256, `largest_difference` in logits over all artefacts."""

    folder: Path
    manifest: Mapping[str, Any]
    checksum: str
    largest_difference: float


def publish(
    workspace_adapter: Path,
    *,
    base: str,
    out: Path,
    card: ModelCard,
    probe: Sequence[tuple[str, str]] = (),
    max_length: int | None = None,
    temperature: float = 1.0,
    more: Mapping[str, Any] | None = None,
    check: Callable[[Path], Mapping[str, Any]] | None = None,
) -> Published:
    """Write, check and move into place the three artefacts of an adapter; replaces an earlier `out`.

    `check` sees the finished artefacts and returns further facts of the manifest. `probe` are further pairs of query and document to compare all artefacts on. The score is logit / `temperature` in all
    artefacts except the bare adapter; `more` adds facts of the manifest. Raises AdapterBroken, ParityFailed, NotEnoughDisk, and the errors of `load_base`.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}; expected a positive number")
    found = load_base(base)
    _check_adapter(workspace_adapter, found)
    out.parent.mkdir(parents=True, exist_ok=True)
    check_disk(found, out.parent)
    pairs = [*_PROBE, *((query, document) for query, document in probe)]
    with draft_beside(out) as draft:
        expected = _write_artefacts(
            draft, adapter=workspace_adapter, base=found, pairs=pairs, max_length=max_length, temperature=temperature
        )
        parity = {
            artefact: _compare(draft / artefact, pairs=pairs, expected=expected, sides=sides)
            for artefact, sides in _compared(found)
        }
        facts = {
            "form": CROSS_ENCODER,
            "base": facts_of_base(found),
            "max_length": max_length or found.max_length,
            "dtype": "float32",
            "temperature": temperature,
            "parity": {"pairs": len(pairs), "tolerance": TOLERANCE, "largest_difference": parity},
            "adapter_sha256": file_checksum(draft / ADAPTER / ADAPTER_WEIGHTS),
            **(more or {}),
            **(check(draft) if check else {}),
        }
        write_down(draft, base=found, card=card, artefacts=ARTEFACTS, facts=facts)
        move_into_place(draft, out)
    return published_at(out, largest_difference=max(parity.values()))


MADE_WITH = ("torch", "transformers", "peft", "sentence-transformers", "safetensors")


def check_files(adapter: Path) -> None:
    """Raise AdapterBroken unless the folder holds the files of a PEFT adapter."""
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if not (adapter / name).is_file():
            raise AdapterBroken(f"the adapter's folder {adapter} has no {name}; expected a PEFT adapter in safetensors")


def facts_of_base(base: Base) -> dict[str, Any]:
    """The facts about the base that a manifest states."""
    return {
        "name": base.name,
        "kind": base.kind,
        "model_type": base.model_type,
        "revision": base_revision(base),
        "hub": "@".join(filter(None, hub_reference(base))),
        "sha256": base_checksum(base),
    }


def write_down(draft: Path, *, base: Base, card: ModelCard, artefacts: Sequence[str], facts: Mapping[str, Any]) -> None:
    """Write the card beside each artefact, and the manifest of the draft."""
    for artefact in artefacts:
        text = render_card(card, artefact=artefact, base=hub_reference(base)[0], facts=facts)
        (draft / artefact / "README.md").write_text(text)
    about = {
        **facts,
        "card": card.as_dict(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "made_with": {name: importlib.metadata.version(name) for name in MADE_WITH},
    }
    write_manifest(draft, about)


def published_at(folder: Path, *, largest_difference: float) -> Published:
    """The artefacts that were moved to this folder."""
    return Published(folder, read_manifest(folder), file_checksum(folder / MANIFEST), largest_difference)


def _check_adapter(folder: Path, base: Base) -> None:
    check_files(folder)
    from safetensors import safe_open

    with safe_open(str(folder / ADAPTER_WEIGHTS), "pt") as weights:
        keys = list(weights.keys())
    if not base.ranks_untrained:
        for module in base.saved_modules:
            if not any(f".{module}." in f".{key}" for key in keys):
                raise AdapterBroken(
                    f"the adapter in {folder} does not hold the head {module!r} that base {base.name!r} lacks; train it "
                    f"with modules_to_save={list(base.saved_modules)!r}"
                )


def check_disk(base: Base, where: Path) -> None:
    """Bytes needed on disk: two full models in fp32, regardless of the precision of the base, and a margin."""
    from safetensors import safe_open

    weights = 0
    for path in base.folder.glob("*.safetensors"):
        with safe_open(str(path), "pt") as file:
            weights += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    needed = int(2.1 * weights * _BYTES_A_WEIGHT) + (64 << 20)
    free = shutil.disk_usage(where).free
    if free < needed:
        raise NotEnoughDisk(
            f"{free >> 20} MB are free at {where}, but the artefacts need about {needed >> 20} MB; free some space and "
            "publish again; the adapter is kept"
        )


@contextlib.contextmanager
def draft_beside(out: Path) -> Iterator[Path]:
    """A temporary folder on the same disk as `out`, removed at the end."""
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def move_into_place(draft: Path, out: Path) -> None:
    """Move the folder to its place, replacing an earlier one; readers see either the old one or the new one."""
    if out.exists():
        old = draft.with_name(draft.name + ".old")
        out.rename(old)
        draft.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    else:
        draft.rename(out)


def _write_artefacts(
    draft: Path,
    *,
    adapter: Path,
    base: Base,
    pairs: Sequence[tuple[str, str]],
    max_length: int | None,
    temperature: float,
) -> list[float]:
    """Write the three folders and return the logits of base + adapter, computed pair by pair without padding."""
    from peft import PeftModel

    model = cross_encoder(base, max_length=max_length, device="cpu")
    adapted = PeftModel.from_pretrained(model.model, str(adapter))
    check_loaded(adapted, adapter)
    expected = [logit / temperature for logit in _logits(model, pairs, batch_size=1)]
    write_adapter(draft / ADAPTER, adapter=adapter, base=base, tokenizer=model.tokenizer)
    adapted.merge_and_unload()
    _write_merged(draft / MERGED, model, base=base, temperature=temperature)
    _write_classifier(
        draft / SEQUENCE_CLASSIFICATION, model, temperature=1.0 if base.kind == "encoder" else temperature
    )
    return expected


def check_loaded(adapted: Any, folder: Path) -> None:
    """Raise AdapterBroken for missing or unknown weights; PEFT only warns about them."""
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file

    loaded = get_peft_model_state_dict(adapted)
    stored = load_file(str(folder / ADAPTER_WEIGHTS))
    for key, value in stored.items():
        if key not in loaded or not torch.equal(loaded[key].float().cpu(), value.float()):
            raise AdapterBroken(
                f"{key} of the adapter in {folder} does not exist in its base; choose the base it was trained on"
            )
    if lacking := sorted(set(loaded) - set(stored)):
        raise AdapterBroken(f"the adapter in {folder} has no {lacking[0]}: it is incomplete; train it again")


def write_adapter(folder: Path, *, adapter: Path, base: Base, tokenizer: Any) -> None:
    folder.mkdir()
    shutil.copyfile(adapter / ADAPTER_WEIGHTS, folder / ADAPTER_WEIGHTS)
    config = json.loads((adapter / ADAPTER_CONFIG).read_text())
    name, revision = hub_reference(base)
    config |= {"base_model_name_or_path": name, "revision": revision, "inference_mode": True}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True))
    tokenizer.save_pretrained(str(folder))


def _write_merged(folder: Path, model: Any, *, base: Base, temperature: float) -> None:
    """The CrossEncoder with the modules that define its scoring."""
    import torch
    from sentence_transformers.base.modules import Dense

    if temperature != 1.0 and base.kind == "encoder":
        _divide_head(model.model, temperature)
    elif temperature != 1.0:
        # A tied output layer cannot be scaled without scaling the embeddings.
        scale = torch.tensor([[1.0 / temperature]])
        dense = Dense(1, 1, bias=False, activation_function=None, init_weight=scale, module_input_name="scores")
        model.append(dense)
    model.model.config.sentence_transformers = {"activation_fn": SIGMOID}
    model.save_pretrained(str(folder), create_model_card=False)


def _divide_head(model: Any, temperature: float) -> None:
    import torch

    head = _last_layer(model)
    with torch.no_grad():
        head.weight /= temperature
        if head.bias is not None:
            head.bias /= temperature


def _last_layer(model: Any) -> Any:
    """The linear layer of a classifier that computes the logit."""
    import torch

    head = getattr(model, "score", None) or model.classifier
    if isinstance(head, torch.nn.Linear):
        return head
    return head.out_proj


def _write_classifier(folder: Path, model: Any, *, temperature: float) -> None:
    """The form with one label; for a decoder, the head is made from the output rows of yes and no."""
    classifier = model.model
    score = next((module for module in model if type(module).__name__ == "LogitScore"), None)
    if score is not None:
        classifier = _decoder_classifier(model.model, score, temperature)
    config = classifier.config
    config.sentence_transformers = {"activation_fn": SIGMOID}
    config.pad_token_id = model.tokenizer.pad_token_id
    classifier.save_pretrained(str(folder))
    model.tokenizer.save_pretrained(str(folder))
    _name_tokenizer_for_servers(folder)


def _name_tokenizer_for_servers(folder: Path) -> None:
    """Name the class of a general tokenizer as transformers 4 does, which servers such as Infinity use; 5 knows both names."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    if config.get("tokenizer_class") == "TokenizersBackend":
        path.write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n")


def _decoder_classifier(decoder: Any, score: Any, temperature: float) -> Any:
    import copy

    import torch
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(decoder.config)
    config.num_labels, config.pad_token_id = 1, decoder.config.pad_token_id
    with torch.device("meta"):
        classifier: Any = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    output = decoder.get_output_embeddings()
    if output.bias is not None:
        raise ParityFailed("the decoder's output layer has a bias, which a classifier's head cannot hold; use `merged`")
    row = output.weight[score.true_token_id].detach().float()
    if score.false_token_id is not None:
        row = row - output.weight[score.false_token_id].detach().float()
    setattr(classifier, classifier.base_model_prefix, decoder.base_model)
    classifier.score = torch.nn.Linear(row.shape[0], 1, bias=False)
    with torch.no_grad():
        classifier.score.weight.copy_((row / temperature).unsqueeze(0))
    return classifier.eval()


def _compared(base: Base) -> list[tuple[str, tuple[str, ...]]]:
    """The artefacts to read back, each with the padding sides to test; empty: the tokenizer's own side.

    An encoder counts positions from the left, padding included, so only a decoder supports both sides. The merged decoder
    reads the last position, which must be a token.
    """
    sides = ("left", "right") if base.kind == "decoder" else ("",)
    return [(MERGED, ("",)), (SEQUENCE_CLASSIFICATION, sides)]


def _compare(
    folder: Path, *, pairs: Sequence[tuple[str, str]], expected: Sequence[float], sides: Sequence[str]
) -> float:
    """The largest difference in logits between the written artefact and base + adapter. Raises ParityFailed.

    Scores each pair both alone and in one padded batch.
    """
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    worst = 0.0
    for side in sides:
        model.tokenizer.padding_side = side or model.tokenizer.padding_side
        for batch_size in (1, len(pairs)):
            found = _logits(model, pairs, batch_size=batch_size)
            worst = max(worst, _largest_difference(found, expected, folder.name))
    return worst


def _largest_difference(found: Sequence[float], expected: Sequence[float], artefact: str) -> float:
    worst = max(
        abs(a - b) if math.isfinite(a) and math.isfinite(b) else math.inf for a, b in zip(found, expected, strict=True)
    )
    if not worst <= TOLERANCE:
        raise ParityFailed(
            f"{artefact} differs from base + adapter by {worst:.2g} logits; expected at most {TOLERANCE:g}; nothing was "
            "published; train in float32 or check the adapter for NaN"
        )
    order = sorted(range(len(found)), key=lambda row: -found[row])
    # Two pairs with equal scores within rounding may come in either order.
    if any(expected[later] - expected[earlier] > 1e-5 for earlier, later in itertools.pairwise(order)):
        raise ParityFailed(
            f"{artefact} ranks the probe pairs in a different order than base + adapter; nothing was published"
        )
    return worst


def _logits(model: Any, pairs: Sequence[tuple[str, str]], *, batch_size: int) -> list[float]:
    import torch

    model.eval()
    scores = model.predict(
        list(pairs), batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
    )
    return [float(score) for score in scores]
