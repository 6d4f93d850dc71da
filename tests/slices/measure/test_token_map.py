"""Which of a parent's tokens a slice's rows are, and by which piece the slice begins to spell the others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from slices.errors import BadCheckpoint, NotFound
from slices.measure.token_map import token_map
from tests.slices.gguf_fixtures import FULL, SLIDING, cut_by_prose, write_gemma3


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gemma3(tmp_path_factory.mktemp("pico") / "pico", [SLIDING, FULL])


@pytest.fixture(scope="module")
def cut_pico(pico: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut_by_prose(pico, tmp_path_factory.mktemp("cut"))


def test_rows_are_those_of_the_parent(cut_pico: Path, pico: Path) -> None:
    ids = token_map(cut_pico, pico).ids
    ours, theirs = (json.loads((f / "tokenizer.json").read_text()) for f in (cut_pico, pico))
    names = {index: token for token, index in theirs["model"]["vocab"].items()}
    assert [names[int(i)] for i in ids] == sorted(ours["model"]["vocab"], key=ours["model"]["vocab"].get)
    rows = json.loads((pico / "config.json").read_text())["vocab_size"]
    whole = token_map(pico, pico)
    assert list(whole.ids) == [*range(rows - 3), -1, -1, -1]  # the pico's last rows are no token
    assert (whole.first_pieces == whole.ids).all()
    assert not len(whole.spelled)
    with pytest.raises(BadCheckpoint, match="so it is no parent"):
        token_map(pico, cut_pico)
    (cut_pico / "tokenizer.json").rename(cut_pico / "kept.json")
    with pytest.raises(NotFound, match=r"has no tokenizer\.json"):
        token_map(cut_pico, pico)
    (cut_pico / "kept.json").rename(cut_pico / "tokenizer.json")


def test_a_lost_token_goes_to_the_first_piece_that_spells_it(cut_pico: Path, pico: Path) -> None:
    found = token_map(cut_pico, pico)
    ours, theirs = (
        json.loads((f / "tokenizer.json").read_text())["model"]["vocab"] for f in (cut_pico, pico)
    )
    kept = [token for token in theirs if token in ours]
    assert [found.first_pieces[theirs[token]] for token in kept] == [ours[token] for token in kept]
    tokenizer = Tokenizer.from_file(str(cut_pico / "tokenizer.json"))
    lost = [token for token in theirs if token not in ours]
    assert len(lost) > 50
    assert sorted(found.spelled) == sorted(theirs[token] for token in lost)
    for token in lost:
        pieces = tokenizer.encode(token.replace("▁", " "), add_special_tokens=False)
        assert found.first_pieces[theirs[token]] == pieces.ids[0]
        first = pieces.tokens[0]
        assert token.startswith(first) or first == f"<0x{token.encode()[0]:02X}>"
    assert list(found.first_pieces[-3:]) == [-1, -1, -1]  # rows without a token


def test_what_has_no_text_has_no_first_piece(cut_pico: Path, pico: Path, tmp_path: Path) -> None:
    """A slice made by other means may lack a control token or a byte: neither is spelled as text."""
    shutil.copytree(cut_pico, tmp_path / "slice")
    file = tmp_path / "slice" / "tokenizer.json"
    raw = json.loads(file.read_text())
    control = next(each for each in raw["added_tokens"] if each["content"] == "<start_of_turn>")
    raw["added_tokens"].remove(control)
    ids = {token: raw["model"]["vocab"].pop(token, None) for token in ("<start_of_turn>", "<0x41>")}
    assert ids["<0x41>"] is not None
    file.write_text(json.dumps(raw))
    found, before = token_map(tmp_path / "slice", pico), token_map(cut_pico, pico)
    vocab = json.loads((pico / "tokenizer.json").read_text())["model"]["vocab"]
    gone = [vocab["<start_of_turn>"], vocab["<0x41>"]]
    assert list(found.first_pieces[gone]) == [-1, -1]
    assert not set(gone) & set(found.spelled)
    assert (np.delete(found.first_pieces, gone) == np.delete(before.first_pieces, gone)).all()
