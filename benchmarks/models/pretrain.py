"""Training the reference model: AdamW, a warm-up, a straight line down to nothing; goes on after a kill.

The state (weights and moments, float32) is one safetensors file named by its step, and a record beside it,
written last. Rows are drawn by seed and step alone, so a run that was killed comes to the same bits.
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models.reference_e4b import Sizes, new_model
from slices.device import Device
from slices.errors import BadCheckpoint, RunFailed
from slices.files import atomic

SAVE_SECONDS = 120.0
_RECORD, _BETAS, _CLIP, _DECAY = "run.json", (0.9, 0.95), 1.0, 0.1
Tell = Callable[[int, float, float, float | None], None]  # step, loss, tokens/s, held-out loss or None


def train(
    stream: NDArray[np.int32],
    heldout: NDArray[np.int32],
    sizes: Sizes,
    device: Device,
    folder: Path,
    every: int,
    tell: Tell,
) -> tuple[Any, list[dict[str, float]]]:
    """The trained model, and the held-out curve: step, loss in nats a token.

    Args:
        stream: token ids of the text to learn, a bos before each document.
        heldout: rows to measure on, (rows, context).
        folder: where the state is kept, and found again.

    Raises:
        RunFailed: the loss is not finite; the last good state stays in `folder`.
        BadCheckpoint: the state in `folder` is damaged or of other sizes.
    """
    model = new_model(sizes).to(device.name).train()
    optimizer = _optimizer(model, sizes)
    step, curve = _resume(folder, sizes, model, optimizer)
    first, begun, saved = step, time.monotonic(), time.monotonic()
    while step < sizes.steps:
        loss = _step(model, optimizer, rows_of(stream, sizes, step), sizes, step, device)
        if not math.isfinite(loss):
            raise RunFailed(
                f"step {step + 1}: the loss is {loss}; the state of step {_kept(folder)} stays in {folder}"
            )
        step += 1
        measured = evaluate(model, heldout, device) if step % every == 0 or step == sizes.steps else None
        if measured is not None:
            curve.append({"step": step, "loss": measured})
        speed = (step - first) * sizes.batch * sizes.context / max(time.monotonic() - begun, 1e-9)
        tell(step, loss, speed, measured)
        if measured is not None or time.monotonic() - saved > SAVE_SECONDS:
            _save(folder, sizes, step, curve, model, optimizer)
            saved = time.monotonic()
    return model, curve


def rows_of(stream: NDArray[np.int32], sizes: Sizes, step: int) -> NDArray[np.int32]:
    """The rows of a step, (batch, context): a bos and what follows a place drawn by seed and step."""
    draw = np.random.default_rng([sizes.seed, step])
    starts = draw.integers(0, len(stream) - sizes.context, sizes.batch)
    body = stream[starts[:, None] + np.arange(sizes.context - 1)]
    return np.concatenate([np.full((sizes.batch, 1), 2, dtype=np.int32), body], axis=1)


def evaluate(model: Any, heldout: NDArray[np.int32], device: Device) -> float:
    """The mean loss over rows, in nats a token."""
    import torch

    losses = []
    with torch.no_grad():
        for row in heldout:
            losses.append(float(_loss(model, row[None], device)))
    return sum(losses) / len(losses)


def schedule(step: int, sizes: Sizes) -> float:
    """The share of the full rate at a step."""
    rising = (step + 1) / sizes.warmup if step < sizes.warmup else 1.0
    return rising * (1 - step / sizes.steps)


def _step(
    model: Any, optimizer: Any, rows: NDArray[np.int32], sizes: Sizes, step: int, device: Device
) -> float:
    """One correction; nothing changes where the loss is not finite."""
    import torch

    loss = _loss(model, rows, device)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
    finite = bool(torch.isfinite(norm)) and math.isfinite(float(loss.detach()))
    if finite:
        for group in optimizer.param_groups:
            group["lr"] = sizes.rate * schedule(step, sizes)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach()) if finite else math.nan


def _loss(model: Any, rows: NDArray[np.int32], device: Device) -> Any:
    import torch

    tokens = torch.tensor(rows, dtype=torch.int64, device=device.name)
    with device.autocast():
        logits = model(input_ids=tokens, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten())


def _optimizer(model: Any, sizes: Sizes) -> Any:
    """AdamW; gains and scalars are not decayed."""
    from torch.optim import AdamW

    matrices = [value for value in model.parameters() if value.ndim > 1]
    gains = [value for value in model.parameters() if value.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": _DECAY}, {"params": gains, "weight_decay": 0.0}]
    return AdamW(groups, lr=sizes.rate, betas=_BETAS, fused=True)


def _save(
    folder: Path, sizes: Sizes, step: int, curve: Sequence[Mapping[str, float]], model: Any, optimizer: Any
) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, value in model.named_parameters():
        tensors[f"weight.{name}"] = value.detach().cpu().clone()
        for key in ("exp_avg", "exp_avg_sq"):
            tensors[f"{key}.{name}"] = optimizer.state[value][key].detach().cpu().clone()
    with atomic.staged(folder / f"state-{step}.safetensors", force=True) as partial:
        save_file(tensors, partial)
    record = {"sizes": asdict(sizes), "step": step, "curve": list(curve)}
    atomic.write_text(folder / _RECORD, json.dumps(record) + "\n")
    for old in folder.glob("state-*.safetensors"):
        if old.name != f"state-{step}.safetensors":
            old.unlink()


def _resume(folder: Path, sizes: Sizes, model: Any, optimizer: Any) -> tuple[int, list[dict[str, float]]]:
    """The step and curve that were come to, weights and moments put back; 0 where there is no state."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / _RECORD).is_file():
        return 0, []
    try:
        record = json.loads((folder / _RECORD).read_text())
        if record["sizes"] != asdict(sizes):
            raise BadCheckpoint(f"{folder} holds a run of other sizes: {record['sizes']}; delete it")
        step = int(record["step"])
        tensors = load_file(folder / f"state-{step}.safetensors")
    except (ValueError, KeyError, OSError, SafetensorError) as error:
        raise BadCheckpoint(f"{folder}: damaged state: {error}; delete it to begin anew") from None
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.copy_(tensors[f"weight.{name}"])
            moments = {key: tensors[f"{key}.{name}"].to(value.device) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[value] = {"step": torch.tensor(float(step), device=value.device), **moments}
    return step, record["curve"]


def _kept(folder: Path) -> int:
    return int(json.loads((folder / _RECORD).read_text())["step"]) if (folder / _RECORD).is_file() else 0
