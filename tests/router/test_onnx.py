"""An encoder through ONNX Runtime: torch's vectors, a file made once, and torch where there can be none."""

from pathlib import Path

import numpy as np
import pytest

import router.sentence
from router import onnx
from router.sentence import SentenceEmbedder
from tests.router.pico_encoder import write_encoder

TEXTS = ["law court", "a b c d e f g h i j", "enzyme", "", "cells law cell court " * 30]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def in_torch(folder: Path) -> SentenceEmbedder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(router.sentence, "hasten", lambda encoder, name: False)
        return SentenceEmbedder(folder)


def files(home: Path) -> list[Path]:
    return sorted((home / "embedders").iterdir())


def test_vectors_are_those_of_torch_alone_and_among_others(folder: Path, mom_home: Path) -> None:
    quick, slow = SentenceEmbedder(folder), in_torch(folder)
    (made,) = files(mom_home)
    assert made.name.startswith("pico-") and made.suffix == ".onnx"
    theirs = slow.embed(TEXTS)
    for ours in (quick.embed(TEXTS), np.concatenate([quick.embed([text]) for text in TEXTS])):
        assert ours.shape == theirs.shape and ours.dtype == np.float32
        assert (ours * theirs).sum(axis=1) == pytest.approx(1, abs=5e-3)
    assert (quick.encode(TEXTS) * slow.encode(TEXTS)).sum(axis=1) == pytest.approx(1, abs=5e-3)


def test_a_file_is_made_once_and_anew_for_other_weights(folder: Path, mom_home: Path, tmp_path: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    first = SentenceEmbedder(folder).embed(TEXTS)
    (made,) = files(mom_home)
    stamp = made.stat().st_mtime_ns
    assert (SentenceEmbedder(folder).embed(TEXTS) == first).all()
    assert (files(mom_home), made.stat().st_mtime_ns) == ([made], stamp)
    changed = SentenceTransformer(str(folder), device="cpu")
    with torch.no_grad():
        next(changed.parameters()).mul_(-2)
    changed.save(str(tmp_path / "pico"))
    assert not np.allclose(SentenceEmbedder(tmp_path / "pico").embed(TEXTS), first, atol=1e-2)
    assert len(files(mom_home)) == 2


def test_a_damaged_file_is_made_again(folder: Path, mom_home: Path) -> None:
    first = SentenceEmbedder(folder).embed(TEXTS)
    (made,) = files(mom_home)
    whole = made.stat().st_size
    made.write_bytes(made.read_bytes()[: whole // 2])
    assert (SentenceEmbedder(folder).embed(TEXTS) == first).all()
    assert files(mom_home) == [made] and made.stat().st_size == whole


def test_a_file_that_is_not_like_torch_is_not_kept(
    folder: Path, mom_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onnx, "ALIKE", 1.5)
    assert SentenceEmbedder(folder).embed(["law"]).shape == (1, 64)
    assert "its states are not torch's" in caplog.text
    assert files(mom_home) == []


def test_without_the_packages_torch_runs(
    folder: Path, mom_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    assert SentenceEmbedder(folder).embed(["law"]).shape == (1, 64)
    assert not (mom_home / "embedders").exists()
