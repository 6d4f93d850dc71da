"""An encoder in ONNX Runtime: torch's vectors, one export per set of weights, and torch as the fallback."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import router.embedding.sentence
from router.embedding import onnx_export
from router.embedding.sentence import SentenceEmbedder
from router.embedding.single_text import single_text_encoder
from tests.router.pico_encoder import write_encoder

TEXTS = ["law court", "a b c d e f g h i j", "enzyme", "", "cells law cell court " * 30]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def quick(folder: Path) -> Iterator[SentenceEmbedder]:
    """An encoder in ONNX Runtime; $MOM_HOME holds its exported file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOM_HOME", str(folder.parent / "home"))
        yield SentenceEmbedder(folder)


def in_torch(folder: Path) -> SentenceEmbedder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(router.embedding.sentence, "use_onnx_runtime", lambda encoder, name: False)
        return SentenceEmbedder(folder)


def files(home: Path) -> list[Path]:
    return sorted((home / "embedders").iterdir())


def test_vectors_are_those_of_torch_one_by_one_and_in_a_batch(folder: Path, mom_home: Path) -> None:
    quick, slow = SentenceEmbedder(folder), in_torch(folder)
    (made,) = files(mom_home)
    assert made.name.startswith("pico-") and made.suffix == ".onnx"
    theirs = slow.embed(TEXTS)
    for ours in (quick.embed(TEXTS), np.concatenate([quick.embed([text]) for text in TEXTS])):
        assert ours.shape == theirs.shape and ours.dtype == np.float32
        assert (ours * theirs).sum(axis=1) == pytest.approx(1, abs=5e-3)
    assert (quick.encode(TEXTS) * slow.encode(TEXTS)).sum(axis=1) == pytest.approx(1, abs=5e-3)


def test_a_vector_does_not_depend_on_its_batch(quick: SentenceEmbedder) -> None:
    together = quick.embed(TEXTS)
    for at, text in enumerate(TEXTS):
        assert (quick.embed([text])[0] == together[at]).all()
    assert (quick.encode(TEXTS)[:3] == together[:3]).all()  # short texts are not truncated either way
    assert (quick.encode(TEXTS[4:]) != together[4:]).any()  # a long one is


def test_down_projections_have_block_wise_scales(quick: SentenceEmbedder, folder: Path) -> None:
    import onnx as format_

    (made,) = files(folder.parent / "home")
    kinds = [node.op_type for node in format_.load(made).graph.node]
    assert kinds.count("MatMulNBits") == 2  # of two layers, each the second of its FFN
    assert kinds.count("MatMulInteger") == 2 * 5


def test_an_encoder_with_other_pooling_has_no_fast_path(
    quick: SentenceEmbedder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    whole = SentenceTransformer(str(folder), device="cpu")
    whole[1] = Pooling(64, pooling_mode="cls")
    whole.save(str(tmp_path / "pico"))
    monkeypatch.setenv("MOM_HOME", str(folder.parent / "home"))  # where the same weights have their file
    other = SentenceEmbedder(tmp_path / "pico")
    assert quick._embed_one is not None and other._embed_one is None
    theirs = whole.encode(TEXTS[:3], normalize_embeddings=True)
    assert (other.embed(TEXTS[:3]) * theirs).sum(axis=1) == pytest.approx(1, abs=1e-2)


def test_a_tokenizer_without_a_backend_has_no_fast_path() -> None:
    assert single_text_encoder(SimpleNamespace(tokenizer=SimpleNamespace()), 64) is None


def test_an_export_is_cached_by_its_weights(folder: Path, mom_home: Path, tmp_path: Path) -> None:
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


def test_a_damaged_file_is_exported_again(folder: Path, mom_home: Path) -> None:
    first = SentenceEmbedder(folder).embed(TEXTS)
    (made,) = files(mom_home)
    whole = made.stat().st_size
    made.write_bytes(made.read_bytes()[: whole // 2])
    assert (SentenceEmbedder(folder).embed(TEXTS) == first).all()
    assert files(mom_home) == [made] and made.stat().st_size == whole


def test_an_export_that_differs_from_torch_is_discarded(
    folder: Path, mom_home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(onnx_export, "MIN_COSINE", 1.5)
    assert SentenceEmbedder(folder).embed(["law"]).shape == (1, 64)
    assert "its hidden states differ from torch's" in caplog.text
    assert files(mom_home) == []


def test_without_the_packages_torch_runs(
    folder: Path, mom_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    assert SentenceEmbedder(folder).embed(["law"]).shape == (1, 64)
    assert not (mom_home / "embedders").exists()
