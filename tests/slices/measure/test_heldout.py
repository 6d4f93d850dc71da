"""Held-out text: read by lines, cut into windows that join to it, sampled by what it says."""

import hashlib
from pathlib import Path

import pytest

from slices.errors import BadConfig, NotFound
from slices.measure.heldout import WINDOW_BYTES, cut, cut_heldout, read_verdict


@pytest.mark.parametrize(
    "text", ["word " * 2000, "é" * 5000, "a" * 4000 + " b", " \n" * 3000, "🙂 x" * 999, "a"]
)
def test_windows_join_to_the_text(text: str) -> None:
    parts = list(cut(text))
    assert "".join(parts) == text
    assert all(1 <= len(part.encode()) <= WINDOW_BYTES for part in parts)
    assert len(parts) <= 1 + len(text.encode()) / (WINDOW_BYTES - 6)


def test_windows_keep_words_whole_with_the_space_before_them() -> None:
    assert list(cut("one two three", 8)) == ["one two", " three"]
    assert list(cut("one two\nthree", 7)) == ["one two", "\nthree"]
    assert list(cut("abcdefgh i", 4)) == ["abcd", "efgh", " i"]


def test_sample_is_fixed_by_the_text_and_spans_documents() -> None:
    documents = [f"document {n}. " + f"word{n} " * 1000 for n in range(20)]
    some = cut_heldout(documents, 20_000)
    assert some == cut_heldout(documents, 20_000)
    assert 15_000 < some.nbytes <= 20_000
    assert some.documents > 5
    backwards = cut_heldout(documents[::-1], 20_000)
    assert {w.text for w in backwards.windows} == {w.text for w in some.windows}
    assert backwards.sha256 == some.sha256
    assert cut_heldout(documents, 1).documents == 2
    assert cut_heldout(documents).nbytes == sum(len(d.encode()) for d in documents)


def test_a_sample_covers_eight_documents_where_they_fit() -> None:
    """One long document has most of the windows: a sample of windows alone would be mostly of it."""
    long = "".join(f"word{n} " for n in range(20_000))
    documents = [long, *(f"{n} " * 800 for n in range(10, 21))]
    found = cut_heldout(documents, 24_000)
    assert found.documents >= 8 and found.nbytes <= 24_000
    assert cut_heldout(documents[:5], 24_000).documents == 5
    assert cut_heldout(documents, 4_000).documents == 2
    assert found.sha256 == cut_heldout(documents[::-1], 24_000).sha256


def test_a_sample_of_many_documents_is_that_of_their_hashes_alone() -> None:
    """So that figures on text with enough documents are those of earlier versions."""
    documents = [f"document {n}. " + f"word{n} " * 400 for n in range(40)]
    found = cut_heldout(documents, 24_000)
    ranked = sorted(cut_heldout(documents).windows, key=lambda w: hashlib.sha256(w.text.encode()).digest())
    used, expected = 0, []
    for window in ranked:
        if used + window.nbytes <= 24_000:
            used += window.nbytes
            expected.append(window)
    assert [window.text for window in found.windows] == [window.text for window in expected]
    pairs = {(ours.document, theirs.document) for ours, theirs in zip(found.windows, expected, strict=True)}
    assert len(pairs) == found.documents == len({window.document for window in expected})


def write_heldout(data: Path, domain: str, content: str) -> Path:
    path = data / "corpora" / domain / "heldout.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_data_is_read_by_lines_not_by_unicode_lines(tmp_path: Path) -> None:
    write_heldout(tmp_path, "law", '{"text": "a\u2028b", "source": "s"}\n{"text": "c"}\n\n{"text": ""}\n')
    assert read_verdict(tmp_path) == {"law": ["a\u2028b", "c"]}
    with pytest.raises(NotFound, match=r"corpora/maths/heldout\.jsonl; its domains: law"):
        read_verdict(tmp_path, ["maths"])
    with pytest.raises(NotFound, match="its domains: \\(none\\)"):
        read_verdict(tmp_path / "corpora")


@pytest.mark.parametrize("line", ["{", "[]", '{"text": 1}', '{"txt": "a"}', '{"text": "\\ud800"}'])
def test_bad_line_is_named(line: str, tmp_path: Path) -> None:
    path = write_heldout(tmp_path, "law", '{"text": "a"}\n' + line + "\n")
    with pytest.raises(BadConfig, match=f"{path}, line 2"):
        read_verdict(tmp_path, ["law"])


def test_empty_file_is_named(tmp_path: Path) -> None:
    write_heldout(tmp_path, "law", "\n")
    with pytest.raises(NotFound, match=r"law/heldout\.jsonl holds no text"):
        read_verdict(tmp_path)


def test_documents_are_numbered_alike_in_any_order() -> None:
    """Figures by document are cached under the digest, which does not see the order of the documents."""
    documents = [f"Document {number}. " + "Some words of it. " * 40 for number in range(12)]
    there, back = cut_heldout(documents, 6000), cut_heldout(documents[::-1], 6000)
    assert there.sha256 == back.sha256
    assert there.windows == back.windows
