"""Planted truths on the real Gemma 3 270M, and the page in a real browser."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from slices import demo_model
from slices.cut.pipeline import cut
from slices.cut.request import SliceRequest
from slices.report.as_json import as_json
from slices.report.config import EvalConfig
from slices.report.eval_task import parse_tasks
from slices.report.evaluate import evaluate
from slices.report.evaluated_model import EvaluatedModel
from slices.report.html_report import Plot, html_report
from slices.report.parent_quants import ParentQuants
from tests.paths import PROSE as PROSE_PATH

pytestmark = pytest.mark.slow
PROSE = PROSE_PATH.read_text(encoding="utf-8")
LINES = PROSE.splitlines()
DOCUMENTS = ["\n".join(LINES[at : at + 3]) for at in range(0, len(LINES), 3)]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOM_HOME", str(tmp_path_factory.mktemp("home")))
        yield demo_model.ensure(demo_model.NAME)


def shuffled(folder: Path) -> Path:
    """The slice in `folder` with its layers' MLPs in reverse order."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    moved = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        if "layers" in parts and "mlp" in parts:
            at = parts.index("layers") + 1
            parts[at] = str(17 - int(parts[at]))
        moved[".".join(parts)] = tensor
    save_file(moved, file, metadata={"format": "pt"})
    return folder


@pytest.mark.timeout(1800)
def test_an_equal_slice_differs_by_nothing_and_a_shuffled_one_is_flagged_on_every_probe(
    parent: Path, tmp_path: Path
) -> None:
    for name in ("equal", "shuffled"):
        cut(
            SliceRequest(
                domain="law", layers="all", model=str(parent), vocab="all", corpus=(), output=tmp_path / name
            )
        )
    shuffled(tmp_path / "shuffled")
    text = {"law": DOCUMENTS}
    config = EvalConfig(parse_tasks("text,probes"), limit=20, needle_lengths=(512,))
    models = [EvaluatedModel(name, tmp_path / name) for name in ("equal", "shuffled")]
    report = evaluate(models, text, config, EvaluatedModel("parent", parent))
    found = as_json(report, ParentQuants({}, {}, {}), {}, {}, {}, "test")["slices"]
    equal = found["equal"]["domains"]["law"]
    assert (equal["kl"]["mean"], equal["kl"]["max"], equal["same_top1"]["value"]) == (0, 0, 1)
    assert (equal["vs_baseline"]["value"], equal["vs_baseline"]["p"]) == (0, 1)
    assert found["equal"]["significantly_worse"] == []
    shares = {name: {probe: each["value"] for probe, each in found[name]["probes"].items()} for name in found}
    assert set(found["shuffled"]["significantly_worse"]) == set(found["equal"]["probes"]), shares
    assert found["shuffled"]["domains"]["law"]["kl"]["mean"] > 2


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_in_a_browser(parent: Path, tmp_path: Path, width: int) -> None:
    """No console message, and nothing that is wider than the window."""
    assert BROWSER is not None
    cut(
        SliceRequest(
            domain="law", layers="all", model=str(parent), vocab="all", corpus=(), output=tmp_path / "law"
        )
    )
    text = {"law": DOCUMENTS, "other": DOCUMENTS[::-1]}
    report = evaluate(
        [EvaluatedModel("law", tmp_path / "law")],
        text,
        EvalConfig(max_bytes=2000),
        EvaluatedModel("parent", parent),
    )
    found = as_json(report, ParentQuants({}, {}, {}), {}, {}, {}, "test")
    html = tmp_path / "report.html"
    html.write_text(
        html_report(found, [Plot('<svg width="700" height="300"></svg>', "wide")]), encoding="utf-8"
    )
    probe = "<script>document.title = document.documentElement.scrollWidth + '/' + innerWidth</script>"
    html.write_text(html.read_text().replace("</body>", f"{probe}</body>"))
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
         f"--window-size={width},900", "--dump-dom", html.as_uri()],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    title = done.stdout.split("<title>")[1].split("</title>")[0]
    used, there = map(int, title.split("/"))
    assert used <= there
