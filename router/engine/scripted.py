"""A model that needs no weights: each slice answers with its own name. For trying the service, and for tests.

Set `runtime: router.engine.scripted:open_batcher` in serve.yaml.
"""

import json
from pathlib import Path

from slices.runtime import Batcher, Capacity
from slices.runtimes.scripted import ScriptedRuntime
from slices.runtimes.single_sequence import SingleSequenceBatcher

REPLIES = "replies.json"


def open_batcher(folder: Path, file: Path | None, capacity: Capacity) -> Batcher:
    """Answers from `folder/replies.json` ({part of a prompt: answer}) where there is one."""
    path = folder / REPLIES
    replies = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return SingleSequenceBatcher(ScriptedRuntime(replies, f"I am {folder.name}."))
