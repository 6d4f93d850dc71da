"""Healing on rows longer than the sliding window, where full and sliding attention differ."""

from dataclasses import replace
from pathlib import Path

from slices.heal import memory_bound
from slices.heal.heal import heal
from slices.heal.request import HealRequest
from slices.heal.settings import HealConfig
from tests.slices.heal_fixtures import parent_gemma4, sentences, slice_of

LONG = HealConfig(
    steps=24, row_tokens=1024, batch=1, eval_every=12, hard_label_weight=0.0, lr=1e-2, precision="float32",
    warmup_steps=2, compiled=False,
)  # fmt: skip


def test_a_swa_slice_heals_on_rows_beyond_its_window(tmp_path: Path) -> None:
    """A window of 16 tokens and rows of 1,024: the teacher sees what the slice cannot."""
    swa = slice_of(parent_gemma4(tmp_path / "parent"), tmp_path / "swa", "swa")
    healed = heal(HealRequest(swa, tmp_path / "healed", sentences(), LONG, threads=1))
    assert healed.after.kl.value < healed.before.kl.value
    assert healed.manifest.healing is not None
    assert healed.manifest.healing["settings"]["row_tokens"] == 1024
    assert healed.manifest.healing["tokens"] == 24 * 1024


def test_the_memory_bound_counts_masks_that_grow_with_the_square_of_a_row(tmp_path: Path) -> None:
    swa = slice_of(parent_gemma4(tmp_path / "parent"), tmp_path / "swa", "swa")
    short, middle, long = (
        memory_bound.bound(swa, None, replace(LONG, row_tokens=tokens), 4).activations
        for tokens in (1024, 2048, 4096)
    )
    assert long - middle - 2 * (middle - short) > 2 * 2048 * 2048  # linear in a row, were it 0
    assert long > 4 * short - (middle - short)
