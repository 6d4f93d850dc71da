"""Tune a sentence encoder on labelled queries, so that the vectors of a router's domains lie apart.

Cross entropy of a linear layer over the vectors, some of the queries disturbed. Every vector is also drawn to
where the untuned encoder had it, the undisturbed query's, so that what no expert is asked stays far from
them all. Word embeddings stay as they are. A share of the queries is kept back: on these a router is
calibrated, which would take the encoder's word for its own lessons otherwise.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.embedding.embedder import truncate_middle
from router.embedding.finetuned import FILE, HOLDOUT_PERCENT, SCHEMA, holdout_mask
from router.embedding.sentence import ROUTING_TOKENS, encoder_name, no_progress_bar, open_encoder
from router.errors import BadTraining
from router.training.fit import Pairs, digest
from router.training.perturbations import NOISE, TAUGHT
from slices.device import Device, choose_device
from slices.files import atomic

FEWEST = 1000  # queries; fewer say less about the domains than the encoder knows
_WARM = 0.06  # of all steps, while the rate rises
_SCALE = 20.0  # of cosines to logits, at first
_POOL = 64  # batches that are drawn together and sorted by length
_AT_ONCE = 256  # texts embedded together


@dataclass(frozen=True)
class Tuning:
    """How to tune.

    Attributes:
        rate: the highest; it rises for a little and then falls to nothing in a straight line.
        drawn: weight of 1 - cosine to the untuned vector beside the cross entropy, in nats.
        disturbed: share of queries that are read with slips, in other case or cut short.
        layers: how many of the encoder's layers are kept, the first ones; None is all of them.
    """

    epochs: int = 8
    batch: int = 128
    rate: float = 4e-4
    drawn: float = 1.0
    disturbed: float = 0.3
    layers: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class News:
    """A step that is done, and at the end of an epoch the share of kept-back queries told right."""

    step: int
    of: int
    accuracy: float | None = None


Told = Callable[[News], None]


def tune(
    queries: Pairs,
    source: str | None,
    out: Path,
    tuning: Tuning = Tuning(),
    device: str = "auto",
    told: Told = lambda news: None,
    force: bool = False,
) -> list[float]:
    """Tune the encoder `source` (a folder or a hub id, None is MiniLM) and write it to the folder `out`.

    Returns the accuracy on the queries kept back, after each epoch.

    Raises:
        BadTraining: too few queries, or of one domain only; or a loss that is not finite.
        BadSettings: there is no such encoder.
        BadConfig: there is no such device.
        Exists: `out` is there, and not `force`.
    """
    atomic.refuse_existing(out, force)
    queries = list(dict.fromkeys(queries))
    classes = _check(queries)
    run = _Run(queries, classes, source, tuning, choose_device(device))
    curve = run.learn(told)
    record = {"schema": SCHEMA, "encoder": encoder_name(source), "queries_sha256": digest(queries)}
    record |= {"holdout_percent": HOLDOUT_PERCENT, "config": asdict(tuning), "holdout_accuracy": curve}
    with atomic.staged(out, force) as partial, no_progress_bar():
        run.model.cpu().save(str(partial), create_model_card=False)
        record["name"] = _name(encoder_name(source), partial)
        (partial / FILE).write_text(json.dumps(record, indent=1) + "\n")
    return curve


def _name(encoder: str, folder: Path) -> str:
    """Another one for other weights, since vectors and tables are kept by it."""
    found = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        found.update(file.read_bytes())
    return f"{encoder.rsplit('/', 1)[-1][:64]}-tuned-{found.hexdigest()[:8]}"


def _check(queries: Pairs) -> tuple[str, ...]:
    classes = tuple(sorted({domain for _, domain in queries}))
    if len(queries) < FEWEST:
        raise BadTraining(f"{len(queries)} queries are too few to tune an encoder on: expected {FEWEST}")
    if len(classes) < 2:
        raise BadTraining(f"an encoder is tuned on queries of two domains or more, got {list(classes)}")
    return classes


class _Run:
    """An encoder that learns."""

    def __init__(
        self, queries: Pairs, classes: tuple[str, ...], source: str | None, tuning: Tuning, device: Device
    ) -> None:
        import torch

        torch.manual_seed(tuning.seed)
        self.tuning, self.device = tuning, device
        self.draw = np.random.default_rng(tuning.seed)
        self.model = open_encoder(source).float().to(device.name)
        self.model.max_seq_length = min(ROUTING_TOKENS, int(self.model.max_seq_length or ROUTING_TOKENS))
        labels = np.array([classes.index(domain) for _, domain in queries])
        texts = [truncate_middle(text) for text, _ in queries]
        back = holdout_mask(text for text, _ in queries)
        self.texts, self.labels = [texts[at] for at in np.flatnonzero(~back)], labels[~back]
        self.back, self.back_labels = [texts[at] for at in np.flatnonzero(back)], labels[back]
        self.before = self._embed(self.texts)
        _keep_layers(self.model, tuning.layers)
        _freeze_words(self.model)
        self.head = torch.nn.Linear(self.before.shape[1], len(classes), device=device.name)
        torch.nn.init.normal_(self.head.weight, std=self.before.shape[1] ** -0.5)
        self.scale = torch.nn.Parameter(torch.tensor(float(np.log(_SCALE)), device=device.name))

    def learn(self, told: Told) -> list[float]:
        """All epochs; the accuracy on what is kept back after each."""
        import torch

        body = [each for each in self.model.parameters() if each.requires_grad]
        tops = [*self.head.parameters(), self.scale]
        groups: list[dict[str, Any]] = [{"params": body}, {"params": tops, "lr": 10 * self.tuning.rate}]
        steps = self.tuning.epochs * -(-len(self.texts) // self.tuning.batch)
        optimizer = torch.optim.AdamW(groups, lr=self.tuning.rate, weight_decay=0.01)
        pace = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _pace(step, steps))
        curve, step = [], 0
        for _ in range(self.tuning.epochs):
            self.model.train()
            for rows in self._batches():
                optimizer.zero_grad()
                loss = self._loss(rows)
                if not torch.isfinite(loss):
                    raise BadTraining(f"the loss is {loss.item()} at step {step + 1}: try a lower rate")
                loss.backward()
                torch.nn.utils.clip_grad_norm_([*body, *tops], 1.0)
                optimizer.step()
                pace.step()
                step += 1
                told(News(step, steps))
            curve.append(self._accuracy())
            told(News(step, steps, curve[-1]))
        return curve

    def _loss(self, rows: NDArray[np.int64]) -> Any:
        import torch

        vectors = self._forward([self._read(at) for at in rows.tolist()])
        wanted = torch.from_numpy(self.labels[rows]).to(self.device.name)
        found = torch.nn.functional.cross_entropy(self._logits(vectors), wanted)
        before = self.before[torch.from_numpy(rows)].to(self.device.name)
        away = 1 - (vectors * before).sum(dim=1)
        return found + self.tuning.drawn * away.mean()

    def _read(self, at: int) -> str:
        """A query as it is or disturbed."""
        text = self.texts[at]
        if self.draw.random() >= self.tuning.disturbed:
            return text
        return NOISE[TAUGHT[int(self.draw.integers(len(TAUGHT)))]](text, self.draw)

    def _logits(self, vectors: Any) -> Any:
        return self.scale.exp() * self.head(vectors)

    def _forward(self, texts: Sequence[str]) -> Any:
        """Unit vectors (texts, dim) in float32."""
        import torch

        told = self.model.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.model.max_seq_length,
            return_tensors="pt",
        )  # fmt: skip
        with self.device.autocast():
            found = self.model({name: each.to(self.device.name) for name, each in told.items()})
        return torch.nn.functional.normalize(found["sentence_embedding"].float(), dim=1)

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        """Rows of every query once, those of a batch about as long."""
        size = self.tuning.batch
        order = self.draw.permutation(len(self.texts))
        for start in range(0, len(order), _POOL * size):
            pool = order[start : start + _POOL * size]
            pool = pool[np.argsort([len(self.texts[at]) for at in pool], kind="stable")]
            parts = [pool[at : at + size] for at in range(0, len(pool), size)]
            yield from (parts[at] for at in self.draw.permutation(len(parts)))

    def _embed(self, texts: Sequence[str]) -> Any:
        import torch

        self.model.eval()
        with torch.inference_mode():
            parts = [self._forward(texts[at : at + _AT_ONCE]).cpu() for at in range(0, len(texts), _AT_ONCE)]
        return torch.cat(parts).clone()

    def _accuracy(self) -> float:
        import torch

        with torch.inference_mode():
            guess = self._logits(self._embed(self.back).to(self.device.name)).argmax(dim=1)
        return float((guess.cpu().numpy() == self.back_labels).mean())


def _pace(step: int, steps: int) -> float:
    warm = max(1, round(_WARM * steps))
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


def _keep_layers(model: Any, count: int | None) -> None:
    """Only the first `count` layers of the transformer.

    Raises:
        BadTraining: it has fewer, or none that can be found.
    """
    import torch

    if count is None:
        return
    body = model[0].model
    have = int(body.config.num_hidden_layers)
    lists = [each for each in body.modules() if isinstance(each, torch.nn.ModuleList) and len(each) == have]
    if not 1 <= count <= have or len(lists) != 1:
        raise BadTraining(f"cannot keep {count} layers of the encoder, which has {have}")
    del lists[0][count:]
    body.config.num_hidden_layers = count


def _freeze_words(model: Any) -> None:
    model[0].model.get_input_embeddings().weight.requires_grad_(False)
