"""The embedders that a setting names, from cheap to dear."""

from router.embedding.char_ngrams import PLACES as LETTERS
from router.embedding.char_ngrams import LetterEmbedder
from router.embedding.embedder import Embedder, HashEmbedder
from router.embedding.sentence import SentenceEmbedder, encoder_name, open_encoder
from router.embedding.static import Told, static_name, static_of
from router.embedding.word_ngrams import PLACES as WORDS
from router.embedding.word_ngrams import WordEmbedder

HASH = "hash"  # the fake, alone
STATIC = "static"  # words, letters and MiniLM's table: decisions in a few milliseconds, without torch


def open_embedders(source: str | None, told: Told = lambda done, of: None) -> tuple[Embedder, ...]:
    """Words, letters, an encoder's table and the encoder; `source` is a folder or hub id, None is MiniLM.

    Args:
        source: or `static`, which leaves MiniLM itself out, or `hash`, the fake for tests.
        told: called while a table is distilled, which happens once for each encoder.

    Raises:
        MissingExtra: a package of the extra [route] is not installed.
        BadSettings: there is no such encoder.
    """
    if source == HASH:
        return (HashEmbedder(),)
    only_table = source == STATIC
    where = None if only_table else source
    table = static_of(encoder_name(where), lambda: open_encoder(where), told)
    cheap = (WordEmbedder(), LetterEmbedder(), table)
    return cheap if only_table else (*cheap, SentenceEmbedder(where))


def embedder_names(source: str | None) -> tuple[str, ...]:
    """The names that `open_embedders(source)` will have, without loading them."""
    if source == HASH:
        return (HashEmbedder().name,)
    encoder = encoder_name(None if source == STATIC else source)
    cheap = (f"words-{WORDS}", f"letters-{LETTERS}", static_name(encoder))
    return cheap if source == STATIC else (*cheap, encoder)
