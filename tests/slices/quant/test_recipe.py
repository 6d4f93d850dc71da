"""A recipe says what was asked for, refuses what cannot be, and llama.cpp follows it tensor by tensor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import pytest

from slices import manifest
from slices.errors import BadConfig, SliceError, Unsupported
from slices.export import export
from slices.gguf.header import read_gguf_header
from slices.gguf.tensor_types import row_bytes, type_name, type_number
from slices.quant.quantize import quantize
from slices.quant.recipe import make_recipe
from slices.quant.size import SizePrediction, predict_from_export, predict_size
from slices.quant.types import EMBEDDING_TYPES, TENSOR_TYPES, TYPES
from tests.picos import SIX, write_gemma4
from tests.slices.gguf_fixtures import SLIDING, write_gemma3, write_manifest

EMBEDDING, PER_LAYER = "token_embd.weight", "per_layer_token_embd.weight"


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 whose rows 256 divides."""
    folder = write_gemma3(tmp_path_factory.mktemp("recipe") / "pico", [SLIDING])
    write_manifest(folder, "pico")
    return folder


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 whose rows 256 does not divide, as the 270M's 640 are not."""
    return write_gemma3(tmp_path_factory.mktemp("recipe") / "narrow", [SLIDING], hidden_size=160)


@pytest.fixture(scope="module")
def gemma4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 4 of E4B's shape whose rows 256 divides, exported."""
    folder = write_gemma4(
        tmp_path_factory.mktemp("recipe") / "gemma4", SIX * 3, num_kv_shared_layers=6, hidden_size=256,
        intermediate_size=256, hidden_size_per_layer_input=256, num_attention_heads=4, head_dim=64,
        global_head_dim=64,
    )  # fmt: skip
    return export(folder, folder / "bf16.gguf")


def plan(exported: Path, type: str, with_imatrix: bool = False, **recipe: Any) -> SizePrediction:
    """The prediction from an export alone."""
    return predict_from_export(exported, make_recipe(type, **recipe), with_imatrix)


def kinds(types: Mapping[str, str], part: str) -> set[str]:
    """The types of all tensors with `part` in their name."""
    return {type for name, type in types.items() if part in name}


def test_types_are_those_of_the_libraries() -> None:
    import llama_cpp.llama_cpp as cpp

    for each in TYPES.values():
        constant = f"LLAMA_FTYPE_MOSTLY_{each.name}"
        assert each.ftype == getattr(cpp, constant)
    for name in TENSOR_TYPES:
        assert type_name(type_number(name)) == name
        block, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
        assert row_bytes(name, 3 * block) == 3 * nbytes


def test_small_sensitive_matrices_stay_at_8_bits(gemma4: Path) -> None:
    types = plan(gemma4, "Q2_K").types
    assert kinds(types, ".inp_gate.") == kinds(types, ".proj.") == {"Q8_0"}
    assert "Q2_K" in kinds(types, ".ffn_gate.")
    assert types["per_layer_model_proj.weight"] == "BF16"  # llama.cpp never touches it
    assert types[EMBEDDING] == types[PER_LAYER] == "Q4_K"


def test_embeddings_have_their_own_type(gemma4: Path) -> None:
    """Also where the embedding is the output matrix too, which llama.cpp's mixes raise to 6 bits."""
    small, plain = (
        plan(gemma4, "Q2_K", embedding_type="Q3_K"),
        plan(gemma4, "Q2_K", embedding_type="llama.cpp"),
    )
    assert {small.types[EMBEDDING], small.types[PER_LAYER]} == {"Q3_K"}
    changed = {name for name in small.types if small.types[name] != plain.types[name]}
    assert changed == {EMBEDDING, PER_LAYER}
    assert {plain.types[EMBEDDING], plain.types[PER_LAYER]} == {"Q6_K"}
    assert small.bytes < plain.bytes


def test_below_4_bits_the_tables_have_4(gemma4: Path) -> None:
    """The default is ours below Q4_K_M and llama.cpp's from there on, as measured."""
    assert plan(gemma4, "IQ4_XS") == plan(gemma4, "IQ4_XS", embedding_type="Q4_K")
    assert plan(gemma4, "Q4_K_M") == plan(gemma4, "Q4_K_M", embedding_type="llama.cpp")


def test_the_callers_overrides_come_first(gemma4: Path) -> None:
    asked = {"token_embd": "Q5_K", r"blk\.3\..*proj": "F16", "attn_v": "Q8_0"}
    types = plan(gemma4, "Q2_K", embedding_type="Q4_K", overrides=asked).types
    assert types[EMBEDDING] == types[PER_LAYER] == "Q5_K"
    assert types["blk.3.proj.weight"] == "F16"
    assert types["blk.4.proj.weight"] == "Q8_0"
    assert kinds(types, "attn_v.weight") == {"Q8_0"}


