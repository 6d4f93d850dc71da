"""Quantization-aware healing: training through the weights that a quantized GGUF of the slice will serve.

Every few steps ggml's own quantizer gives the error e = Q(bf16(W)) - W of each matrix, by the recipe that
`mom quantize` will use: llama.cpp's type of each tensor, the embeddings' type, the importance matrix. Until
the next time the model computes with W + e, and the gradient at W + e goes to W (straight-through estimator:
Bengio et al., 2013, arXiv 1308.3432; of language models: LLM-QAT, Liu et al., 2023, arXiv 2305.17888).
AdamW's step without weight decay does not depend on the weight, so that training W + e in place and
subtracting e again is the same as training W, and costs nothing between two roundings.

Evaluations see Q(bf16(W)) exactly, as far as the compute dtype can hold it. Matrices that are not trained,
embeddings included, are rounded once.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from slices.device import Device
from slices.errors import BadCheckpoint
from slices.heal.objective import OutputHead
from slices.quant.plan import QuantizationPlan

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_CHUNK = 2**24  # numbers that are rounded at a time


class TrainedModel(Protocol):
    """What is needed of a `slices.heal.student.Student`."""

    @property
    def model(self) -> Any:
        """The model."""

    @property
    def trainable(self) -> Mapping[str, Any]:
        """The parameters that are trained, by name."""

    @property
    def head(self) -> OutputHead:
        """The output layer, tied to the embedding."""

    @property
    def device(self) -> Device:
        """Where it is, and the threads that may quantize."""


class QuantizedWeights:
    """The matrices of a student, which hold W, W + e ("folded") or, for an evaluation, Q(bf16(W))."""

    def __init__(
        self, student: TrainedModel, plan: QuantizationPlan, start: int = 0, interval: int = 1
    ) -> None:
        """Round what is not trained, if training begins with it.

        Args:
            start: the first step, counted from 0, that trains W + e.
            interval: steps between two roundings.

        Raises:
            BadCheckpoint: the plan is of another slice.
            RunFailed: a weight is not finite.
        """
        named = dict(student.model.named_parameters())
        if missing := plan.tensors.keys() - named.keys():
            raise BadCheckpoint(f"the model has no parameter {min(missing)!r}, which would be quantized")
        self._plan, self._threads, self._head = plan, student.device.threads, student.head.weight
        self._embedding = student.model.get_input_embeddings().weight
        self._start, self._interval = start, interval
        self._trained = {name: named[name] for name in plan.tensors if name in student.trainable}
        self._frozen = {name: named[name] for name in plan.tensors if name not in student.trainable}
        self._buffers: dict[str, Any] = {}  # of trained matrices: e while folded, W in an evaluation
        self._others: dict[str, Any] = {}  # frozen matrices as they are not in the model now
        self._serving = False  # whether the frozen matrices in the model are the quantized ones
        self.folded = False
        if start == 0:
            self._serve_in_place()

    def begin_step(self, step: int) -> None:
        """Call before a training step, counted from 0: from `start` on the model computes with W + e."""
        if step >= self._start and not self.folded:
            self._serve(True)
            self._fold()

    def end_step(self, step: int) -> None:
        """Call after a training step, with the steps done: W is there again where a rounding is due."""
        if (step - self._start) % self._interval == 0:
            self.unfold()

    def unfold(self) -> None:
        """Make the trained matrices W again."""
        if self.folded:
            for name, parameter in self._trained.items():
                parameter.data.sub_(self._buffers[name])
        self.folded = False

    @contextmanager
    def quantized(self) -> Iterator[None]:
        """While it lasts, every matrix is what a quantized file dequantizes to; then the trained are W."""
        self.unfold()
        serving = self._serving
        self._serve(True)
        for name, parameter in self._trained.items():
            self._buffer(name).copy_(parameter.data)
            self._round(name, parameter.data)
        try:
            yield
        finally:
            for name, parameter in self._trained.items():
                parameter.data.copy_(self._buffers[name])
            self._serve(serving)

    def time_rounding(self) -> None:
        """Round once and take it back, to be timed."""
        self._serve(True)
        self._fold()
        self.unfold()

    def release(self) -> None:
        """Make the trained matrices W and free what is kept beside them."""
        self.unfold()
        self._buffers.clear()

    def _fold(self) -> None:
        for name, parameter in self._trained.items():
            error = self._buffer(name).copy_(parameter.data)
            self._round(name, parameter.data)
            error.sub_(parameter.data).neg_()
        self.folded = bool(self._trained)

    def _buffer(self, name: str) -> Any:
        import torch

        if name not in self._buffers:
            self._buffers[name] = torch.empty_like(self._trained[name].data)
        return self._buffers[name]

    def _round(self, name: str, values: Any) -> None:
        """Replace `values` by Q(bf16(values))."""
        import torch

        planned = self._plan.tensors[name]
        # a chunk would need its share of the importance matrix; only embeddings, which have none, are large
        rows = len(values) if planned.importance is not None else max(1, _CHUNK // values[0].numel())
        for part in values.split(rows):
            stored = part.to(getattr(torch, _DTYPES[planned.dtype])).to(torch.bfloat16)
            rounded = stored.to("cpu", torch.float32).contiguous()
            planned.requantize(rounded.numpy(), self._threads)
            part.copy_(rounded)

    def _serve(self, quantized: bool) -> None:
        """Put the frozen matrices into the model, quantized or as they are."""
        if quantized == self._serving:
            return
        for name, parameter in self._frozen.items():
            if name not in self._others:
                self._others[name] = parameter.data.clone()
                self._round(name, self._others[name])
            self._others[name], parameter.data = parameter.data, self._others[name]
        self._serving = quantized
        self._head.data = self._embedding.data.to(self._head.dtype)

    def _serve_in_place(self) -> None:
        """The same for good."""
        for name, parameter in self._frozen.items():
            self._round(name, parameter.data)
        self._serving = True
        self._head.data = self._embedding.data.to(self._head.dtype)
