"""An encoder's transformer as 8-bit ONNX, run by ONNX Runtime: a third of torch's time for a short text.

Weights have 8 bits, in blocks of 32 with a scale each, as have the activations while they are multiplied, so
that vectors keep a cosine of .999 to those in float32. Files are kept under `$MOM_HOME/embedders`.
"""

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices import atomic, home

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
BLOCK = 32  # weights that share a scale
ALIKE = 0.995  # cosine of states to torch's, below which the file is not used
_FORMAT = 1
_PACKAGES = ("onnxruntime", "onnx", "onnxscript")
log = logging.getLogger(__name__)


def hasten(encoder: Any, name: str) -> bool:
    """Put ONNX Runtime in the place of a sentence-transformers encoder's transformer; say whether it was.

    It was not without the packages, nor for a transformer that cannot be exported or comes out different,
    which is logged. The export takes some ten seconds, once for the same weights.
    """
    if any(find_spec(each) is None for each in _PACKAGES):
        return False
    model = encoder[0].model.float()
    path = home.home() / "embedders" / f"{name.replace('/', '--')}-{_digest(model)}.onnx"
    try:
        encoder[0].model = _of_file(path, model)
    except Exception as error:  # noqa: BLE001 - what exporters raise for what they do not know is not documented
        log.warning("%s runs in torch, for want of an ONNX file: %s", name, error)
        return False
    return True


def _of_file(path: Path, model: Any) -> Any:
    """The transformer from its file, which is made where it is not there or damaged."""
    if path.is_file():
        with suppress(Exception):  # ONNX Runtime's errors have no common name
            return _body(path, model.config)
    _write(model, path)
    return _body(path, model.config)


def _body(path: Path, config: Any) -> Any:
    """A torch module around a file, which takes and gives what the transformer does."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    session = _session(path)
    wanted = [each.name for each in session.get_inputs()]

    class Body(torch.nn.Module):
        """Runs the file; shapes as the transformer's."""

        def __init__(self) -> None:
            super().__init__()
            self.config = config

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None, **_: Any) -> Any:
            kinds = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            told = dict(zip(INPUTS, (input_ids, attention_mask, kinds), strict=True))
            (states,) = session.run(None, {each: told[each].numpy() for each in wanted})
            return BaseModelOutput(last_hidden_state=torch.from_numpy(states))

    return Body()


def _session(path: Path) -> Any:
    """ONNX Runtime on the CPU with one thread, which `router.sentence.one_thread` explains."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _write(model: Any, path: Path) -> None:
    """Export, quantize, compare, and only then put the file in its place."""
    import onnx

    with atomic.staged(path, force=True) as partial:
        onnx.save(_quantized(_exported(model)), partial)
        _compare(model, _body(partial, model.config))


def _exported(model: Any) -> Any:
    """The transformer in float32 as an ONNX graph of any batch and length."""
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *told: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.model(**dict(zip(names, told, strict=True))).last_hidden_state
            return states

    example = _example(model)
    names = list(example)
    dims = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=_longest(model))}
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            Whole().eval(), tuple(example.values()), input_names=names, dynamo=True, verbose=False,
            dynamic_shapes=((dims,) * len(names),),
        )  # fmt: skip
    assert made is not None
    return made.model_proto


def _quantized(graph: Any) -> Any:
    """The same with its matrices in 8 bits."""
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    settings = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=8)
    with _quiet():
        quantizer = MatMulNBitsQuantizer(graph, algo_config=settings)
        quantizer.process()
    return quantizer.model.model


def _compare(model: Any, body: Any) -> None:
    """Refuse a file whose states are not torch's.

    Raises:
        ValueError: says by how much.
    """
    import torch

    told = _example(model)
    with torch.no_grad():
        ours, theirs = (each(**told).last_hidden_state.float() for each in (body, model))
    alike = float(torch.nn.functional.cosine_similarity(ours, theirs, dim=-1).mean())
    if not alike >= ALIKE:
        raise ValueError(f"its states are not torch's: cosine {alike:.4f}")


def _example(model: Any) -> dict[str, Any]:
    """Two texts of seven tokens, by input name."""
    import inspect

    import torch

    draw = np.random.default_rng(0)
    ids: NDArray[np.int64] = draw.integers(0, model.config.vocab_size, (2, 7))
    given = (torch.from_numpy(ids), torch.ones(2, 7, dtype=torch.int64), torch.zeros(2, 7, dtype=torch.int64))
    taken = inspect.signature(model.forward).parameters
    return {name: each for name, each in zip(INPUTS, given, strict=True) if name in taken}


def _longest(model: Any) -> int:
    return int(getattr(model.config, "max_position_embeddings", 512))


def _digest(model: Any) -> str:
    """Of the weights and of how the file is made from them."""
    found = hashlib.sha256(f"{_FORMAT} {BLOCK}".encode())
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(np.ascontiguousarray(tensor.float().numpy()).data)
    return found.hexdigest()[:12]


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress of exporters."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
