"""The ladder keeps the file that the goal asks for, tells of every trial, and leaves nothing else behind."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slices import demo_model, manifest
from slices.errors import Exists, NotFound, RunFailed
from slices.files.temp_files import temp_dir
from slices.measure.heldout import cut_heldout
from slices.measure.ladder import Ladder, LadderOptions, run_ladder
from slices.measure.quant_trials import Goal, GoalNotMet
from slices.quant.quantize import quantize
from slices.runtimes.open import open_runtime
from tests.paths import PROSE as PROSE_PATH
from tests.slices.gguf_fixtures import (
    FULL,
    SAMPLES,
    SLIDING,
    visible_and_hidden,
    write_gemma3,
    write_manifest,
)

TEXT = cut_heldout(list(SAMPLES.values()))
TYPES = ("Q8_0", "Q2_K", "Q4_K_M")  # not in order of size
ONE = LadderOptions(threads=1)
PROSE = PROSE_PATH.read_text(encoding="utf-8")


@pytest.fixture
def pico(tmp_path: Path) -> Path:
    folder = write_gemma3(tmp_path / "pico", [SLIDING, FULL])
    write_manifest(folder, "pico")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Ladder:
    """All types of the pico, measured with a budget that all fit."""
    folder = write_gemma3(tmp_path_factory.mktemp("whole") / "pico", [SLIDING, FULL])
    write_manifest(folder, "pico")
    return run_ladder(folder, TEXT, "demo", Goal(budget=10**9), TYPES, ONE)


def test_budget_alone_measures_all_and_keeps_the_nearest(whole: Ladder) -> None:
    assert [each.type for each in whole.trials] == ["Q2_K", "Q4_K_M", "Q8_0"]
    assert [each.bytes for each in whole.trials] == list(whole.sizes.values())  # as predicted
    kls = [each.measured.kl.value for each in whole.trials]
    assert kls == sorted(kls, reverse=True)
    assert all(each.measured.kl.stderr > 0 for each in whole.trials)
    assert whole.chosen.type == whole.kept.type == "Q8_0"
    folder = whole.kept.path.parent
    assert whole.kept.path == folder / "pico-Q8_0.gguf"
    assert [
        path.name for path in folder.iterdir() if path.name.startswith(".") or path.suffix == ".gguf"
    ] == ["pico-Q8_0.gguf"]


def test_slice_json_tells_of_every_rung_and_measures_the_kept(whole: Ladder) -> None:
    folder = whole.kept.path.parent
    recorded = manifest.read(folder)
    (entry,) = recorded.quantized
    assert (entry.file, entry.sha256, entry.bytes) == (
        "pico-Q8_0.gguf",
        whole.kept.sha256,
        whole.chosen.bytes,
    )
    recorded_ladder = json.loads((folder / manifest.FILE).read_text())["quantized"][0]
    assert recorded_ladder["goal"] == {"max_kl": None, "budget": 10**9}
    assert recorded_ladder["ladder"] == json.loads(
        json.dumps([each.to_json() for each in whole.trials], allow_nan=False)
    )
    assert set(recorded_ladder["ladder"][0]) >= {
        "type",
        "bytes",
        "bits_per_weight",
        "kl",
        "same_top1",
        "bits_per_byte",
    }
    assert set(recorded_ladder["ladder"][0]["kl"]) == {"mean", "stderr", "p99"}
    values = {(m.variant, m.metric): m.value for m in recorded.measurements}
    assert values[("pico-Q8_0.gguf", "kl")] == whole.chosen.measured.kl.value
    assert set(values) == {
        ("bf16", "bits_per_byte"),
        *(("pico-Q8_0.gguf", metric) for metric in ("bits_per_byte", "kl", "same_top1")),
    }
    assert {(m.domain, m.data) for m in recorded.measurements} == {("demo", TEXT.sha256)}


def test_the_kept_file_is_what_quantizing_gives(whole: Ladder, pico: Path) -> None:
    assert quantize(pico, "Q8_0", threads=1).sha256 == whole.kept.sha256
    runtime = open_runtime(pico, whole.kept.path, threads=1)
    bits = -sum(runtime.logprobs(runtime.encode(w.text)).sum() for w in TEXT.windows) / np.log(2)
    runtime.close()
    assert bits / TEXT.nbytes == pytest.approx(whole.chosen.measured.bits_per_byte.value, rel=1e-3)


def between(ladder: Ladder, above: int) -> float:
    """A greatest KL that the trial `above` meets and the one below it does not."""
    low, high = (ladder.trials[index].measured.kl.value for index in (above, above - 1))
    return (low + high) / 2


def test_the_ladder_ends_at_the_first_that_passes(whole: Ladder, pico: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    goal = Goal(max_kl=between(whole, 1))
    found = run_ladder(pico, TEXT, "demo", goal, TYPES, ONE, progress=lambda *step: seen.append(step))
    assert [(each.type, each.passes) for each in found.trials] == [("Q2_K", False), ("Q4_K_M", True)]
    assert found.kept.path.name == "pico-Q4_K_M.gguf"
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    steps = [f"{verb} {type}" for type in ("Q2_K", "Q4_K_M") for verb in ("quantize pico to", "evaluate")]
    assert stages == ["evaluate bf16", *steps]
    assert [p.name for p in pico.iterdir() if p.name.startswith(".") or p.suffix == ".gguf"] == [
        "pico-Q4_K_M.gguf"
    ]


def test_nothing_is_written_where_none_is_good_enough(whole: Ladder, pico: Path) -> None:
    before = visible_and_hidden(pico)
    with pytest.raises(
        GoalNotMet, match=r"best of 3 measured is Q8_0, .* KL of .* ± .*; raise --max-kl"
    ) as recorded_ladder:
        run_ladder(pico, TEXT, "demo", Goal(max_kl=1e-9), TYPES, ONE)
    assert [each.type for each in recorded_ladder.value.trials] == ["Q2_K", "Q4_K_M", "Q8_0"]
    small = Goal(max_kl=between(whole, 1), budget=whole.trials[0].bytes)
    with pytest.raises(GoalNotMet, match="best of 1 measured is Q2_K"):
        run_ladder(pico, TEXT, "demo", small, TYPES, ONE)
    with pytest.raises(
        GoalNotMet, match=f"the smallest, Q2_K, takes {whole.trials[0].bytes:,}; raise --budget"
    ):
        run_ladder(pico, TEXT, "demo", Goal(budget=1000), TYPES, ONE)
    assert visible_and_hidden(pico) == before
    assert manifest.read(pico).quantized == []


def test_the_same_file_may_be_there_and_another_may_not(pico: Path) -> None:
    goal, target = Goal(budget=10**9), pico / "pico-Q8_0.gguf"
    made = quantize(pico, "Q8_0", threads=1)
    stamp = target.stat().st_mtime_ns
    assert run_ladder(pico, TEXT, "demo", goal, ["Q8_0"], ONE).kept.sha256 == made.sha256
    assert target.stat().st_mtime_ns == stamp
    assert len(manifest.read(pico).quantized) == 1
    quantize(pico, "Q8_0", force=True, threads=1, overrides={"ffn_down": "Q4_0"})
    with pytest.raises(Exists, match=r"Q8_0 was chosen, but .*pico-Q8_0\.gguf is there and is another file"):
        run_ladder(pico, TEXT, "demo", goal, ["Q8_0"], ONE)
    found = run_ladder(pico, TEXT, "demo", goal, ["Q8_0"], ONE, force=True)
    assert found.kept.sha256 == made.sha256
    (entry,) = manifest.read(pico).quantized
    assert entry.overrides == {}


def test_plain_checkpoint_needs_an_output(pico: Path, tmp_path: Path) -> None:
    (pico / manifest.FILE).unlink()
    with pytest.raises(NotFound, match="say with -o"):
        run_ladder(pico, TEXT, "demo", Goal(budget=10**9), ["Q8_0"], ONE)
    out = tmp_path / "elsewhere" / "x.gguf"
    found = run_ladder(pico, TEXT, "demo", Goal(budget=10**9), ["Q8_0", "IQ2_M"], ONE, out)
    assert found.kept.path == out
    assert list(found.sizes) == ["Q8_0"]  # the other needs an importance matrix
    assert visible_and_hidden(out.parent) == {"x.gguf"}
    with pytest.raises(Exists):
        run_ladder(pico, TEXT, "demo", Goal(budget=10**9), ["Q8_0"], ONE, out)


def test_embeddings_have_their_own_type_and_bf16_takes_none(pico: Path) -> None:
    found = run_ladder(
        pico, TEXT, "demo", Goal(budget=10**9), ["Q2_K", "BF16"], replace(ONE, embedding_type="Q8_0")
    )
    assert [each.type for each in found.trials] == ["Q2_K", "BF16"]
    assert found.kept.type == "BF16"
    assert found.chosen.measured.kl.value < 1e-4
    plain = run_ladder(pico, TEXT, "demo", Goal(budget=found.trials[0].bytes), ["Q2_K"], ONE)
    assert plain.chosen.bytes < found.trials[0].bytes


def test_a_broken_rung_is_named_and_leaves_nothing(pico: Path) -> None:
    """Weights that overflow: the bf16 slice itself gives no numbers, and says so."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(pico / "model.safetensors")
    tensors["model.norm.weight"][:] = float("inf")
    save_file(tensors, pico / "model.safetensors", metadata={"format": "pt"})
    before = visible_and_hidden(pico)
    with pytest.raises(RunFailed, match="bf16 gave no finite probability"):
        run_ladder(pico, TEXT, "demo", Goal(budget=10**9), ["Q8_0"], ONE)
    assert visible_and_hidden(pico) == before


