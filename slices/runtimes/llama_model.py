"""A GGUF file as llama.cpp holds it: weights and vocabulary. Contexts, which run it, are made from it.

Check the file first (`slices.gguf.header`): llama.cpp may end the process on a bad one.
"""

import ctypes
from functools import cached_property
from pathlib import Path
from typing import Any

from slices.errors import PromptTooLong, RunFailed
from slices.runtimes.llama_library import last_complaint, load_library

CONTEXT_STEP = 256  # llama.cpp aborts on a batch larger than a context that it had to round up to this


class LlamaModel:
    """A loaded file. Everything here but `close` may be asked from any thread."""

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
            raise RunFailed(f"llama.cpp cannot load {path}: {last_complaint()}")
        self.vocab = self.cpp.llama_model_get_vocab(self._handle)
        self.rows = int(self.cpp.llama_vocab_n_tokens(self.vocab))

    @cached_property
    def window(self) -> int:
        """Positions that a sliding layer looks back, 0 where there is no such layer."""
        return int(self.cpp.llama_model_n_swa(self._handle))

    def settings(self, context: int, threads: int, answers: int = 1) -> Any:
        """llama.cpp's settings of a context for `answers` sequences of up to `context` tokens each."""
        params: Any = self.cpp.llama_context_default_params()
        rounded = -(-context // CONTEXT_STEP) * CONTEXT_STEP
        params.n_ctx = answers * min(rounded, self.cpp.llama_model_n_ctx_train(self._handle))
        params.n_seq_max = answers
        params.kv_unified = True  # one batch for answers that read and that write: a tenth faster
        params.n_batch = 512
        params.n_ubatch = 512
        params.swa_full = False  # sliding layers keep their window, not the whole context
        params.n_threads = threads
        params.n_threads_batch = threads
        return params

    def context(self, params: Any) -> Any:
        """A context with these settings, for the caller to free.

        Raises:
            RunFailed: llama.cpp refuses them, as where memory is short.
        """
        made = self.cpp.llama_init_from_model(self._handle, params)
        if not made:
            raise RunFailed(f"llama.cpp cannot run {self.path}: {last_complaint()}")
        return made

    def tokenize(self, text: str, control: bool) -> list[int]:
        """Token ids of `text` after one bos; control tokens in it count as such, or are read as text."""
        raw = text.encode()
        room = len(raw) + 8
        for _ in range(2):  # a space may take three tokens, where it is spelled in bytes
            buffer = (ctypes.c_int32 * room)()
            count = self.cpp.llama_tokenize(self.vocab, raw, len(raw), buffer, room, True, control)
            if count >= 0:
                break
            room = -count
        if count < 0:
            raise RunFailed(f"llama.cpp could not tokenize a text of {len(raw)} bytes")
        tokens = list(buffer[:count])
        return tokens[1:] if control and len(tokens) > 1 and tokens[0] == tokens[1] == self._bos else tokens

    def prompt(self, text: str, room: int) -> list[int]:
        """The token ids of a prompt, whose control tokens count as such.

        Raises:
            PromptTooLong: it does not leave a place for an answer in `room` tokens.
        """
        tokens = self.tokenize(text, control=True)
        if len(tokens) >= room:
            raise PromptTooLong(f"the prompt has {len(tokens)} tokens, but the context holds {room}")
        return tokens

    def ends(self, token: int) -> bool:
        """Whether an answer is over with this token."""
        return bool(self.cpp.llama_vocab_is_eog(self.vocab, token))

    def bytes(self, token: int) -> bytes:
        """What the token adds to a text; nothing for a control token."""
        room = 256
        buffer = ctypes.create_string_buffer(room)
        count = self.cpp.llama_token_to_piece(self.vocab, token, buffer, room, 0, False)
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
