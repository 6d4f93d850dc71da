"""Domains and their text: what ships is well-formed, what a user brings is read or refused by name."""

import json
from pathlib import Path

import pytest

from slices.checkpoint import open_checkpoint
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.errors import BadConfig, NotFound, SliceError
from slices.text import domains, synthetic
from slices.text.corpus import Part, part_of, read_corpus
from slices.text.domains import Domain

WANTED = {"biochem", "medicine", "law", "computing", "math", "history", "general"}


def test_shipped_domains() -> None:
    assert set(domains.names()) >= WANTED
    for name in domains.names():
        domain = domains.load(name)
        assert len(set(domain.topics)) >= 40


def test_a_users_own_domain_comes_first(
    tmp_path: Path, mom_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, text in (
        (mom_home / "configs" / "domains", "home"),
        (tmp_path / "configs" / "domains", "here"),
    ):
        folder.mkdir(parents=True)
        (folder / "law.yaml").write_text(f"name: law\ndescription: {text}\ncorpus: [text.txt]\n")
    assert domains.load("law").description == "here"
    assert domains.load("law").corpus == [Path("configs/domains/text.txt")]
    (tmp_path / "configs" / "domains" / "law.yaml").unlink()
    assert domains.load("law").description == "home"


@pytest.mark.parametrize(
    ("text", "match"),
    [("name: [", "not valid YAML"), ("- 1", "the file"), ("name: x\ndescription: y\ntopcs: []", "topcs"),
     ("name: other\ndescription: y", "expected 'x'")],
)  # fmt: skip
def test_bad_domain_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, match: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "domains").mkdir(parents=True)
    (tmp_path / "configs" / "domains" / "x.yaml").write_text(text)
    with pytest.raises(BadConfig, match=match):
        domains.load("x")


def test_corpus_forms_and_split(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One document")
    lines = [json.dumps({"text": f"number {i} \u2028 of many"}, ensure_ascii=False) for i in range(400)]
    (tmp_path / "b.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "c.bin").write_bytes(b"\xff")
    corpus = read_corpus([tmp_path])
    assert len(corpus.documents) == 401
    parts = {part: corpus.part(part).documents for part in Part}
    assert sorted(each for documents in parts.values() for each in documents) == sorted(corpus.documents)
    assert 15 < len(parts[Part.VERDICT]) < 75
    assert 15 < len(parts[Part.SELECTION]) < 75
    assert all(part_of(document) == part for part, documents in parts.items() for document in documents)
    assert parts[Part.VERDICT] == corpus.verdict().documents
    assert not set(parts[Part.SELECTION]) & set(parts[Part.VERDICT])
    assert corpus.sha256 == read_corpus([tmp_path]).sha256


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "line 2: expected an object"),
        ("a.jsonl", b'{"text": "x"}\n\nnot json\n', "line 3: not valid JSON"),
        ("a.jsonl", b'{"text": "\\ud800"}', "line 1.*surrogate"),
        ("a.txt", b"ok \xff", "byte 3 is invalid"),
        ("a.txt", b"  \n", "every document is empty"),
        ("a.csv", b"x", r"no \.txt"),
    ],
)
def test_bad_corpora(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SliceError, match=match):
        read_corpus([tmp_path])


def test_missing_corpus(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        read_corpus([tmp_path / "none"])


def test_the_parent_writes_its_own_text(pico_gemma3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded, cached, one document a topic; the second call does not run the model."""
    monkeypatch.setattr(synthetic, "TOKENS", 12)
    checkpoint = open_checkpoint(pico_gemma3)
    domain = Domain(name="cats", description="Cats.", topics=[f"cat number {i}" for i in range(40)])
    seen: list[tuple[int, int]] = []
    first = synthetic.generate_corpus(
        checkpoint, domain, 0, lambda stage, done, total: seen.append((done, total))
    )
    assert seen == [(done, 40) for done in range(1, 41)]
    assert len(first.documents) == 40
    assert first.documents[0].startswith("Cat number 0 is")
    again: list[tuple[int, int]] = []
    assert synthetic.generate_corpus(checkpoint, domain, 0, lambda *step: again.append(step)) == first
    assert again == []
    assert synthetic.generate_corpus(checkpoint, domain, 1) != first


def test_slicing_with_no_data_at_all(pico_gemma3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "TOKENS", 8)
    made = cut(SliceRequest(domain="biochem", layers="all", model=str(pico_gemma3), vocab="450"))
    assert made.calibration.source == "parent"
    assert made.calibration.documents > 30


def test_a_domain_without_topics_needs_a_corpus(pico_gemma3: Path) -> None:
    with pytest.raises(BadConfig, match="--corpus PATH"):
        synthetic.generate_corpus(open_checkpoint(pico_gemma3), Domain(name="x", description="y"))
