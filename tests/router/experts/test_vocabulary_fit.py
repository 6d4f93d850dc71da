"""Token counts of real byte-level BPE tokenizers: one trained on English, one on English and German."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from router.errors import BadExperts
from router.experts.vocabulary_fit import TOKENIZER, VocabularyFit
from router.settings import PolicySettings

ENGLISH = "May my landlord evict me without notice if the rent was paid in time?"
GERMAN = "Darf mein Vermieter mir ohne Frist kündigen, wenn die Miete rechtzeitig bezahlt wurde?"


def train(folder: Path, texts: Sequence[str]) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(list(texts) * 4, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / TOKENIZER))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    found = {
        "gen": train(root / "gen", [ENGLISH, GERMAN]),
        "lex": train(root / "lex", [ENGLISH]),
        "same": train(root / "same", [ENGLISH, GERMAN]),
    }
    (root / "none").mkdir()
    return found | {"none": root / "none"}


def count(folder: Path, text: str) -> int:
    return len(Tokenizer.from_file(str(folder / TOKENIZER)).encode(text).ids)


def test_a_query_of_a_language_that_was_cut(folders: dict[str, Path]) -> None:
    fit = VocabularyFit(folders, "gen", 1.3)
    fit.load()
    ours, theirs = count(folders["lex"], GERMAN), count(folders["gen"], GERMAN)
    assert ours > 2 * theirs
    assert fit.misfit(GERMAN, "lex") == (
        f"the query has {ours} tokens in the vocabulary of lex and {theirs} in that of gen, "
        "over 1.3 times as many"
    )
    assert fit.misfit(ENGLISH, "lex") is None


@pytest.mark.parametrize("expert", ["same", "none", "gen"])
def test_what_is_never_checked(folders: dict[str, Path], expert: str) -> None:
    assert VocabularyFit(folders, "gen", 1.0).misfit(GERMAN, expert) is None


def test_no_limit_and_no_tokenizer_of_the_generalist(folders: dict[str, Path]) -> None:
    assert VocabularyFit(folders, "gen", None).misfit(GERMAN, "lex") is None
    assert VocabularyFit(folders, "none", 1.0).misfit(GERMAN, "lex") is None
    assert VocabularyFit(folders, "gen", 100.0).misfit(GERMAN, "lex") is None


@pytest.mark.parametrize(
    ("text", "fits"), [("", True), ("\ud800", True), ("\x00", True), (GERMAN * 999, False)]
)
def test_any_text_can_be_counted(folders: dict[str, Path], text: str, fits: bool) -> None:
    assert (VocabularyFit(folders, "gen", 1.3).misfit(text, "lex") is None) == fits


def test_a_damaged_tokenizer_is_named(tmp_path: Path, folders: dict[str, Path]) -> None:
    (tmp_path / TOKENIZER).write_text("{")
    fit = VocabularyFit(folders | {"bad": tmp_path}, "gen", 1.3)
    with pytest.raises(BadExperts, match="is no tokenizer"):
        fit.load()


@pytest.mark.parametrize("value", [0.9, "much", float("nan")])
def test_the_setting_is_validated(value: object) -> None:
    with pytest.raises(ValidationError, match="max_token_ratio"):
        PolicySettings.model_validate({"max_token_ratio": value})
