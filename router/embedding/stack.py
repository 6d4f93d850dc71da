"""The embedders of a settings value, in cascade order: cheapest first."""

from router.embedding import char_ngrams, word_ngrams
from router.embedding.char_ngrams import CharNgramEmbedder
from router.embedding.embedder import Embedder, HashEmbedder
from router.embedding.sentence import SentenceEmbedder, encoder_name, open_encoder
from router.embedding.static import open_static, static_name
from router.embedding.word_ngrams import WordNgramEmbedder
from slices.progress import Progress, no_progress

HASH = "hash"  # the fake, alone
STATIC = "static"  # n-grams and MiniLM's static embeddings: decisions in a few milliseconds, without torch


def open_embedders(source: str | None, progress: Progress = no_progress) -> tuple[Embedder, ...]:
    """Word n-grams, character n-grams, an encoder's static embeddings, and the encoder.

    Args:
        source: a folder or hub id of the encoder (None is MiniLM); `static` leaves the encoder out; `hash` is
            the fake for tests.
        progress: called while static embeddings are distilled, once for each encoder.

    Raises:
        MissingExtra: a package of the extra [route] is not installed.
        BadSettings: there is no such encoder.
    """
    if source == HASH:
        return (HashEmbedder(),)
    encoder = None if source == STATIC else source
    static = open_static(encoder_name(encoder), lambda: open_encoder(encoder), progress)
    cheap = (WordNgramEmbedder(), CharNgramEmbedder(), static)
    return cheap if source == STATIC else (*cheap, SentenceEmbedder(encoder))


def embedder_names(source: str | None) -> tuple[str, ...]:
    """The names of `open_embedders(source)`, without loading them."""
    if source == HASH:
        return (HashEmbedder().name,)
    encoder = encoder_name(None if source == STATIC else source)
    cheap = (word_ngrams.embedder_name(), char_ngrams.embedder_name(), static_name(encoder))
    return cheap if source == STATIC else (*cheap, encoder)
