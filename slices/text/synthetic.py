"""Domain text where the user brings none: the parent writes it itself, from the domain's topics.

Sampled continuations, seeded and cached under `$MOM_HOME/texts`, so that the same parent, topics and
seed give the same text. A GGUF in the parent's folder writes through llama.cpp, which is the faster
author on a processor; else transformers writes in batches. What a model writes is easier for it to
predict than other people's text: bring a corpus where a figure matters.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from slices.checkpoint import Checkpoint, fingerprint, read_optional_json
from slices.errors import BadConfig, MissingExtra
from slices.files import atomic
from slices.gemma4_slice import register
from slices.home import home
from slices.progress import Progress, no_progress
from slices.runtime import Sampling
from slices.runtimes.llama_pool import map_on_all_cores
from slices.runtimes.llama_runtime import LlamaRuntime
from slices.text.corpus import Corpus, read_documents
from slices.text.domains import Domain

TOKENS = 64  # a document, at most
BATCH = 32
_FORMS = (
    "{topic} is",
    "# {topic}\n\n",
    "An introduction to {topic}. In this chapter",
    "Question: Explain {topic}.\nAnswer:",
)
_REQUEST = "Write one dense paragraph about {topic}, as in a textbook of the field."
_TEMPERATURE, _TOP_K = 0.9, 200


def self_written(
    checkpoint: Checkpoint, domain: Domain, seed: int = 0, progress: Progress = no_progress
) -> Corpus:
    """The parent's own text on `domain`: one document a topic, from the cache where it is there.

    Args:
        progress: called with the documents written and their number.

    Raises:
        BadConfig: the domain names no topics.
        MissingExtra: neither runtime is installed.
    """
    if not domain.topics:
        raise BadConfig(f"domain {domain.name!r} has neither topics nor a corpus: give --corpus PATH")
    gguf = gguf_of(checkpoint.folder)
    cache = home() / "texts" / f"{domain.name}-{_identity(checkpoint, domain, seed, gguf)}.jsonl"
    if not cache.is_file():
        write = _by_torch(checkpoint.folder, domain.topics, seed)
        if gguf is not None:
            write = _by_llama(gguf, domain.topics, seed)
        documents = []
        for document in write:
            documents.append(document)
            progress(f"write {domain.name}", len(documents), len(domain.topics))
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents]
        atomic.write_text(cache, "".join(lines))
    return Corpus("parent", tuple(read_documents(cache)))


def gguf_of(folder: Path) -> Path | None:
    """A GGUF in the folder; not of a tuned model, whose turns need the template of its tokenizer."""
    found = sorted(folder.glob("*.gguf"))
    config = read_optional_json(folder / "tokenizer_config.json")
    tuned = "chat_template" in config or any(folder.glob("chat_template.*"))
    return found[0] if found and not tuned else None


def _identity(checkpoint: Checkpoint, domain: Domain, seed: int, gguf: Path | None) -> str:
    recipe = [TOKENS, BATCH, _FORMS, _REQUEST, _TEMPERATURE, _TOP_K, gguf.name if gguf else None]
    parts = [fingerprint(checkpoint), domain.topics, seed, recipe]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _opening(topic: str, index: int) -> str:
    text = _FORMS[index % len(_FORMS)].format(topic=topic)
    return text[:1].upper() + text[1:]


def _by_llama(gguf: Path, topics: Sequence[str], seed: int) -> Iterator[str]:
    def write(runtime: LlamaRuntime, index: int) -> str:
        opening = _opening(topics[index], index)
        sampling = Sampling(TOKENS, _TEMPERATURE, top_p=1.0, top_k=_TOP_K, seed=seed * 100_003 + index)
        return opening + "".join(piece.text for piece in runtime.generate(opening, sampling))

    return map_on_all_cores(gguf, write, range(len(topics)))


def _by_torch(folder: Path, topics: Sequence[str], seed: int) -> Iterator[str]:
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise MissingExtra(error.name or "torch", "torch") from None
    register()
    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = torch.bfloat16 if device == "cuda" else torch.float32  # old processors multiply float32 faster
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=kind).eval().to(device)
    torch.manual_seed(seed)
    prompts = [_prompt(tokenizer, topic, index) for index, topic in enumerate(topics)]
    for start in range(0, len(prompts), BATCH):
        with torch.inference_mode():
            yield from _continue(model, tokenizer, prompts[start : start + BATCH])


def _prompt(tokenizer: Any, topic: str, index: int) -> str:
    """The text to continue: a request in the turn template of a tuned model, else an opening."""
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": _REQUEST.format(topic=topic)}]
        return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    return str(tokenizer.bos_token or "") + _opening(topic, index)


def _continue(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    encoded = tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False)
    output = model.generate(
        **{key: encoded[key].to(model.device) for key in ("input_ids", "attention_mask")},
        max_new_tokens=TOKENS,
        do_sample=True,
        temperature=_TEMPERATURE,
        top_k=_TOP_K,
        top_p=1.0,
        pad_token_id=tokenizer.pad_token_id,
    )
    start = encoded["input_ids"].shape[1] if tokenizer.chat_template else 0
    return [str(text) for text in tokenizer.batch_decode(output[:, start:], skip_special_tokens=True)]
