"""Checkpoints that lie: a good one with one seeded mutation of its bytes, its header or its JSON files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 2**24, 2**31, 2**53, 2**64, 10**400, 0.5, 1e400, float("nan"),
    "", "a", "7", "../../etc/passwd", "/dev/zero", "a\0b", "\u202e", "x" * 10_000, "full_attention",
    "gemma3_text", "gemma4", "BF16", "F64", "U8", [], [0], [-1], [[]], [2**40, 2**40],
    ["sliding_attention"] * 3, {}, {"a": 1},
]  # fmt: skip
JSON_FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")


def mutated(good: Path, folder: Path, seed: int) -> str:
    """Copy `good` to `folder` with one mutation; says which."""
    shutil.copytree(good, folder)
    random = Random(seed)
    kinds: list[Callable[[Path, Random], str]] = [
        flip_header, flip_data, change_length, change_size, change_header, change_header,
        change_json, change_json, change_json, change_json, damage_json, change_files,
    ]  # fmt: skip
    return random.choice(kinds)(folder, random)


def flip_header(folder: Path, random: Random) -> str:
    return _flip(folder / "model.safetensors", random, 8, 8 + _header_length(folder))


def flip_data(folder: Path, random: Random) -> str:
    """Some of these make a NaN."""
    size = (folder / "model.safetensors").stat().st_size
    return _flip(folder / "model.safetensors", random, 8 + _header_length(folder), size)


def change_length(folder: Path, random: Random) -> str:
    """The stated length of the header."""
    length = random.choice(
        [0, 1, 2, _header_length(folder) + random.randint(-9, 9), 10**6, 2**32, 2**63, 2**64 - 1]
    )
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[:8] = max(0, length).to_bytes(8, "little")
    (folder / "model.safetensors").write_bytes(raw)
    return f"header length {length}"


def change_size(folder: Path, random: Random) -> str:
    """Cut short or too long."""
    raw = (folder / "model.safetensors").read_bytes()
    size = random.choice([0, 3, 8, 9, len(raw) // 2, len(raw) - 1, len(raw) + 1, len(raw) + 4096])
    (folder / "model.safetensors").write_bytes((raw + bytes(8192))[:size])
    return f"size {size} of {len(raw)}"


def change_header(folder: Path, random: Random) -> str:
    """One value or name in the header's JSON."""
    raw = (folder / "model.safetensors").read_bytes()
    length = _header_length(folder)
    header, what = _changed(json.loads(raw[8 : 8 + length]), random)
    body = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(body).to_bytes(8, "little") + body + raw[8 + length :])
    return f"header: {what}"


def change_json(folder: Path, random: Random) -> str:
    """One value or name in a JSON file, the config in half of the cases."""
    name = random.choice([*JSON_FILES, *["config.json"] * 4])
    value, what = _changed(json.loads((folder / name).read_text()), random)
    (folder / name).write_text(json.dumps(value))
    return f"{name}: {what}"


def damage_json(folder: Path, random: Random) -> str:
    """A JSON file that is none, is no object, or repeats a key."""
    name = random.choice(JSON_FILES)
    text = (folder / name).read_text()
    wrong = ["", "[]", "null", "3", '"a"', "{", text[:-3], "[" * 200_000, "\ufeff" + text, text + text,
             '{"a":1,"a":2}', '{"a":' * 100_000, text.replace("{", '{"x":"\\ud800",', 1), "{}",
             text.replace(":", ": 1" + "0" * 5000 + ", \"y\":", 1)]  # fmt: skip
    chosen = random.randrange(len(wrong))
    (folder / name).write_text(wrong[chosen])
    return f"{name}: damage {chosen}"


def change_files(folder: Path, random: Random) -> str:
    """Files that are missing, or are something else; an index that leads astray."""
    index = folder / "model.safetensors.index.json"
    shard = random.choice(HOSTILE)
    match random.randrange(6):
        case 0:
            (folder / random.choice(["model.safetensors", *JSON_FILES])).unlink()
        case 1:
            name = random.choice(["model.safetensors", *JSON_FILES])
            (folder / name).unlink()
            (folder / name).mkdir()
        case 2:
            name = random.choice(["model.safetensors", *JSON_FILES])
            (folder / name).unlink()
            (folder / name).symlink_to(random.choice([name, "nowhere", "/dev/null", "config.json"]))
        case 3:
            index.write_text(json.dumps({"weight_map": {"a": shard}}))
        case 4:
            index.write_text(json.dumps({"weight_map": shard}))
        case _:
            shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
            index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "other.safetensors"}}))
    return f"files: {shard!r:.60}"


def _flip(path: Path, random: Random, first: int, last: int) -> str:
    raw = bytearray(path.read_bytes())
    places = [random.randrange(first, last) for _ in range(random.choice([1, 1, 2, 8]))]
    for place in places:
        raw[place] = random.choice([random.randrange(256), 0xFF, 0x7F, raw[place] ^ 1])
    path.write_bytes(raw)
    return f"bytes {places}"


def _header_length(folder: Path) -> int:
    with (folder / "model.safetensors").open("rb") as file:
        return int.from_bytes(file.read(8), "little")


def _changed(value: Any, random: Random) -> tuple[Any, str]:
    """The JSON value with one thing in it changed, and what."""
    containers: list[Any] = []
    _collect(value, containers)
    # Half of the changes near the top, where the meaning is.
    chosen = random.choice(containers if random.random() < 0.5 else containers[:4])
    if isinstance(chosen, list):
        at = random.randrange(len(chosen)) if chosen else 0
        hostile = random.choice(HOSTILE)
        chosen[at : at + random.randrange(3)] = [hostile]
        return value, f"[{at}] = {hostile!r:.60}"
    key = random.choice(list(chosen)) if chosen else "new"
    match random.randrange(6):
        case 0:
            chosen.pop(key, None)
            return value, f"no {key!r}"
        case 1:
            name = str(random.choice(HOSTILE))
            chosen[name] = chosen.pop(key, None)
            return value, f"{key!r} is called {name!r:.60}"
        case 2:
            other = random.choice(list(chosen)) if chosen else key
            chosen[key], chosen[other] = chosen.get(other), chosen.get(key)
            return value, f"{key!r} and {other!r} swapped"
        case _:
            hostile = random.choice(HOSTILE)
            chosen[key] = hostile
            return value, f"{key!r} = {hostile!r:.60}"


def _collect(value: Any, into: list[Any]) -> None:
    if isinstance(value, dict | list):
        into.append(value)
        for item in value.values() if isinstance(value, dict) else value:
            _collect(item, into)
