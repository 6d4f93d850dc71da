"""The embedders of a settings value, in cascade order: cheapest first."""

from router.embedding import char_ngrams, word_ngrams
from router.embedding.char_ngrams import CharNgramEmbedder
from router.embedding.embedder import Embedder, HashEmbedder
from router.embedding.lazy import LazyEmbedder
from router.embedding.sentence import MINILM, SentenceEmbedder, encoder_name, is_finetuned, open_encoder
from router.embedding.static import open_static, static_name
from router.embedding.word_ngrams import WordNgramEmbedder
from slices.progress import Progress, no_progress

HASH = "hash"  # the fake, alone
STATIC = "static"  # n-grams and MiniLM's static embeddings: decisions in a few milliseconds, without torch


def open_embedders(source: str | None, progress: Progress = no_progress) -> tuple[Embedder, ...]:
    """Word n-grams, character n-grams, and an encoder, which is loaded when it first embeds.

    Args:
        source: a folder or hub id of the encoder (None is the one that ships); `static` takes MiniLM's static
            embeddings in its place; `hash` is the fake for tests.
        progress: called while static embeddings are distilled, once.

    Raises:
        MissingExtra: a package of the extra [route] is not installed.
    """
    if source == HASH:
        return (HashEmbedder(),)
    sparse = (WordNgramEmbedder(), CharNgramEmbedder())
    if source == STATIC:
        return (*sparse, open_static(MINILM, lambda: open_encoder(MINILM), progress))
    return (
        *sparse,
        LazyEmbedder(encoder_name(source), is_finetuned(source), lambda: SentenceEmbedder(source)),
    )


def embedder_names(source: str | None) -> tuple[str, ...]:
    """The names of `open_embedders(source)`, without loading them."""
    if source == HASH:
        return (HashEmbedder().name,)
    last = static_name(MINILM) if source == STATIC else encoder_name(source)
    return (word_ngrams.embedder_name(), char_ngrams.embedder_name(), last)


def text_encoder(last: Embedder, source: str | None) -> LazyEmbedder | None:
    """The encoder of texts for embeddings: a router's last embedder, or plain MiniLM for the one that ships.

    Args:
        source: as for `open_embedders`; None where it has no encoder.
    """
    if not isinstance(last, LazyEmbedder):
        return None
    return last if source else LazyEmbedder(MINILM, False, lambda: SentenceEmbedder(MINILM))
