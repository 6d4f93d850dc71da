"""FinetuneConfig a real, tiny encoder of random weights, and a router that rests on a tuned one."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from router.embedding.finetuned import FILE, HOLDOUT_PERCENT, finetuned_name, holdout_mask, is_training_query
from router.embedding.sentence import SentenceEmbedder, encoder_name
from router.errors import BadSettings, BadTraining
from router.routing.cascade import Cascade
from router.training.finetune import MIN_QUERIES, FinetuneConfig, finetune
from router.training.fit import fit
from router.training.metrics import expected_calibration_error
from slices.errors import Exists
from tests.mom.line import mom, parsed
from tests.router.pico_encoder import write_encoder

pytest.importorskip("torch")
QUICK = FinetuneConfig(epochs=3, batch_size=32, lr=1e-3, anchor_weight=0.1, perturbed_fraction=0.1)


def queries(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Random letters, and one word that identifies the domain."""
    rng = np.random.default_rng(seed)
    keywords = {"law": ("law", "court"), "biochem": ("cell", "enzyme")}
    by_text: dict[str, str] = {}
    while len(by_text) < count:
        domain = ("law", "biochem")[int(rng.integers(2))]
        words = [*rng.choice(list("abcdefghij"), 6).tolist(), str(rng.choice(keywords[domain]))]
        rng.shuffle(words)
        by_text[" ".join(words)] = domain
    return list(by_text.items())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_encoder(tmp_path_factory.mktemp("encoder")))


