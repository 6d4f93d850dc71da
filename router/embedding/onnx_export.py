"""An encoder's transformer as 8-bit ONNX, run by ONNX Runtime: a third of torch's time for a short text.

Weights have 8 bits, as have the activations while they are multiplied, so that vectors keep a cosine of .997
or more to those in float32. Files are kept under `$MOM_HOME/embedders`.
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

from slices import home
from slices.files import atomic

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
BLOCK = 32  # weights that share a scale
ALIKE = 0.995  # cosine of states to torch's, below which a file is not used
_FORMAT = 2
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

        def states(self, *told: NDArray[np.int64]) -> NDArray[np.float32]:
            """The last states (texts, tokens, dim) of the three INPUTS, (texts, tokens) each."""
            given = dict(zip(INPUTS, told, strict=True))
            (found,) = session.run(None, {each: given[each] for each in wanted})
            states: NDArray[np.float32] = found
            return states

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None, **_: Any) -> Any:
            kinds = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            states = self.states(input_ids.numpy(), attention_mask.numpy(), kinds.numpy())
            return BaseModelOutput(last_hidden_state=torch.from_numpy(states))

    return Body()


def _session(path: Path) -> Any:
    """ONNX Runtime on the CPU with one thread, which `router.embedding.sentence.one_thread` explains."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _write(model: Any, path: Path) -> None:
    """Export, quantize, compare, and only then put the file in its place."""
    with atomic.staged(path, force=True) as partial:
        _quantize(_exported(model), partial)
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


def _quantize(graph: Any, path: Path) -> None:
    """Write it with its matrices in 8 bits.

    Those that narrow, an FFN's second, read what outliers spoil for a whole row: they get scales by block. In
    the others 7 bits are used, so that sums of two products fit into 16 bits on every processor.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    with _quiet():
        quantize_dynamic(
            graph, path, ["MatMul"], per_channel=True, reduce_range=True, weight_type=QuantType.QInt8,
            nodes_to_exclude=_narrowing(graph),
        )  # fmt: skip
        settings = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=8)
        quantizer = MatMulNBitsQuantizer(onnx.load(path), algo_config=settings)
        quantizer.process()
    onnx.save(quantizer.model.model, path)


def _narrowing(graph: Any) -> list[str]:
    """Names of the products with a matrix that gives fewer numbers than it takes."""
    shapes = {each.name: tuple(each.dims) for each in graph.graph.initializer}
    products = [node for node in graph.graph.node if node.op_type == "MatMul" and node.input[1] in shapes]
    return [node.name for node in products if shapes[node.input[1]][0] > shapes[node.input[1]][1]]


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