def test_killed_ladder_is_swept_by_the_next(pico: Path) -> None:
    before = visible_and_hidden(pico)
    code = (
        "from pathlib import Path\n"
        "from slices.measure.heldout import cut_heldout\n"
        "from slices.measure.ladder import *\n"
        "text = cut_heldout(['a b'] * 2)\n"
        f"run_ladder(Path({str(pico)!r}), text, 'demo', Goal(budget=10**9), ['Q8_0', 'Q2_K'])"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        deadline = time.monotonic() + 60
        while not list(pico.glob(".scratch-*/*.gguf")) and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    assert visible_and_hidden(pico) > before
    run_ladder(pico, TEXT, "demo", Goal(budget=10**9), ["Q8_0"], ONE)
    assert visible_and_hidden(pico) == before | {"pico-Q8_0.gguf"}


def test_folders_of_living_runs_are_left_alone(tmp_path: Path) -> None:
    with temp_dir(tmp_path) as one:
        (one / "file").touch()
        with temp_dir(tmp_path) as two:
            assert one != two
            assert (one / "file").exists()
        dead = tmp_path / ".scratch-dead"
        (dead / "deep").mkdir(parents=True)
        held = tmp_path / ".scratch-held"
        held.mkdir()
        descriptor = os.open(held, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with temp_dir(tmp_path):
            assert not dead.exists()
            assert held.exists()
        os.close(descriptor)
    assert visible_and_hidden(tmp_path) == {".scratch-held"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_real_model(tmp_path: Path) -> None:
    """Gemma 3 270M: Q2_K is far from the checkpoint and Q8_0 near, so a middling goal lies between."""
    folder = demo_model.ensure()
    text = cut_heldout([PROSE[at : at + 900] for at in range(0, 2700, 900)])
    found = run_ladder(folder, text, "prose", Goal(max_kl=0.02), ("Q2_K", "Q8_0"), out=tmp_path / "auto.gguf")
    assert [(each.type, each.passes) for each in found.trials] == [("Q2_K", False), ("Q8_0", True)]
    assert visible_and_hidden(tmp_path) >= {"auto.gguf"}