def test_pure_is_one_type_for_all(gemma4: Path) -> None:
    types = plan(gemma4, "Q3_K_M", pure=True).types
    assert set(types.values()) == {"Q3_K", "F32", "BF16"}
    assert kinds(types, ".proj.") == {"Q3_K"}
    assert plan(gemma4, "Q3_K_M", pure=True, embedding_type="Q8_0").types[EMBEDDING] == "Q8_0"


def test_a_type_that_does_not_fit_the_rows_gives_way_and_is_reported(narrow: Path, tmp_path: Path) -> None:
    done = quantize(narrow, "Q2_K", tmp_path / "x.gguf", embedding_type="Q4_K")
    assert done.predicted.types[EMBEDDING] == "Q5_0"
    assert done.bytes == done.predicted.bytes
    assert (
        done.predicted.notes[0] == "token_embd.weight is Q5_0 instead of Q4_K, which rows of 160 do not fit"
    )
    assert done.predicted.notes[1].endswith(
        "rows that 256 does not divide: llama.cpp gives them larger types"
    )
    assert predict_size(narrow, "Q2_K", embedding_type="Q5_0").notes == done.predicted.notes[1:]


def test_the_recipe_is_in_the_file_and_in_slice_json(pico: Path) -> None:
    asked = {r"blk\.0\.ffn_down": "F32"}
    done = quantize(pico, "Q4_K_M", force=True, embedding_type="Q5_K", overrides=asked, pure=True)
    metadata = read_gguf_header(done.path).metadata
    recipe_metadata = {key: text for key, text in metadata.items() if key.startswith("mom.quantize.")}
    assert recipe_metadata == {
        "mom.quantize.type": "Q4_K_M",
        "mom.quantize.embedding_type": "Q5_K",
        "mom.quantize.pure": "true",
        "mom.quantize.override.0": r"blk\.0\.ffn_down=F32",
    }
    assert metadata["general.name"] == "pico"
    exported = read_gguf_header(export(pico, pico.parent / "export.gguf", force=True)).metadata
    origin = {key: value for key, value in exported.items() if key.startswith("mom.")}
    assert origin.keys() >= {"mom.weights_sha256", "mom.recipe"}
    assert {key: metadata[key] for key in origin} == origin
    [entry] = [each for each in manifest.read(pico).quantized if each.type == "Q4_K_M"]
    assert (entry.embedding_type, entry.overrides, entry.pure) == ("Q5_K", asked, True)
    assert entry.imatrix_sha256 is None
    assert entry.sha256 == done.sha256


def test_llama_cpp_follows_the_recipe_in_the_real_file_as_well(pico: Path, tmp_path: Path) -> None:
    done = quantize(pico, "Q2_K", tmp_path / "x.gguf", embedding_type="Q4_K", overrides={"ffn_up": "IQ4_XS"})
    header = read_gguf_header(done.path)
    assert {tensor.name: type_name(tensor.type) for tensor in header.tensors} == done.predicted.types
    assert done.predicted.types["blk.0.ffn_up.weight"] == "IQ4_XS"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"embedding_type": "Q9"}, Unsupported, "the embeddings cannot be 'Q9'; expected one of Q2_K, Q3_K"),
        ({"embedding_type": "IQ2_S"}, Unsupported, "the embeddings cannot be 'IQ2_S'"),
        ({"overrides": {"x": "q4_k"}}, Unsupported, "no tensor can be 'q4_k'; expected one of IQ1_S"),
        ({"overrides": {"(": "Q4_K"}}, BadConfig, "is no regular expression"),
        ({"overrides": {"x" * 130: "Q4_K"}}, BadConfig, "is too long"),
        ({"overrides": {".": "IQ2_XS"}}, Unsupported, "would make an embedding IQ2_XS"),
        ({"type": "BF16", "embedding_type": "Q4_K"}, Unsupported, "BF16 leaves every matrix as it is"),
        ({"type": "BF16", "pure": True}, Unsupported, "BF16 leaves every matrix as it is"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], error: type[SliceError], message: str) -> None:
    with pytest.raises(error, match=message):
        make_recipe(**({"type": "Q4_K_M"} | changes))


def test_an_override_that_needs_an_imatrix_names_its_tensor(gemma4: Path) -> None:
    asked = {r"blk\.2\.ffn_up": "IQ2_XS"}
    with pytest.raises(Unsupported, match=r"blk\.2\.ffn_up\.weight would be IQ2_XS, which needs an imp"):
        plan(gemma4, "Q2_K", overrides=asked)
    assert plan(gemma4, "Q2_K", overrides=asked, with_imatrix=True).types["blk.2.ffn_up.weight"] == "IQ2_XS"


@pytest.mark.parametrize("embedding_type", EMBEDDING_TYPES)
def test_every_embedding_type_runs(pico: Path, tmp_path: Path, embedding_type: str) -> None:
    """`quantize` smoke-tests the file."""
    done = quantize(
        pico, "Q8_0", tmp_path / "x.gguf", embedding_type=embedding_type
    )  # `quantize` tries the file out
    assert done.predicted.types[EMBEDDING] == embedding_type
    assert done.bytes == done.predicted.bytes
