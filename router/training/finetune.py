"""Fine-tunes a sentence encoder on labelled queries, so that the domains of a router are separable.

Cross entropy of a linear layer over the embeddings, some of the queries perturbed. The embeddings are
regularized toward the original encoder's embeddings of the unperturbed queries, so that out-of-domain queries
stay separable. Word embeddings are frozen. A holdout is never trained on: a router is calibrated on it, since
the encoder is overconfident on its training queries.
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
from router.embedding.layers import keep_layers
from router.embedding.sentence import ROUTING_TOKENS, encoder_name, no_progress_bar, open_encoder
from router.errors import BadTraining
from router.training.fit import Pairs, digest
from router.training.perturbations import PERTURBATIONS, TRAINED
from slices.device import Device, choose_device
from slices.files import atomic
from slices.progress import Progress, no_progress

MIN_QUERIES = 1000  # fewer say less about the domains than the encoder knows
STAGE = "fine-tune the encoder"
_WARMUP = 0.06  # share of the optimizer steps
_INITIAL_SCALE = 20.0  # of logits over cosine similarities, learned
_BUCKET_BATCHES = 64  # shuffled together and sorted by length
_EVAL_BATCH_SIZE = 256

OnEvaluate = Callable[[int, float], None]


@dataclass(frozen=True)
class FinetuneConfig:
    """Hyperparameters of fine-tuning.

    Attributes:
        lr: peak learning rate of AdamW; linear warm-up, then linear decay to zero.
        anchor_weight: of 1 - cosine similarity to the original embedding, added to the cross entropy.
        perturbed_fraction: share of training queries that are read with typos, in other case or as fragments.
        layers: number of the encoder's first layers to keep; None keeps all.
    """

    epochs: int = 8
    batch_size: int = 128
    lr: float = 4e-4
    anchor_weight: float = 1.0
    perturbed_fraction: float = 0.3
    layers: int | None = None
    seed: int = 0


def finetune(
    queries: Pairs,
    source: str | None,
    out: Path,
    config: FinetuneConfig = FinetuneConfig(),
    device: str = "auto",
    progress: Progress = no_progress,
    on_evaluate: OnEvaluate = lambda epoch, accuracy: None,
    force: bool = False,
) -> list[float]:
    """Fine-tune the encoder `source` (a folder or a hub id, None is MiniLM) and write it to the folder `out`.

    Args:
        on_evaluate: called with the epoch, from 1, and the holdout accuracy after it.

    Returns:
        The holdout accuracy after each epoch.

    Raises:
        BadTraining: too few queries, or of one domain only; or a loss that is not finite.
        BadSettings: there is no such encoder.
        BadConfig: there is no such device.
        Exists: `out` exists, and not `force`.
    """
    atomic.refuse_existing(out, force)
    queries = list(dict.fromkeys(queries))
    classes = _check(queries)
    trainer = _Trainer(
        queries=queries, classes=classes, source=source, config=config, device=choose_device(device)
    )
    accuracy = trainer.train(progress, on_evaluate)
    record = {"schema": SCHEMA, "encoder": encoder_name(source), "queries_sha256": digest(queries)}
    record |= {"holdout_percent": HOLDOUT_PERCENT, "config": asdict(config), "holdout_accuracy": accuracy}
    with atomic.staged(out, force) as partial, no_progress_bar():
        trainer.model.cpu().save(str(partial), create_model_card=False)
        record["name"] = _name(encoder_name(source), partial)
        (partial / FILE).write_text(json.dumps(record, indent=1) + "\n")
    return accuracy


def _name(encoder: str, folder: Path) -> str:
    """A name that identifies the weights, since caches are keyed by it."""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return f"{encoder.rsplit('/', 1)[-1][:64]}-tuned-{digest.hexdigest()[:8]}"


def _check(queries: Pairs) -> tuple[str, ...]:
    classes = tuple(sorted({domain for _, domain in queries}))
    if len(queries) < MIN_QUERIES:
        raise BadTraining(f"{len(queries)} queries are too few to tune an encoder on: expected {MIN_QUERIES}")
    if len(classes) < 2:
        raise BadTraining(f"an encoder is tuned on queries of two domains or more, got {list(classes)}")
    return classes


class _Trainer:
    """An encoder with a classification head, and its training and holdout queries."""

    def __init__(
        self,
        queries: Pairs,
        classes: tuple[str, ...],
        source: str | None,
        config: FinetuneConfig,
        device: Device,
    ) -> None:
        import torch

        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.rng = np.random.default_rng(config.seed)
        self.model = open_encoder(source).float().to(device.name)
        self.model.max_seq_length = min(ROUTING_TOKENS, int(self.model.max_seq_length or ROUTING_TOKENS))
        labels = np.array([classes.index(domain) for _, domain in queries])
        texts = [truncate_middle(text) for text, _ in queries]
        holdout = holdout_mask(text for text, _ in queries)
        self.texts, self.labels = [texts[at] for at in np.flatnonzero(~holdout)], labels[~holdout]
        self.holdout_texts = [texts[at] for at in np.flatnonzero(holdout)]
        self.holdout_labels = labels[holdout]
        self.original = self._embed(self.texts)  # (n, dim), the regularization targets
        keep_layers(self.model, config.layers)
        _freeze_word_embeddings(self.model)
        dim = self.original.shape[1]
        self.head = torch.nn.Linear(dim, len(classes), device=device.name)
        torch.nn.init.normal_(self.head.weight, std=dim**-0.5)
        self.log_scale = torch.nn.Parameter(torch.tensor(float(np.log(_INITIAL_SCALE)), device=device.name))

    def train(self, progress: Progress, on_evaluate: OnEvaluate) -> list[float]:
        """Train all epochs; the holdout accuracy after each."""
        import torch

        encoder = [each for each in self.model.parameters() if each.requires_grad]
        head = [*self.head.parameters(), self.log_scale]
        groups: list[dict[str, Any]] = [{"params": encoder}, {"params": head, "lr": 10 * self.config.lr}]
        steps = self.config.epochs * -(-len(self.texts) // self.config.batch_size)
        optimizer = torch.optim.AdamW(groups, lr=self.config.lr, weight_decay=0.01)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(step, steps))
        accuracy, step = [], 0
        for epoch in range(1, self.config.epochs + 1):
            self.model.train()
            for rows in self._batches():
                optimizer.zero_grad()
                loss = self._loss(rows)
                if not torch.isfinite(loss):
                    raise BadTraining(
                        f"the loss is {loss.item()} at step {step + 1}: try a lower learning rate"
                    )
                loss.backward()
                torch.nn.utils.clip_grad_norm_([*encoder, *head], 1.0)
                optimizer.step()
                scheduler.step()
                step += 1
                progress(STAGE, step, steps)
            accuracy.append(self._holdout_accuracy())
            on_evaluate(epoch, accuracy[-1])
        return accuracy

    def _loss(self, rows: NDArray[np.int64]) -> Any:
        import torch

        embeddings = self._forward([self._training_text(at) for at in rows.tolist()])
        labels = torch.from_numpy(self.labels[rows]).to(self.device.name)
        cross_entropy = torch.nn.functional.cross_entropy(self._logits(embeddings), labels)
        original = self.original[torch.from_numpy(rows)].to(self.device.name)
        cosine = (embeddings * original).sum(dim=1)
        return cross_entropy + self.config.anchor_weight * (1 - cosine).mean()

    def _training_text(self, at: int) -> str:
        """A query as it is, or perturbed."""
        text = self.texts[at]
        if self.rng.random() >= self.config.perturbed_fraction:
            return text
        return PERTURBATIONS[TRAINED[int(self.rng.integers(len(TRAINED)))]](text, self.rng)

    def _logits(self, embeddings: Any) -> Any:
        return self.log_scale.exp() * self.head(embeddings)

    def _forward(self, texts: Sequence[str]) -> Any:
        """Unit embeddings (texts, dim) in float32."""
        import torch

        inputs = self.model.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.model.max_seq_length,
            return_tensors="pt",
        )  # fmt: skip
        with self.device.autocast():
            outputs = self.model({name: each.to(self.device.name) for name, each in inputs.items()})
        return torch.nn.functional.normalize(outputs["sentence_embedding"].float(), dim=1)

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        """Batches of row indices covering every query once, bucketed by length."""
        size = self.config.batch_size
        order = self.rng.permutation(len(self.texts))
        for start in range(0, len(order), _BUCKET_BATCHES * size):
            bucket = order[start : start + _BUCKET_BATCHES * size]
            bucket = bucket[np.argsort([len(self.texts[at]) for at in bucket], kind="stable")]
            batches = [bucket[at : at + size] for at in range(0, len(bucket), size)]
            yield from (batches[at] for at in self.rng.permutation(len(batches)))

    def _embed(self, texts: Sequence[str]) -> Any:
        import torch

        self.model.eval()
        with torch.inference_mode():
            starts = range(0, len(texts), _EVAL_BATCH_SIZE)
            batches = [self._forward(texts[at : at + _EVAL_BATCH_SIZE]).cpu() for at in starts]
        return torch.cat(batches).clone()

    def _holdout_accuracy(self) -> float:
        import torch

        with torch.inference_mode():
            logits = self._logits(self._embed(self.holdout_texts).to(self.device.name))
        return float((logits.argmax(dim=1).cpu().numpy() == self.holdout_labels).mean())


def _lr_factor(step: int, steps: int) -> float:
    """Linear warm-up, then linear decay to zero."""
    warmup = max(1, round(_WARMUP * steps))
    return min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))


def _freeze_word_embeddings(model: Any) -> None:
    model[0].model.get_input_embeddings().weight.requires_grad_(False)
