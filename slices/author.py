"""Domain text where the user brings none: the parent writes it itself, from the domain's topics.

Sampled continuations in batches through transformers, seeded and cached under `$MOM_HOME/texts`, so that
the same parent, topics and seed give the same text. What a model writes is easier for it to predict
than other people's text: bring a corpus where a figure matters.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slices import atomic
from slices.checkpoint import Checkpoint
from slices.corpus import Corpus, read_documents
from slices.domains import Domain
from slices.errors import BadConfig, MissingExtra
from slices.gemma4_slice import register
from slices.home import home

TOKENS = 96  # a document, at most
BATCH = 32
_FORMS = (
    "{topic} is",
    "# {topic}\n\n",
    "An introduction to {topic}. In this chapter",
    "Question: Explain {topic}.\nAnswer:",
)
_REQUEST = "Write one dense paragraph about {topic}, as in a textbook of the field."
Progress = Callable[[int, int], None]


def self_written(
    checkpoint: Checkpoint, domain: Domain, seed: int = 0, progress: Progress = lambda done, total: None
) -> Corpus:
    """The parent's own text on `domain`: one document a topic, from the cache where it is there.

    Args:
        progress: told the documents done and their total.

    Raises:
        BadConfig: the domain names no topics.
        MissingExtra: torch or transformers is not installed.
    """
    if not domain.topics:
        raise BadConfig(f"domain {domain.name!r} has neither topics nor a corpus: give --corpus PATH")
    cache = home() / "texts" / f"{domain.name}-{_identity(checkpoint, domain, seed)}.jsonl"
    if not cache.is_file():
        documents = _write(checkpoint.folder, domain.topics, seed, progress)
        lines = [json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents]
        atomic.write_text(cache, "".join(lines))
    return Corpus("parent", tuple(read_documents(cache)))


def _identity(checkpoint: Checkpoint, domain: Domain, seed: int) -> str:
    recipe = [checkpoint.headers_sha256, domain.topics, seed, TOKENS, BATCH, _FORMS, _REQUEST]
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]


def _write(folder: Path, topics: Sequence[str], seed: int, progress: Progress) -> list[str]:
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingExtra(error.name or "torch", "torch") from None
    register()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=_dtype(torch)).eval()
    torch.manual_seed(seed)
    prompts = [_prompt(tokenizer, topic, index) for index, topic in enumerate(topics)]
    documents: list[str] = []
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        documents += _continue(torch, model, tokenizer, batch)
        progress(len(documents), len(prompts))
    return documents


def _dtype(torch: Any) -> Any:
    """bfloat16 where the hardware multiplies it, else float32, which old processors do faster."""
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def _prompt(tokenizer: Any, topic: str, index: int) -> str:
    """The text to continue: a request in the turn template of a tuned model, else an opening."""
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": _REQUEST.format(topic=topic)}]
        return str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    opening = _FORMS[index % len(_FORMS)].format(topic=topic)
    return str(tokenizer.bos_token or "") + opening[:1].upper() + opening[1:]


def _continue(torch: Any, model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    encoded = tokenizer(list(prompts), return_tensors="pt", padding=True, add_special_tokens=False)
    with torch.inference_mode():
        output = model.generate(
            **{key: encoded[key] for key in ("input_ids", "attention_mask")},
            max_new_tokens=TOKENS,
            do_sample=True,
            temperature=0.9,
            top_k=200,
            top_p=1.0,
            pad_token_id=tokenizer.pad_token_id,
        )
    start = encoded["input_ids"].shape[1] if tokenizer.chat_template else 0
    return [str(text) for text in tokenizer.batch_decode(output[:, start:], skip_special_tokens=True)]
