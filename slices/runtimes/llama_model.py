"""A GGUF file loaded by llama.cpp: weights and vocabulary. Contexts, which run it, are made from it.

Check the file first (`slices.gguf.header`): llama.cpp may end the process on a bad one.
"""

import ctypes
from functools import cached_property
from pathlib import Path
from typing import Any

from slices.errors import PromptTooLong, RunFailed
from slices.runtimes.llama_library import last_error, load_library

N_CTX_MULTIPLE = 256  # llama.cpp rounds n_ctx up to it, and aborts on a batch larger than what was asked


class LlamaModel:
    """A loaded model. Everything here but `close` may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Map the weights of `path`.

        Raises:
            MissingExtra: llama-cpp-python is not installed.
            RunFailed: llama.cpp refuses the file.
        """
        self.cpp = load_library()
        self.path = path
        params = self.cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        self._handle: Any = self.cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self._handle:
            raise RunFailed(f"llama.cpp cannot load {path}: {last_error()}")
        self.vocab = self.cpp.llama_model_get_vocab(self._handle)
        self.n_vocab = int(self.cpp.llama_vocab_n_tokens(self.vocab))

    @cached_property
    def n_swa(self) -> int:
        """The sliding window in tokens, 0 where no layer has one."""
        return int(self.cpp.llama_model_n_swa(self._handle))

    def context_params(self, n_ctx_seq: int, threads: int, n_seq_max: int = 1) -> Any:
        """llama.cpp's parameters of a context of `n_seq_max` sequences of up to `n_ctx_seq` tokens each."""
        params: Any = self.cpp.llama_context_default_params()
        rounded = -(-n_ctx_seq // N_CTX_MULTIPLE) * N_CTX_MULTIPLE
        params.n_ctx = n_seq_max * min(rounded, self.cpp.llama_model_n_ctx_train(self._handle))
        params.n_seq_max = n_seq_max
        params.kv_unified = True  # prefill and decode in one batch: a tenth faster
        params.n_batch = 512
        params.n_ubatch = 512
        params.swa_full = False  # sliding layers keep their window, not the whole context
        params.n_threads = threads
        params.n_threads_batch = threads
        return params

    def new_context(self, params: Any) -> Any:
        """A context with these parameters, for the caller to free.

        Raises:
            RunFailed: llama.cpp refuses them, as where memory is short.
        """
        context = self.cpp.llama_init_from_model(self._handle, params)
        if not context:
            raise RunFailed(f"llama.cpp cannot run {self.path}: {last_error()}")
        return context

    def tokenize(self, text: str, control: bool) -> list[int]:
        """Token ids of `text` after one bos; control tokens in it count as such, or are read as text."""
        raw = text.encode()
        size = len(raw) + 8
        for _ in range(2):  # a space may take three tokens, where it is spelled in bytes
            buffer = (ctypes.c_int32 * size)()
            count = self.cpp.llama_tokenize(self.vocab, raw, len(raw), buffer, size, True, control)
            if count >= 0:
                break
            size = -count
        if count < 0:
            raise RunFailed(f"llama.cpp could not tokenize a text of {len(raw)} bytes")
        tokens = list(buffer[:count])
        return tokens[1:] if control and len(tokens) > 1 and tokens[0] == tokens[1] == self._bos else tokens

    def tokenize_prompt(self, text: str, n_ctx: int) -> list[int]:
        """The token ids of a prompt, whose control tokens count as such.

        Raises:
            PromptTooLong: it leaves no room for an answer in `n_ctx` tokens.
        """
        tokens = self.tokenize(text, control=True)
        if len(tokens) >= n_ctx:
            raise PromptTooLong(f"the prompt has {len(tokens)} tokens, but the context holds {n_ctx}")
        return tokens

    def is_eog(self, token: int) -> bool:
        """Whether the token ends a generation (eos, end of turn)."""
        return bool(self.cpp.llama_vocab_is_eog(self.vocab, token))

    def token_bytes(self, token: int) -> bytes:
        """The bytes that the token adds to a text; none for a control token."""
        size = 256
        buffer = ctypes.create_string_buffer(size)
        count = self.cpp.llama_token_to_piece(self.vocab, token, buffer, size, 0, False)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = self.cpp.llama_token_to_piece(self.vocab, token, buffer, -count, 0, False)
        return buffer.raw[:count]

    def close(self) -> None:
        """Free the weights, after the contexts; calling it twice is fine."""
        if self._handle is not None:
            self.cpp.llama_model_free(self._handle)
            self._handle = None

    @property
    def _bos(self) -> int:
        return int(self.cpp.llama_vocab_bos(self.vocab))
