"""A runtime that needs no model: each slice answers with its own name. To try the service, and for tests.

Set `runtime: router.scripted:open_runtime` in serve.yaml.
"""

import json
from pathlib import Path

from slices.runtime import Runtime, ScriptedRuntime

REPLIES = "replies.json"


def open_runtime(folder: Path, file: Path | None) -> Runtime:
    """Answers from `folder/replies.json` ({part of a prompt: answer}) where there is one."""
    path = folder / REPLIES
    replies = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return ScriptedRuntime(replies, f"I am {folder.name}.")
