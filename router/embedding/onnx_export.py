"""Exports an encoder's transformer to 8-bit ONNX and runs it in ONNX Runtime: a third of torch's latency.

Weights are 8-bit, activations are quantized dynamically; sentence vectors keep a cosine similarity of .997 or
more to the float32 ones. Exported files are cached under `$MOM_HOME/embedders`.
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
BLOCK_SIZE = 32  # weights that share a scale
MIN_COSINE = 0.995  # of hidden states to torch's; an export below it is discarded
_FORMAT = 2
_PACKAGES = ("onnxruntime", "onnx", "onnxscript")
log = logging.getLogger(__name__)


def use_onnx_runtime(encoder: Any, name: str) -> bool:
    """Replace the transformer of a sentence-transformers encoder by its ONNX export; whether that was done.

    It is not without the packages, nor (which is logged) for a transformer that cannot be exported or whose
    export differs. The export takes some ten seconds, once for the same weights.
    """
    if any(find_spec(package) is None for package in _PACKAGES):
        return False
    model = encoder[0].model.float()
    path = home.home() / "embedders" / f"{name.replace('/', '--')}-{_digest(model)}.onnx"
    try:
        encoder[0].model = _load_or_export(path, model)
    except Exception as error:  # noqa: BLE001 - exporters do not document what they raise for unknown modules
        log.warning("%s runs in torch, not in ONNX Runtime: %s", name, error)
        return False
    return True


def _load_or_export(path: Path, model: Any) -> Any:
    """The transformer from its cached file, which is exported where it is missing or damaged."""
    if path.is_file():
        with suppress(Exception):  # ONNX Runtime's errors have no common base class
            return _onnx_module(path, model.config)
    _export(model, path)
    return _onnx_module(path, model.config)


def _onnx_module(path: Path, config: Any) -> Any:
    """A torch module that runs an exported file, with the transformer's interface."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    session = _session(path)
    input_names = [node.name for node in session.get_inputs()]

    class OnnxTransformer(torch.nn.Module):
        """Runs the exported file."""

        def __init__(self) -> None:
            super().__init__()
            self.config = config

        def hidden_states(self, *inputs: NDArray[np.int64]) -> NDArray[np.float32]:
            """The last hidden states (texts, tokens, dim) for the three INPUTS, (texts, tokens) each."""
            by_name = dict(zip(INPUTS, inputs, strict=True))
            (output,) = session.run(None, {name: by_name[name] for name in input_names})
            states: NDArray[np.float32] = output
            return states

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None, **_: Any) -> Any:
            type_ids = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            states = self.hidden_states(input_ids.numpy(), attention_mask.numpy(), type_ids.numpy())
            return BaseModelOutput(last_hidden_state=torch.from_numpy(states))

    return OnnxTransformer()


def _session(path: Path) -> Any:
    """A single-threaded ONNX Runtime session on the CPU; `router.embedding.sentence.one_thread` says why."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _export(model: Any, path: Path) -> None:
    """Export, quantize and compare; the file is renamed into place only then."""
    with atomic.staged(path, force=True) as partial:
        _quantize(_to_onnx(model), partial)
        _check_equal(model, _onnx_module(partial, model.config))


def _to_onnx(model: Any) -> Any:
    """The float32 transformer as an ONNX graph with dynamic batch and sequence axes."""
    import torch

    class HiddenStates(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.model(**dict(zip(names, inputs, strict=True))).last_hidden_state
            return states

    example = _example_inputs(model)
    names = list(example)
    dims = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens", max=_max_positions(model))}
    with warnings.catch_warnings(), _silence_exporters():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            HiddenStates().eval(), tuple(example.values()), input_names=names, dynamo=True, verbose=False,
            dynamic_shapes=((dims,) * len(names),),
        )  # fmt: skip
    assert program is not None
    return program.model_proto


def _quantize(graph: Any, path: Path) -> None:
    """Write the graph with 8-bit weight matrices.

    Down projections (an FFN's second matrix) have outliers among their inputs that spoil a per-row scale:
    they get block-wise scales. The others use 7 bits, so that sums of two products fit into 16 bits on every
    CPU.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    with _silence_exporters():
        quantize_dynamic(
            graph, path, ["MatMul"], per_channel=True, reduce_range=True, weight_type=QuantType.QInt8,
            nodes_to_exclude=_down_projections(graph),
        )  # fmt: skip
        config = DefaultWeightOnlyQuantConfig(
            block_size=BLOCK_SIZE, is_symmetric=True, accuracy_level=4, bits=8
        )
        quantizer = MatMulNBitsQuantizer(onnx.load(path), algo_config=config)
        quantizer.process()
    onnx.save(quantizer.model.model, path)


def _down_projections(graph: Any) -> list[str]:
    """Names of the MatMul nodes whose weight has fewer outputs than inputs."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    matmuls = [node for node in graph.graph.node if node.op_type == "MatMul" and node.input[1] in shapes]
    return [node.name for node in matmuls if shapes[node.input[1]][0] > shapes[node.input[1]][1]]


def _check_equal(model: Any, exported: Any) -> None:
    """Refuse an export whose hidden states differ from torch's.

    Raises:
        ValueError: their cosine similarity is below `MIN_COSINE`.
    """
    import torch

    inputs = _example_inputs(model)
    with torch.no_grad():
        actual, expected = (each(**inputs).last_hidden_state.float() for each in (exported, model))
    cosine = float(torch.nn.functional.cosine_similarity(actual, expected, dim=-1).mean())
    if not cosine >= MIN_COSINE:
        raise ValueError(f"its hidden states differ from torch's: cosine {cosine:.4f}, expected {MIN_COSINE}")


def _example_inputs(model: Any) -> dict[str, Any]:
    """Two texts of seven random tokens, by input name."""
    import inspect

    import torch

    rng = np.random.default_rng(0)
    ids: NDArray[np.int64] = rng.integers(0, model.config.vocab_size, (2, 7))
    inputs = (
        torch.from_numpy(ids),
        torch.ones(2, 7, dtype=torch.int64),
        torch.zeros(2, 7, dtype=torch.int64),
    )
    parameters = inspect.signature(model.forward).parameters
    return {name: tensor for name, tensor in zip(INPUTS, inputs, strict=True) if name in parameters}


def _max_positions(model: Any) -> int:
    return int(getattr(model.config, "max_position_embeddings", 512))


def _digest(model: Any) -> str:
    """A hash of the weights and of the export's format."""
    digest = hashlib.sha256(f"{_FORMAT} {BLOCK_SIZE}".encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.float().numpy()).data)
    return digest.hexdigest()[:12]


@contextmanager
def _silence_exporters() -> Iterator[None]:
    """No log lines below errors."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
