"""ggml's tensor types: their numbers, names and sizes, from gguf-py."""

EMBEDDING_TENSORS = ("token_embd.weight", "per_layer_token_embd.weight")  # one row a vocabulary entry


def type_number(name: str) -> int:
    """ggml's number of a tensor's type, such as 12 for "Q4_K"."""
    import gguf

    return int(gguf.GGMLQuantizationType[name])


def type_name(number: int) -> str:
    """The name of a tensor's type, such as "Q4_K" for 12."""
    import gguf

    return str(gguf.GGMLQuantizationType(number).name)


def row_bytes(name: str, columns: int) -> int:
    """Bytes of a row of `columns` numbers in a tensor's type, whose block must divide it."""
    import gguf

    block, nbytes = map(int, gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]])
    if columns % block:
        raise AssertionError(f"a row of {columns} numbers cannot be {name}, whose blocks hold {block}")
    return columns // block * nbytes


def block_size(name: str) -> int:
    """Numbers in a block of a tensor's type, which must divide a row."""
    import gguf

    return int(gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]][0])


def bits_per_weight(name: str) -> float:
    """Bits of one number in a tensor's type, such as 4.5 for "Q4_K"."""
    import gguf

    block, nbytes = map(int, gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]])
    return 8 * nbytes / block