def test_domains_become_separable(plain: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    reported: list[float] = []
    accuracy = finetune(
        queries(1200),
        plain,
        tmp_path / "tuned",
        config=QUICK,
        device="cpu",
        progress=lambda stage, done, total: steps.append((done, total)),
        on_evaluate=lambda epoch, value: reported.append(value),
    )
    assert reported == accuracy
    assert steps[-1][0] == steps[-1][1]
    assert accuracy[-1] > 0.95

    def separation(source: str) -> float:
        vectors = SentenceEmbedder(source).embed([text for text, _ in unseen])
        law = np.array([domain == "law" for _, domain in unseen])
        cosine = vectors @ vectors.T
        return float(cosine[law][:, law].mean() - cosine[law][:, ~law].mean())

    unseen = queries(100, seed=1)
    assert separation(str(tmp_path / "tuned")) > separation(plain) + 0.05


def test_words_stay_and_the_same_seed_gives_the_same_weights(plain: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    for name in ("one", "two"):
        finetune(queries(MIN_QUERIES), plain, tmp_path / name, QUICK, "cpu")
    before, one, two = (
        load_file(next(folder.glob("*.safetensors")))
        for folder in (Path(plain), tmp_path / "one", tmp_path / "two")
    )
    words = "embeddings.word_embeddings.weight"
    assert (one[words] == before[words]).all()
    changed = [name for name in one if not np.array_equal(one[name], before[name])]
    assert any("layer.1" in name for name in changed)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert encoder_name(str(tmp_path / "one")) == encoder_name(str(tmp_path / "two"))


def test_a_tuned_encoder_has_a_name_of_its_weights(plain: str, tmp_path: Path) -> None:
    for seed in (0, 1):
        finetune(
            queries(MIN_QUERIES), plain, tmp_path / f"{seed}", FinetuneConfig(epochs=1, seed=seed), "cpu"
        )
    names = {encoder_name(str(tmp_path / f"{seed}")) for seed in (0, 1)}
    assert len(names) == 2 and all(name.startswith("pico-tuned-") for name in names)
    embedder = SentenceEmbedder(tmp_path / "0")
    assert embedder.finetuned and embedder.name in names
    assert not SentenceEmbedder(plain).finetuned
    record = json.loads((tmp_path / "0" / FILE).read_text())
    assert record["encoder"] == "pico" and record["config"]["epochs"] == 1


def test_fewer_layers_are_kept(plain: str, tmp_path: Path) -> None:
    finetune(queries(MIN_QUERIES), plain, tmp_path / "one", FinetuneConfig(epochs=1, layers=1), "cpu")
    assert SentenceEmbedder(tmp_path / "one").embed(["law court"]).shape == (1, 64)
    assert json.loads((tmp_path / "one" / "config.json").read_text())["num_hidden_layers"] == 1
    with pytest.raises(BadTraining, match="cannot keep 3 layers of the encoder, which has 2"):
        finetune(queries(MIN_QUERIES), plain, tmp_path / "three", FinetuneConfig(layers=3), "cpu")


def test_what_cannot_be_tuned_is_refused(plain: str, tmp_path: Path) -> None:
    with pytest.raises(BadTraining, match="3 queries are too few"):
        finetune(queries(3), plain, tmp_path / "x", device="cpu")
    with pytest.raises(BadTraining, match="two domains or more"):
        finetune([(text, "law") for text, _ in queries(MIN_QUERIES)], plain, tmp_path / "x", device="cpu")
    with pytest.raises(BadTraining, match=r"the loss is (nan|inf) at step"):
        finetune(queries(MIN_QUERIES), plain, tmp_path / "x", FinetuneConfig(lr=float("inf")), "cpu")
    (tmp_path / "there").mkdir()
    with pytest.raises(Exists):
        finetune(queries(MIN_QUERIES), plain, tmp_path / "there", device="cpu")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["there"]


def test_a_run_that_is_stopped_leaves_nothing(plain: str, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(queries(MIN_QUERIES), plain, tmp_path / "x", QUICK, "cpu", stop)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[]",
        "{}",
        '{"schema": 2, "name": 3}',
        '{"schema": 2, "name": "../x"}',
        '{"schema": 2, "name": ""}',
    ],
)
def test_a_damaged_record_is_named(record: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(record)
    with pytest.raises(BadSettings, match=FILE):
        finetuned_name(tmp_path)


def test_a_record_of_another_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"name": "minilm-tuned-01234567", "back": 15}')
    with pytest.raises(BadSettings, match="schema None, expected 2; run `mom route tune` again"):
        finetuned_name(tmp_path)


def test_the_holdout_share_of_any_texts() -> None:
    texts = [f"question {number}" for number in range(4000)] + ["\ud800", ""]
    assert holdout_mask(texts).mean() == pytest.approx(HOLDOUT_PERCENT / 100, abs=0.02)


class MemorizingEmbedder:
    """Embeds the domain of every training query, and of seven in ten other texts."""

    name = "memorizing"

    def __init__(self, known: dict[str, str], tuned: bool) -> None:
        self.known, self.finetuned = known, tuned

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Shape (len(texts), 2)."""
        rows = []
        for text in texts:
            right = self.known.get(text, "law") == "law"
            luck = sum(text.encode()) % 10 < 7
            rows.append(
                (1.0, 0.0)
                if right == ((is_training_query(text) and text in self.known) or luck)
                else (0.0, 1.0)
            )
        return np.array(rows, dtype=np.float32)


def test_a_router_is_calibrated_on_the_holdout_of_its_encoder() -> None:
    every = queries(3000)
    known = dict(every)
    errors = {}
    for tuned in (False, True):
        embedder = MemorizingEmbedder(known, tuned)
        router = fit(every, [embedder])
        unseen = [text for text, _ in every if not is_training_query(text)]
        predictions = Cascade(router, [embedder]).predict(unseen)
        predicted = [router.classes[int(each.probabilities.argmax())] for each in predictions]
        correct = np.array([label == known[text] for label, text in zip(predicted, unseen, strict=True)])
        assert correct.mean() == pytest.approx(0.7, abs=0.06)
        errors[tuned] = expected_calibration_error(
            np.array([each.probabilities.max() for each in predictions]), correct
        )
    assert errors[True] < 0.05 < 0.2 < errors[False]


def test_the_command_tunes_on_a_file_of_queries(plain: str, tmp_path: Path) -> None:
    lines = (json.dumps({"query": text, "domain": domain}) for text, domain in queries(MIN_QUERIES))
    (tmp_path / "queries.jsonl").write_text("\n".join(lines))
    (tmp_path / "serve.yaml").write_text(f"embedder: {plain}\n")
    options = ("--data", str(tmp_path / "queries.jsonl"), "--config", str(tmp_path / "serve.yaml"))
    out = tmp_path / "tuned"
    result = parsed("route", "tune", *options, "-o", str(out), "--epochs", "1", "--device", "cpu", "--json")
    assert result["name"] == encoder_name(str(out))
    assert result["queries"] > MIN_QUERIES and len(result["holdout_accuracy"]) == 1
    again = mom("route", "tune", *options, "-o", str(out))
    assert again.returncode == 1 and "already exists" in again.stderr
