"""The parent with layers bypassed: KL to the whole parent on a sample of the domain's text.

A bypassed layer is replaced by the identity. One whose K/V other layers share still runs, for their sake.
The KL is over the tokens that are most frequent in the text, renormalized, so that a large vocabulary costs
little. `slices.scores.layers` and `slices.scores.removal` turn these figures into scores and an order.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slices.architecture.anatomy import Anatomy
from slices.checkpoint import Checkpoint
from slices.device import Device, choose_device
from slices.errors import RunFailed
from slices.estimate import Estimate, ratio
from slices.quant.calibration import token_batches
from slices.runtimes.decoder import capture_inputs, decoder_layers, final_norm
from slices.text.corpus import Corpus

MAX_TOKENS = 4096  # of the text
CONTEXT = 512
COMPARED_TOKENS = 8192  # of the vocabulary, in the KL
LayerStates = list[list[Any]]  # by batch: the input of each layer, and the output of the last


@dataclass(frozen=True)
class BypassModel:
    """The parent in torch, token batches, and the whole parent's log probabilities on them.

    Attributes:
        donors: layers whose K/V others share.
        batches: token ids, int64 (1, tokens) each.
        weight: rows of the output layer for the compared tokens, (compared tokens, hidden).
        parent_logprobs: by batch, float32 (tokens, compared tokens).
    """

    model: Any
    device: Device
    donors: frozenset[int]
    batches: tuple[Any, ...]
    weight: Any
    softcap: float | None
    parent_logprobs: tuple[Any, ...] = ()

    def states(self, bypassed: Collection[int] = ()) -> LayerStates:
        """Each layer's input and the last output, by batch: layers + 1 tensors of (1, tokens, hidden)."""
        states: LayerStates = []
        modules = [*self.layers, final_norm(self.model)]
        for tokens in self.batches:
            with _bypass(self.layers, bypassed, {}, self.donors), capture_inputs(modules) as captured:
                self._run(tokens)
            states.append(captured)
        return states

    def kl(self, bypassed: Sequence[int], known: LayerStates | None = None) -> Estimate:
        """KL(parent || parent with layers bypassed), nats per token; the error is over batches (NaN for one).

        Args:
            known: the states with all of `bypassed` but the last; layers below that one are not run again.

        Raises:
            RunFailed: the log probabilities are not finite.
        """
        sums = np.array([self._batch_kl(index, bypassed, known) for index in range(len(self.batches))])
        if not np.isfinite(sums).all():
            raise RunFailed(
                f"bypassing layers {sorted(bypassed)} gives no finite probabilities: NaN weights?"
            )
        tokens = np.array([batch.shape[1] for batch in self.batches], dtype=np.float64)
        return ratio(sums, tokens) if len(sums) > 1 else Estimate(float(sums[0] / tokens[0]), math.nan)

    @property
    def layers(self) -> Any:
        """The decoder's layers."""
        return decoder_layers(self.model)

    def logprobs(self, hidden: Any) -> Any:
        """Log probabilities of the compared tokens, float32 (tokens, compared), from (1, tokens, hidden)."""
        logits = (hidden[0].to(self.weight.dtype) @ self.weight.T).float()
        capped = (logits / self.softcap).tanh() * self.softcap if self.softcap else logits
        return capped.log_softmax(dim=-1)

    def forward(self, tokens: Any) -> Any:
        """Log probabilities of a batch, float32 (tokens, compared)."""
        return self.logprobs(self._run(tokens))

    def _batch_kl(self, index: int, bypassed: Sequence[int], known: LayerStates | None) -> float:
        outputs = {} if known is None else dict(enumerate(known[index][: bypassed[-1] + 1]))
        with _bypass(self.layers, bypassed, outputs, self.donors):
            logprobs = self.forward(self.batches[index])
        parent = self.parent_logprobs[index]
        return float((parent.exp() * (parent - logprobs)).sum())

    def _run(self, tokens: Any) -> Any:
        import torch

        with torch.inference_mode(), self.device.autocast():
            return self.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state


def load_bypass_model(
    checkpoint: Checkpoint, anatomy: Anatomy, text: Corpus, max_tokens: int = MAX_TOKENS, device: str = "auto"
) -> BypassModel:
    """Load the parent and run it once over the text.

    Raises:
        MissingExtra: torch or transformers is not installed.
        NotFound: the parent has no tokenizer.json, or the text no token.
        RunFailed: the parent itself gives no finite probabilities.
    """
    import torch

    chosen = choose_device(device)
    model = chosen.load(checkpoint.folder, chosen.compute).requires_grad_(False).eval()
    ids = token_batches(checkpoint.folder, text.documents, max_tokens, CONTEXT)
    compared = torch.tensor(_compared_tokens(ids, anatomy.dims.vocab), device=chosen.name)
    loaded = BypassModel(
        model=model,
        device=chosen,
        donors=frozenset(anatomy.donors.values()),
        batches=tuple(torch.tensor([batch], device=chosen.name) for batch in ids),
        weight=model.get_output_embeddings().weight[compared],
        softcap=anatomy.config.get("final_logit_softcapping"),
    )
    logprobs = tuple(loaded.forward(batch) for batch in loaded.batches)
    if not all(bool(each.isfinite().all()) for each in logprobs):
        raise RunFailed(
            f"{checkpoint.folder} gives no finite probabilities: its weights hold NaN or infinity"
        )
    return replace(loaded, parent_logprobs=logprobs)


def _compared_tokens(batches: Sequence[Sequence[int]], vocabulary: int) -> list[int]:
    """`COMPARED_TOKENS` token ids, sorted: the text's most frequent ones, then the smallest others."""
    frequent = [token for token, _ in Counter(chain(*batches)).most_common(COMPARED_TOKENS)]
    known = set(frequent)
    others = (token for token in range(vocabulary) if token not in known)
    return sorted([*frequent, *islice(others, COMPARED_TOKENS - len(frequent))])


def block_influence(states: LayerStates) -> NDArray[np.float64]:
    """ShortGPT's block influence, (layers,): 1 - the mean cosine similarity of a layer's input and output."""
    import torch

    layers = len(states[0]) - 1
    sums, tokens = np.zeros(layers), 0
    for batch in states:
        tokens += batch[0].shape[1]
        for layer in range(layers):
            cosine = torch.cosine_similarity(batch[layer].float(), batch[layer + 1].float(), dim=-1)
            sums[layer] += float((1 - cosine).sum())
    return sums / tokens


@contextmanager
def _bypass(
    layers: Any, bypassed: Collection[int], outputs: Mapping[int, Any], donors: Collection[int]
) -> Iterator[None]:
    """Replace the bypassed layers by the identity, and layers below known states by those.

    Args:
        outputs: states by the index of the layer that they enter.
    """
    changed = [index for index in range(len(layers)) if index in bypassed or index + 1 in outputs]
    for index in changed:
        forward = layers[index].forward if index in donors else None
        layers[index].forward = _replacement(forward, outputs.get(index + 1))
    try:
        yield
    finally:
        for index in changed:
            del layers[index].forward


def _replacement(forward: Any, output: Any) -> Callable[..., Any]:
    """A forward that returns `output`, or its input for None; `forward` is run for its K/V alone."""

    def run(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        if forward is not None:
            forward(hidden_states.clone(), *args, **kwargs)  # it may scale in place
        return (hidden_states if output is None else output).clone()

    return run
