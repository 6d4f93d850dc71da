"""The comparison at the end of a command: what it measures, on which text, and when it does not."""

from pathlib import Path

import pytest

from mom.workflows import compare
from mom.workflows.compare import judge_file, measure_bits
from slices import manifest
from slices.measure.compare_mode import CompareMode
from slices.measure.plain_sizes import plain_sizes
from slices.progress import no_progress
from tests.slices.heal_fixtures import parent_gemma3, sentences, slice_of


@pytest.fixture
def sliced(tmp_path: Path) -> Path:
    """A slice with text of its own: 200 documents, about 20 of them verdict text."""
    folder = slice_of(parent_gemma3(tmp_path / "parent"), tmp_path / "slice")
    made = manifest.read(folder)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(f'{{"text": "{text}"}}\n' for text in sentences(200, 20).documents))
    recipe = {**made.recipe, "corpus": [str(corpus)]}
    manifest.write(folder, made.model_copy(update={"recipe": recipe, "texts": []}))
    return folder


def test_a_slice_is_judged_on_its_own_text(sliced: Path) -> None:
    found = judge_file(sliced, "bf16", CompareMode.AUTO, 1, no_progress)
    least = min(each.bytes for each in plain_sizes(sliced.parent / "parent", with_imatrix=True))
    assert (found.verdict == "alone") == (manifest.read(sliced).bytes < least)
    assert found.verdict in ("alone", "dominated", "level", "better")
    [bits] = manifest.read(sliced).measurements
    assert bits.domain == found.domain and (found.verdict == "alone" or bits.data == found.data)


def test_bits_alone_are_measured_where_nothing_is_compared(
    sliced: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "judge", None)
    found = measure_bits(sliced, "bf16", "not asked for", no_progress)
    assert (found.verdict, found.reason) == ("unknown", "not asked for")
    [bits] = manifest.read(sliced).measurements
    assert (bits.variant, bits.metric) == ("bf16", "bits_per_byte")
    never = judge_file(sliced, "bf16", CompareMode.NEVER, 1, no_progress)
    assert "--compare always" in never.reason


def test_no_text_is_written_for_a_comparison_that_nobody_asked_for(tmp_path: Path) -> None:
    folder = slice_of(parent_gemma3(tmp_path / "parent"), tmp_path / "slice")
    for found in (
        judge_file(folder, "bf16", CompareMode.AUTO, 1, no_progress),
        measure_bits(folder, "bf16", "not asked for", no_progress),
    ):
        assert (found.verdict, "there is no text" in found.reason) == ("unknown", True)
    assert not manifest.read(folder).measurements
