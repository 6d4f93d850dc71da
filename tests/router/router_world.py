"""What the router's tests share: four small domains, and slices without weights."""

from pathlib import Path

from slices import manifest

DOMAINS = {
    "biochem": [
        "How do enzymes lower activation energy?",
        "What do enzymes bind to on a protein?",
        "How is protein folded in the cell?",
        "What does a cell membrane consist of?",
        "Which enzymes copy the cell's DNA?",
        "How does DNA become protein?",
    ],
    "law": [
        "Is a verbal contract enforceable?",
        "When is a contract void?",
        "What must a plaintiff prove in court?",
        "Can a tenant sue a landlord in court?",
        "Who may appeal against a court judgment?",
        "What makes a clause in a contract unfair?",
    ],
    "computing": [
        "How do I reverse a list in Python?",
        "How do I sort a list in Python?",
        "What does a Python decorator do?",
        "Why is my loop in Java slow?",
        "How do I parse JSON in Python?",
        "What is a linked list in Java?",
    ],
    "general": [
        "hello, how are you?",
        "good morning, how are you today?",
        "tell me a joke please",
        "hello there, tell me a story",
        "thank you, good night",
        "please tell me the weather today",
    ],
}
PAIRS = [(text, domain) for domain, texts in DOMAINS.items() for text in texts]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def write_slice(root: Path, name: str, domain: str, **more: object) -> Path:
    """A finished slice without weights. `more` goes into its manifest."""
    folder = root / name
    folder.mkdir(parents=True)
    fields = {
        "schema": manifest.SCHEMA,
        "name": name,
        "domain": domain,
        "created": "2026-01-02T03:04:05+00:00",
        "parent": {"model": "pico", "model_type": "gemma3_text", "headers_sha256": "0", "bytes": 1},
        "recipe": {},
        "layers": [0],
        "vocabulary": 1,
        "parameters": {"decoder": 1, "per_layer_embedding": 0, "embedding": 1, "total": 2},
        "bytes": 4,
        "calibration": {"source": "none"},
        "seed": 0,
        "versions": {},
    }
    manifest.write(folder, manifest.Manifest.model_validate(fields | more))
    return folder


def measured(value: float, **more: object) -> dict[str, object]:
    """A measurement of the checkpoint's bits per byte of law text; `more` overrides its fields."""
    return {
        "variant": manifest.BF16,
        "domain": "law",
        "metric": manifest.BITS,
        "value": value,
        "stderr": 0.1,
        "data": "d",
    } | more
