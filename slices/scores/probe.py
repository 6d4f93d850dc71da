"""A parent run with layers bypassed: how far its expectations move, on a sample of a domain's text.

A bypassed layer hands its input on. One whose K/V others read still runs, for their sake. Divergences are
over the tokens that are most frequent in the text, so that a big vocabulary costs little: what the parent
expects is shared out among them. What is made of the figures is in `slices.scores.layers` and `.removal`.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
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

TOKENS = 4096  # of the text
CONTEXT = 512
ROWS = 8192  # tokens of the vocabulary that are compared
Progress = Callable[[int, int], None]
States = list[list[Any]]  # of each stretch of text, what enters each layer and what leaves the last


@dataclass(frozen=True)
class Probe:
    """A loaded parent, stretches of text, and what the whole parent expects of each."""

    model: Any
    device: Device
    donors: frozenset[int]
    stretches: tuple[Any, ...]  # token ids, int64 (1, tokens)
    weight: Any  # of the output layer, (compared tokens, hidden)
    cap: float | None
    expected: tuple[Any, ...]  # log probabilities, float32 (tokens, compared tokens)

    def states(self, bypassed: Collection[int] = ()) -> States:
        """What enters each layer and leaves the last, by stretch: layers + 1 of (1, tokens, hidden)."""
        found: States = []
        for tokens in self.stretches:
            watched = [*self.layers, final_norm(self.model)]
            with _handing_on(self.layers, bypassed, {}, self.donors), capture_inputs(watched) as seen:
                self._run(tokens)
            found.append(seen)
        return found

    def cost(self, bypassed: Sequence[int], below: States | None = None) -> Estimate:
        """KL(parent || parent with layers bypassed), nats a token; the error is over stretches (of one, NaN).

        Args:
            below: the states with all of them bypassed but the last in the sequence; layers below that one
                are not run again.

        Raises:
            RunFailed: what comes out is not finite.
        """
        sums = np.array([self._divergence(number, bypassed, below) for number in range(len(self.stretches))])
        if not np.isfinite(sums).all():
            raise RunFailed(
                f"bypassing layers {sorted(bypassed)} gives no finite probabilities: NaN weights?"
            )
        tokens = np.array([each.shape[1] for each in self.stretches], dtype=np.float64)
        return ratio(sums, tokens) if len(sums) > 1 else Estimate(float(sums[0] / tokens[0]), math.nan)

    @property
    def layers(self) -> Any:
        """The decoder's layers."""
        return decoder_layers(self.model)

    def _divergence(self, number: int, bypassed: Sequence[int], below: States | None) -> float:
        known = {} if below is None else dict(enumerate(below[number][: bypassed[-1] + 1]))
        with _handing_on(self.layers, bypassed, known, self.donors):
            given = self.logprobs(self._run(self.stretches[number]))
        wanted = self.expected[number]
        return float((wanted.exp() * (wanted - given)).sum())

    def logprobs(self, hidden: Any) -> Any:
        """Log probabilities of the compared tokens, float32 (tokens, compared), from (1, tokens, hidden)."""
        logits = (hidden[0].to(self.weight.dtype) @ self.weight.T).float()
        return ((logits / self.cap).tanh() * self.cap if self.cap else logits).log_softmax(dim=-1)

    def _run(self, tokens: Any) -> Any:
        import torch

        with torch.inference_mode(), self.device.autocast():
            return self.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state


def open_probe(
    checkpoint: Checkpoint, anatomy: Anatomy, text: Corpus, tokens: int = TOKENS, device: str = "auto"
) -> Probe:
    """Load the parent and read the text once with all of its layers.

    Raises:
        MissingExtra: torch or transformers is not installed.
        NotFound: the parent has no tokenizer.json, or the text no token.
        RunFailed: the parent itself gives no finite probabilities.
    """
    import torch

    chosen = choose_device(device)
    model = chosen.load(checkpoint.folder, chosen.compute).requires_grad_(False).eval()
    batches = token_batches(checkpoint.folder, text.documents, tokens, CONTEXT)
    compared = [token for token, _ in Counter(chain(*batches)).most_common(ROWS)]
    compared += _more(compared, anatomy.dims.vocab)
    stretches = tuple(torch.tensor([ids], device=chosen.name) for ids in batches)
    weight = model.get_output_embeddings().weight[torch.tensor(sorted(compared), device=chosen.name)]
    cap = anatomy.config.get("final_logit_softcapping")
    donors = frozenset(anatomy.donors.values())
    whole = Probe(model, chosen, donors, stretches, weight, cap, ())
    expected = tuple(whole.logprobs(whole._run(tokens)) for tokens in stretches)
    if not all(bool(each.isfinite().all()) for each in expected):
        raise RunFailed(
            f"{checkpoint.folder} gives no finite probabilities: its weights hold NaN or infinity"
        )
    return Probe(model, chosen, donors, stretches, weight, cap, expected)


def _more(found: Sequence[int], vocabulary: int) -> list[int]:
    """Tokens of small ids to fill up to `ROWS`: few thousand tokens of text have not as many kinds."""
    known = set(found)
    return [token for token in range(min(vocabulary, ROWS + len(known))) if token not in known][
        : ROWS - len(known)
    ]


def influence(states: States) -> NDArray[np.float64]:
    """ShortGPT's block influence, (layers,): 1 - the mean cosine of what enters and what leaves."""
    import torch

    layers = len(states[0]) - 1
    sums, tokens = np.zeros(layers), 0
    for stretch in states:
        tokens += stretch[0].shape[1]
        for layer in range(layers):
            near = torch.cosine_similarity(stretch[layer].float(), stretch[layer + 1].float(), dim=-1)
            sums[layer] += float((1 - near).sum())
    return sums / tokens


@contextmanager
def _handing_on(
    layers: Any, bypassed: Collection[int], known: Mapping[int, Any], donors: Collection[int]
) -> Iterator[None]:
    """Let the bypassed layers hand their input on, and give what is known of others' output."""
    changed = [index for index in range(len(layers)) if index in bypassed or index + 1 in known]
    for index in changed:
        forward = layers[index].forward if index in donors else None
        layers[index].forward = _instead(forward, known.get(index + 1))
    try:
        yield
    finally:
        for index in changed:
            del layers[index].forward


def _instead(forward: Any, known: Any) -> Callable[..., Any]:
    def run(hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
        if forward is not None:
            forward(hidden_states.clone(), *args, **kwargs)  # for its K/V; it may scale in place
        return (hidden_states if known is None else known).clone()

    return run
