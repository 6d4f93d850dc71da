"""Tuning a real, tiny encoder of random weights, and a router that rests on a tuned one."""

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
from router.training.finetune import FEWEST, News, Tuning, tune
from router.training.fit import fit
from router.training.metrics import calibration_error
from slices.errors import Exists
from tests.mom.line import mom, parsed
from tests.router.pico_encoder import write_encoder

pytest.importorskip("torch")
QUICK = Tuning(epochs=3, batch=32, rate=1e-3, drawn=0.1, disturbed=0.1)


def queries(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Letters that say nothing, and one word that says the domain."""
    draw = np.random.default_rng(seed)
    said = {"law": ("law", "court"), "biochem": ("cell", "enzyme")}
    found: dict[str, str] = {}
    while len(found) < count:
        domain = ("law", "biochem")[int(draw.integers(2))]
        words = [*draw.choice(list("abcdefghij"), 6).tolist(), str(draw.choice(said[domain]))]
        draw.shuffle(words)
        found[" ".join(words)] = domain
    return list(found.items())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_encoder(tmp_path_factory.mktemp("encoder")))


def test_domains_come_to_lie_apart(plain: str, tmp_path: Path) -> None:
    news: list[News] = []
    curve = tune(queries(1200), plain, tmp_path / "tuned", QUICK, "cpu", news.append)
    assert [each.accuracy for each in news if each.accuracy is not None] == curve
    assert news[-1].step == news[-1].of
    assert curve[-1] > 0.95

    def apart(source: str) -> float:
        vectors = SentenceEmbedder(source).embed([text for text, _ in unseen])
        law = np.array([domain == "law" for _, domain in unseen])
        alike = vectors @ vectors.T
        return float(alike[law][:, law].mean() - alike[law][:, ~law].mean())

    unseen = queries(100, seed=1)
    assert apart(str(tmp_path / "tuned")) > apart(plain) + 0.05


def test_words_stay_and_the_same_seed_gives_the_same_weights(plain: str, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    for name in ("one", "two"):
        tune(queries(FEWEST), plain, tmp_path / name, QUICK, "cpu")
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
        tune(queries(FEWEST), plain, tmp_path / f"{seed}", Tuning(epochs=1, seed=seed), "cpu")
    names = {encoder_name(str(tmp_path / f"{seed}")) for seed in (0, 1)}
    assert len(names) == 2 and all(name.startswith("pico-tuned-") for name in names)
    embedder = SentenceEmbedder(tmp_path / "0")
    assert embedder.finetuned and embedder.name in names
    assert not SentenceEmbedder(plain).finetuned
    record = json.loads((tmp_path / "0" / FILE).read_text())
    assert record["encoder"] == "pico" and record["config"]["epochs"] == 1


def test_fewer_layers_are_kept(plain: str, tmp_path: Path) -> None:
    tune(queries(FEWEST), plain, tmp_path / "one", Tuning(epochs=1, layers=1), "cpu")
    assert SentenceEmbedder(tmp_path / "one").embed(["law court"]).shape == (1, 64)
    assert json.loads((tmp_path / "one" / "config.json").read_text())["num_hidden_layers"] == 1
    with pytest.raises(BadTraining, match="cannot keep 3 layers of the encoder, which has 2"):
        tune(queries(FEWEST), plain, tmp_path / "three", Tuning(layers=3), "cpu")


def test_what_cannot_be_tuned_is_refused(plain: str, tmp_path: Path) -> None:
    with pytest.raises(BadTraining, match="3 queries are too few"):
        tune(queries(3), plain, tmp_path / "x", device="cpu")
    with pytest.raises(BadTraining, match="two domains or more"):
        tune([(text, "law") for text, _ in queries(FEWEST)], plain, tmp_path / "x", device="cpu")
    with pytest.raises(BadTraining, match=r"the loss is (nan|inf) at step"):
        tune(queries(FEWEST), plain, tmp_path / "x", Tuning(rate=float("inf")), "cpu")
    (tmp_path / "there").mkdir()
    with pytest.raises(Exists):
        tune(queries(FEWEST), plain, tmp_path / "there", device="cpu")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["there"]


def test_a_run_that_is_stopped_leaves_nothing(plain: str, tmp_path: Path) -> None:
    def stop(news: News) -> None:
        if news.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(queries(FEWEST), plain, tmp_path / "x", QUICK, "cpu", stop)
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


def test_a_share_is_kept_back_whatever_the_text() -> None:
    texts = [f"question {number}" for number in range(4000)] + ["\ud800", ""]
    assert holdout_mask(texts).mean() == pytest.approx(HOLDOUT_PERCENT / 100, abs=0.02)


class Memory:
    """Knows the domain of every lesson, and of other texts in seven of ten cases."""

    name = "memory"

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


def test_a_router_is_calibrated_on_what_its_encoder_did_not_learn() -> None:
    every = queries(3000)
    known = dict(every)
    errors = {}
    for tuned in (False, True):
        embedder = Memory(known, tuned)
        router = fit(every, [embedder])
        unseen = [text for text, _ in every if not is_training_query(text)]
        readings = Cascade(router, [embedder]).read(unseen)
        guess = [router.classes[int(each.chances.argmax())] for each in readings]
        right = np.array([said == known[text] for said, text in zip(guess, unseen, strict=True)])
        assert right.mean() == pytest.approx(0.7, abs=0.06)
        errors[tuned] = calibration_error(np.array([each.chances.max() for each in readings]), right)
    assert errors[True] < 0.05 < 0.2 < errors[False]


def test_the_command_tunes_on_a_file_of_queries(plain: str, tmp_path: Path) -> None:
    lines = (json.dumps({"query": text, "domain": domain}) for text, domain in queries(FEWEST))
    (tmp_path / "queries.jsonl").write_text("\n".join(lines))
    (tmp_path / "serve.yaml").write_text(f"embedder: {plain}\n")
    asked = ("--data", str(tmp_path / "queries.jsonl"), "--config", str(tmp_path / "serve.yaml"))
    out = tmp_path / "tuned"
    said = parsed("route", "tune", *asked, "-o", str(out), "--epochs", "1", "--device", "cpu", "--json")
    assert said["name"] == encoder_name(str(out))
    assert said["queries"] > FEWEST and len(said["accuracy"]) == 1
    again = mom("route", "tune", *asked, "-o", str(out))
    assert again.returncode == 1 and "already exists" in again.stderr
