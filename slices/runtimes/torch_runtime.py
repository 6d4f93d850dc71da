"""A bf16 checkpoint run by transformers: the reference for every exported file.

Tokenizes with the checkpoint's own tokenizer.json, not with transformers' tokenizer classes, which
rebuild it. Never runs code that came with a checkpoint. Check the files first
(`slices.architecture.anatomy.match`).
"""

from collections.abc import Iterator, Mapping, Sequence
from os import cpu_count
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from slices.checkpoint import weight_files
from slices.errors import BadCheckpoint, MissingExtra, NotFound, PromptTooLong
from slices.files.safetensors_header import parse_json_object
from slices.runtime import Piece, Sampling
from slices.runtimes.detokenizer import detokenize
from slices.runtimes.sampling import sample_token
from slices.runtimes.softmax import log_softmax
from slices.slice_classes import MODEL_TYPES, register
from slices.windowed_attention import cache_argument

Precision = Literal["auto", "bfloat16", "float32"]
SPACE = "▁"
_EOG_TOKENS = ("<eos>", "<end_of_turn>", "<turn|>")  # llama.cpp ends on them whatever the config says
_CHUNK_LOGITS = 2**24  # float32 logits in memory at once: 64 MB
_WIDEN_BELOW = 4_000_000_000  # bytes of weights up to which float32, exact and faster on most CPUs, is used


