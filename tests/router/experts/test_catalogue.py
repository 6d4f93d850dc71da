"""The catalogue of experts, and the settings of `serve.yaml`."""

from pathlib import Path

import pytest

from router import settings
from router.errors import BadExperts, BadSettings
from router.experts import catalogue
from slices.errors import NotFound
from slices.home import shipped_configs
from tests.router.router_world import write_slice


def quantized(*types: str) -> list[dict[str, object]]:
    return [
        {"file": f"{kind}.gguf", "type": kind, "bytes": 9, "bits_per_weight": 4.5, "sha256": "0"}
        for kind in types
    ]


def test_what_is_run(slices_root: Path) -> None:
    folder = write_slice(slices_root, "quant", "math", quantized=quantized("Q8_0", "Q4_K_M", "Q2_K"))
    for name in ("Q8_0.gguf", "Q2_K.gguf"):  # Q4_K_M is listed, but its file is gone
        (folder / name).write_bytes(b"")
    assert catalogue.read().experts["quant"].file == folder / "Q8_0.gguf"
    preferred = catalogue.read(quantization="Q2_K").experts
    assert (preferred["quant"].type, preferred["quant"].bytes) == ("Q2_K", 9)
    assert (preferred["bio"].file, preferred["bio"].type) == (None, "bf16")


def test_what_is_left_where_an_expert_did_not_start(slices_root: Path) -> None:
    left = catalogue.without(catalogue.read(), {"lex": "no memory"})
    assert set(left.experts) == {"bio", "gen"} and left.by_domain == {"biochem": "bio"}
    assert left.disabled_reason == {"law": "its expert lex did not start"}
    with pytest.raises(BadExperts, match="generalist gen did not start: no memory"):
        catalogue.without(catalogue.read(), {"gen": "no memory"})


def test_the_newer_slice_of_a_domain_gets_its_queries(slices_root: Path) -> None:
    write_slice(slices_root, "a-newer", "law", created="2026-06-01T00:00:00+00:00")
    served = catalogue.read()
    assert served.by_domain == {"biochem": "bio", "law": "a-newer"}
    assert "lex" in served.experts


def test_the_generalist(slices_root: Path) -> None:
    assert catalogue.read().generalist == "gen"
    assert catalogue.read(generalist="lex").generalist == "lex"
    assert catalogue.read(["bio"]).generalist == "bio"
    with pytest.raises(BadExperts, match="no generalist among"):
        catalogue.read(["bio", "lex"])
    with pytest.raises(BadExperts, match="'gone' is not served"):
        catalogue.read(generalist="gone")


def test_what_cannot_be_served(mom_home: Path, slices_root: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nope"):
        catalogue.read(["nope"])
    other = write_slice(tmp_path / "elsewhere", "bio", "law")
    with pytest.raises(BadExperts, match="two slices are called 'bio'"):
        catalogue.read(["bio", str(other)])
    with pytest.raises(BadExperts, match="no slices"):
        catalogue.read(root=tmp_path / "empty")


def test_the_shipped_settings_are_the_defaults() -> None:
    assert settings.read(shipped_configs() / "serve.yaml") == settings.Settings()


def test_an_override_keeps_what_it_does_not_say() -> None:
    loaded = settings.Settings.model_validate(
        {"default": {"max_queued_requests": 7}, "overrides": {"bio": {"num_replicas": 2}}}
    )
    assert (loaded.scaling("bio").max_queued_requests, loaded.scaling("bio").num_replicas) == (7, 2)
    assert loaded.scaling("lex").num_replicas == 1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("ports: 1", "ports"),
        ("port: 70000", "port"),
        ("experts: some", "experts"),
        ("thresholds: {confidence: .nan}", r"thresholds\.confidence"),
        ("default: {num_replicas: 0}", r"default\.num_replicas"),
        ("default: {num_replicas: 2, autoscaling: {}}", "not both"),
        ("runtime: os.system", "runtime"),
        ("[1, 2]", "the file"),
        ("a: [", "not YAML"),
        ("!!python/object/apply:os.system [ls]", "not YAML"),
    ],
)
def test_bad_settings_name_the_field(text: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    with pytest.raises(BadSettings, match=word) as caught:
        settings.read(path)
    assert "\n" not in str(caught.value)


def test_settings_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="cannot read"):
        settings.read(tmp_path / "none.yaml")
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert settings.read(path) == settings.Settings()
