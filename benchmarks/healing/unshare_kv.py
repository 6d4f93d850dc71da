"""A slice whose layers share K/V, made into one whose layers all have their own: `shared_kv_layers = 0`.

So the first experiments on Gemma 4 had it. What each formerly sharing layer then computes K/V with is either
noise, as untrained weights are, or a copy of its donor's matrices, which now read that layer's own input.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from slices import manifest
from slices.architecture.anatomy import Anatomy, read_anatomy
from slices.checkpoint import open_checkpoint

NOISE = 0.02  # the standard deviation that transformers draws matrices with


def unshare(source: Path, target: Path, by: str, seed: int = 0) -> Path:
    """Write `target`: the slice in `source` with nothing shared; `by` is "noise" or "donor"."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target)
    (target / manifest.FILE).unlink()
    before = read_anatomy(open_checkpoint(source).config)
    config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["num_kv_shared_layers"] = 0
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    found = load_file(source / "model.safetensors")
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in read_anatomy(config).tensors.items():
        if f"model.{name}" in found or tensor.layer is None:
            continue
        donor = _of_donor(name, before)
        if by == "donor":
            value = found[f"model.{donor}"].clone()
        elif len(tensor.shape) == 1:
            value = torch.ones(tensor.shape, dtype=torch.bfloat16)
        else:
            value = (NOISE * torch.randn(tensor.shape, generator=draw)).to(torch.bfloat16)
        found[f"model.{name}"] = value
    save_file(found, target / "model.safetensors", metadata={"format": "pt"})
    made = manifest.read(source)
    size = (target / "model.safetensors").stat().st_size
    manifest.write(target, made.model_copy(update={"name": target.name, "bytes": size}))
    return target


def _of_donor(name: str, anatomy: Anatomy) -> str:
    """The tensor of the same role in the layer whose K/V this one shared."""
    parts = name.split(".")
    place = next(index for index, part in enumerate(parts) if part.isdigit())
    donor = anatomy.layers[int(parts[place])].donor
    return ".".join([*parts[:place], str(donor), *parts[place + 1 :]])