class TorchRuntime:
    """A model in torch. Not thread-safe. A `slices.runtime.Runtime`."""

    def __init__(
        self,
        folder: Path,
        threads: int | None = None,
        max_model_len: int = 4096,
        precision: Precision = "auto",
        device: str = "cpu",
    ) -> None:
        """Load the checkpoint in `folder`.

        Args:
            threads: processor threads (of the whole process); by default every core.
            max_model_len: most tokens of a prompt and its answer together.
            precision: what bf16 weights are computed in; "auto" widens a small model to float32.
            device: where it runs, as torch says it.

        Raises:
            MissingExtra: torch or transformers is not installed.
            BadCheckpoint: a file is damaged, or weights are missing from it.
        """
        self._torch, _ = load_libraries()
        self._torch.set_num_threads(threads or cpu_count() or 1)
        config = _read(folder / "config.json")
        self._tokenizer = _tokenizer(folder)
        if config.get("model_type") in MODEL_TYPES:
            register()
        self._model: Any = load_model(folder, _dtype(folder, self._torch, precision)).to(device)
        self._device = device
        self._max_model_len = max_model_len
        self._bos = config.get("bos_token_id")
        self._eos_ids = _eos_ids(folder, config, self._tokenizer)
        self._token_bytes = _token_bytes(self._tokenizer)
        self._softcap = config.get("final_logit_softcapping")

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` after a bos; control tokens in it are read as text."""
        return self._tokenize(text, control=False)

    def logprobs(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Natural-log probability of tokens[1:], each given all before it. Shape (len(tokens) - 1,)."""
        found = np.empty(max(0, len(tokens) - 1), dtype=np.float64)
        targets, start = self._ids(tokens[1:]), 0
        for logits in self._logits(tokens[:-1]):
            picked = logits.gather(1, targets[start : start + len(logits), None])[:, 0]
            found[start : start + len(logits)] = (picked - logits.logsumexp(dim=1)).double().cpu().numpy()
            start += len(logits)
        return found

    def distributions(self, tokens: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Log probabilities of every next token, in chunks of shape (positions, vocabulary)."""
        for logits in self._logits(tokens[:-1]):
            yield log_softmax(logits.cpu().numpy())

    def expected_counts(self, tokens: Sequence[int]) -> NDArray[np.float64]:
        """Sum of the next token's distribution over all positions of `tokens`. Shape (vocabulary,)."""
        rows = self._model.get_output_embeddings().weight.shape[0]
        total = self._torch.zeros(rows, dtype=self._torch.float64, device=self._device)
        for logits in self._logits(tokens):
            total += logits.softmax(dim=1).sum(dim=0)
        counts: NDArray[np.float64] = total.cpu().numpy()
        return counts

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        """Continue `prompt`, whose control tokens count as such. Closing the iterator stops the run."""
        return detokenize(self._sample(self._tokenize(prompt, control=True), sampling), sampling)

    def close(self) -> None:
        """Let go of the model; calling it twice is fine."""
        self._model = None

    def _tokenize(self, text: str, control: bool) -> list[int]:
        self._tokenizer.encode_special_tokens = not control
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        if self._bos is None or (control and tokens[:1] == [self._bos]):
            return tokens
        return [self._bos, *tokens]

    def _sample(self, prompt: Sequence[int], sampling: Sampling) -> Iterator[bytes | None]:
        """The bytes of one sampled token after another; None at the end of generation."""
        if len(prompt) >= self._max_model_len:
            raise PromptTooLong(
                f"the prompt has {len(prompt)} tokens, but the context holds {self._max_model_len}"
            )
        random = np.random.default_rng(sampling.seed)
        drawn: list[int] = []
        logits, cache = self._step(prompt, None)
        while True:
            token = sample_token(logits, sampling, drawn, random)
            if token in self._eos_ids:
                yield None
                return
            yield self._token_bytes.get(token, b"")
            drawn.append(token)
            if len(prompt) + len(drawn) >= self._max_model_len:
                return
            logits, cache = self._step([token], cache)

    def _logits(self, tokens: Sequence[int]) -> Iterator[Any]:
        """Logits after each of `tokens`, float32, in chunks of shape (positions, vocabulary)."""
        torch = self._torch
        head = self._model.get_output_embeddings()
        hidden = self._hidden(tokens) if tokens else ()
        rows = max(1, _CHUNK_LOGITS // head.weight.shape[0])
        for start in range(0, len(tokens), rows):
            with torch.inference_mode():  # not around the yield: it would hold for the caller too
                logits = self._cap(head(hidden[start : start + rows]).float())
            yield logits

    def _hidden(self, tokens: Sequence[int]) -> Any:
        """The last hidden states, shape (positions, hidden)."""
        with self._torch.inference_mode():
            ids = self._ids(tokens)[None]
            return self._model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]

    def _step(self, tokens: Sequence[int], cache: object) -> tuple[NDArray[np.float32], object]:
        """Logits after the last of `tokens`, shape (vocabulary,), and the KV cache."""
        torch = self._torch
        with torch.inference_mode():
            ids = self._ids(tokens)[None]
            name = cache_argument(self._model)
            out = self._model(input_ids=ids, use_cache=True, logits_to_keep=1, **{name: cache})
            return out.logits[0, -1].float().cpu().numpy(), out[name]

    def _ids(self, tokens: Sequence[int]) -> Any:
        """Token ids where the model is, int64 (tokens,)."""
        return self._torch.tensor(list(tokens), dtype=self._torch.int64, device=self._device)

    def _cap(self, logits: Any) -> Any:
        return (logits / self._softcap).tanh() * self._softcap if self._softcap else logits


def load_libraries() -> tuple[ModuleType, ModuleType]:
    """Torch and a silent transformers.

    Raises:
        MissingExtra: one of them is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtra("torch", "torch") from None
    try:
        import transformers
    except ImportError:
        raise MissingExtra("transformers", "torch") from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return torch, transformers


def load_model(folder: Path, dtype: object) -> Any:
    """The checkpoint in `folder` as transformers' model, every weight from its files, in torch's `dtype`.

    Raises:
        BadCheckpoint: weights are missing or of the wrong shape.
    """
    _, transformers = load_libraries()
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, trust_remote_code=False, output_loading_info=True
    )
    if report["missing_keys"] or report["mismatched_keys"]:
        first = sorted([*report["missing_keys"], *report["mismatched_keys"]], key=str)[0]
        raise BadCheckpoint(
            f"{folder}: tensor {first!r} is missing or of the wrong shape; it would be random"
        )
    return model.eval()


def _dtype(folder: Path, torch: ModuleType, precision: Precision) -> object:
    size = sum(file.stat().st_size for file in weight_files(folder))
    wide = precision == "float32" or (precision == "auto" and size < _WIDEN_BELOW)
    return torch.float32 if wide else torch.bfloat16


def _tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise NotFound(f"{folder} has no tokenizer.json, which running it needs")
    return Tokenizer.from_file(str(path))


def _token_bytes(tokenizer: Tokenizer) -> dict[int, bytes]:
    """The bytes that each token id adds to a text; none for control tokens."""
    found = {index: _spelled(token) for token, index in tokenizer.get_vocab(with_added_tokens=False).items()}
    for index, token in tokenizer.get_added_tokens_decoder().items():
        found[index] = b"" if token.special else token.content.replace(SPACE, " ").encode()
    return found


def _spelled(token: str) -> bytes:
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return bytes.fromhex(token[3:5])
    return token.replace(SPACE, " ").encode()


def _eos_ids(folder: Path, config: Mapping[str, Any], tokenizer: Tokenizer) -> frozenset[int]:
    path = folder / "generation_config.json"
    stated = [config.get("eos_token_id"), (_read(path) if path.is_file() else {}).get("eos_token_id")]
    listed = [token for value in stated for token in (value if isinstance(value, list) else [value])]
    named = [tokenizer.token_to_id(token) for token in _EOG_TOKENS]
    return frozenset(token for token in [*listed, *named] if token is not None)


def _read(path: Path) -> dict[str, Any]:
    return parse_json_object(path.read_bytes(), path)
