"""The teacher's output layer over the slice's vocabulary: what becomes of tokens that the slice lacks.

`drop` computes the kept rows alone, so their probabilities are renormalized. `first-piece` computes all of
the parent's rows and gives each lost token's probability to its first piece (`slices.measure.token_map`).
"""

from dataclasses import dataclass
from typing import Any, Protocol

from slices.heal.objective import OutputHead
from slices.heal.settings import LostTokens
from slices.measure.token_map import TokenMap

PARENT_CHUNK = 64  # positions whose logits over the parent's whole vocabulary are in memory at once


class TeacherHead(Protocol):
    """Log probabilities over the slice's vocabulary from the parent's hidden states."""

    def logprobs(self, hidden: Any) -> Any:
        """Log probabilities, float32 (positions, slice vocabulary), of states (positions, hidden)."""
        ...


@dataclass(frozen=True)
class KeptRows:
    """The parent's distribution on the kept tokens, renormalized."""

    head: OutputHead

    def logprobs(self, hidden: Any) -> Any:
        """As `TeacherHead`."""
        return self.head.logprobs(hidden)[0]


@dataclass(frozen=True)
class FirstPieces:
    """The parent's distribution with each lost token's probability at its first piece.

    What has no first piece, rows without a token as a rule, is left out by `head`'s mask.

    Attributes:
        head: all of the parent's rows.
        pieces: the slice's row of each of the parent's, int64 (parent vocabulary,); masked rows have any.
        rows: of the slice's vocabulary.
    """

    head: OutputHead
    pieces: Any
    rows: int

    def logprobs(self, hidden: Any) -> Any:
        """As `TeacherHead`."""
        import torch

        found = torch.zeros(len(hidden), self.rows, device=hidden.device)
        for start in range(0, len(hidden), PARENT_CHUNK):
            at = slice(start, start + PARENT_CHUNK)
            found[at].index_add_(1, self.pieces, self.head.logprobs(hidden[at])[0].exp_())
        return found.log_()


def teacher_head(model: Any, token_map: TokenMap, lost_tokens: LostTokens) -> TeacherHead:
    """The output layer of the parent `model` for a slice.

    Without a lost token that can be spelled both are the same, and the smaller one is taken.
    """
    import torch

    weight = model.get_output_embeddings().weight
    softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    if lost_tokens == LostTokens.FIRST_PIECE and len(token_map.spelled):
        pieces = torch.tensor(token_map.first_pieces, device=weight.device)
        head = OutputHead(weight, softcap, _mask(pieces))
        return FirstPieces(head=head, pieces=pieces.clamp(min=0), rows=len(token_map.ids))
    ids = torch.tensor(token_map.ids, device=weight.device)
    return KeptRows(OutputHead(weight[ids.clamp(min=0)], softcap, _mask(ids)))


def _mask(ids: Any) -> Any | None:
    """Minus infinity for rows whose id is negative, else 0, float32 (rows,); None where none is."""
    import torch

    if not bool((ids < 0).any()):
        return None
    return torch.zeros(len(ids), device=ids.device).masked_fill(ids < 0, -torch.inf)
