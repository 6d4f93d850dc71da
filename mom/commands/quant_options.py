"""Quantization types as command-line choices: those of `slices.quant.types`, with `auto` and `llama.cpp`."""

from enum import StrEnum


class TypeOption(StrEnum):
    """--type: llama.cpp's mixes, or the one that meets the goal."""

    IQ2_M = "IQ2_M"
    Q2_K = "Q2_K"
    Q3_K_S = "Q3_K_S"
    Q3_K_M = "Q3_K_M"
    IQ4_XS = "IQ4_XS"
    Q4_K_M = "Q4_K_M"
    Q5_K_M = "Q5_K_M"
    Q6_K = "Q6_K"
    Q8_0 = "Q8_0"
    BF16 = "BF16"
    AUTO = "auto"


class QatTypeOption(StrEnum):
    """--qat: the types that round."""

    IQ2_M = "IQ2_M"
    Q2_K = "Q2_K"
    Q3_K_S = "Q3_K_S"
    Q3_K_M = "Q3_K_M"
    IQ4_XS = "IQ4_XS"
    Q4_K_M = "Q4_K_M"
    Q5_K_M = "Q5_K_M"
    Q6_K = "Q6_K"
    Q8_0 = "Q8_0"


class EmbeddingTypeOption(StrEnum):
    """--embedding-type: ggml's types of the embeddings, or llama.cpp's own choice."""

    Q2_K = "Q2_K"
    Q3_K = "Q3_K"
    IQ3_S = "IQ3_S"
    IQ4_NL = "IQ4_NL"
    IQ4_XS = "IQ4_XS"
    Q4_0 = "Q4_0"
    Q4_1 = "Q4_1"
    Q4_K = "Q4_K"
    Q5_0 = "Q5_0"
    Q5_1 = "Q5_1"
    Q5_K = "Q5_K"
    Q6_K = "Q6_K"
    Q8_0 = "Q8_0"
    F16 = "F16"
    BF16 = "BF16"
    F32 = "F32"
    LLAMA_CPP = "llama.cpp"


class ImatrixOption(StrEnum):
    """--imatrix: the text that the importance matrix is measured on."""

    DOMAIN = "domain"
    NONE = "none"
