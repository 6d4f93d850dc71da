"""What the teacher's probability of lost tokens becomes, against the parent's whole distribution."""

from pathlib import Path

import numpy as np
import pytest
import torch

from slices.device import choose_device
from slices.errors import BadConfig
from slices.heal.objective import OutputHead
from slices.heal.settings import HealConfig, LostTokens
from slices.heal.teacher import find_parent
from slices.heal.teacher_head import PARENT_CHUNK, KeptRows, TeacherHead, teacher_head
from slices.measure.lost_tokens import add_to_first_pieces, restrict_vocabulary
from tests.slices.heal_fixtures import parent_gemma3, slice_of


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    return slice_of(parent_gemma3(folder / "parent"), folder / "words", "all", "400")


def opened(slice_: Path, lost_tokens: LostTokens) -> tuple[TeacherHead, OutputHead]:
    """A slice's teacher head, and the parent's own."""
    folder, token_map = find_parent(slice_)
    model = choose_device("cpu", "float32", 1).load(folder, torch.float32).requires_grad_(False)
    return teacher_head(model, token_map, lost_tokens), OutputHead(model.get_output_embeddings().weight)


@pytest.mark.parametrize("lost_tokens", list(LostTokens))
def test_the_teacher_is_the_distribution_that_is_measured(lost_tokens: LostTokens, words: Path) -> None:
    """By the code of `mom eval`, at more positions than are computed at once."""
    head, whole = opened(words, lost_tokens)
    token_map = find_parent(words)[1]
    torch.manual_seed(1)
    states = torch.randn(2 * PARENT_CHUNK + 3, whole.weight.shape[1]) * 3
    parents = whole.logprobs(states)[0].numpy()
    dropped = restrict_vocabulary(parents, token_map.ids)[0]
    summed = add_to_first_pieces(parents, token_map)
    expected = summed if lost_tokens == LostTokens.FIRST_PIECE else dropped
    found = head.logprobs(states).numpy()
    assert found.dtype == np.float32
    assert np.exp(found) == pytest.approx(np.exp(expected), abs=1e-6)
    assert np.exp(found.astype(np.float64)).sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert abs(np.exp(summed) - np.exp(dropped)).max() > 0.01


def test_where_no_token_was_cut_only_one_head_is_needed(tmp_path: Path) -> None:
    whole = slice_of(parent_gemma3(tmp_path / "parent"), tmp_path / "slices" / "short", "drop:1")
    head, _ = opened(whole, LostTokens.FIRST_PIECE)
    assert isinstance(head, KeptRows)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(BadConfig, match="--lost-tokens last-piece: expected first-piece, drop"):
        HealConfig(lost_tokens="last-piece")  # type: ignore[arg-type]
