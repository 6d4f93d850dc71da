"""The page at `/`, and what it tells of the experts. One static file; only its own script and style run."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse, Response

from router.experts.catalogue import Catalogue, Expert

_PAGE = Path(__file__).with_name("web_ui.html")


def front() -> Response:
    """The page, with a policy that names its script and style by their hashes."""
    text, policy = _page()
    return HTMLResponse(text, headers={"content-security-policy": policy})


def experts(catalogue: Catalogue, running: dict[str, int]) -> dict[str, Any]:
    """The experts as the page shows them.

    Args:
        running: how many answers each is at.
    """
    return {
        "generalist": catalogue.generalist,
        "experts": [
            {
                "name": expert.name,
                "domain": expert.domain,
                "type": expert.type,
                "bytes": expert.bytes,
                "quality": _quality(expert),
                "barred": catalogue.barred.get(expert.domain),
                "running": running.get(expert.name, 0),
            }
            for expert in catalogue.experts.values()
        ],
    }


def _quality(expert: Expert) -> list[dict[str, Any]]:
    """Bits per byte on every text that `mom eval` measured it on, and relative to the parent's there."""
    found = []
    for key, value in expert.worth.bits.items():
        parent = expert.worth.parent.get(key)
        against = None if not parent else value / parent - 1
        found.append({"domain": key[0], "value": value, "against_parent": against})
    return found


@cache
def _page() -> tuple[str, str]:
    text = _PAGE.read_text(encoding="utf-8")
    parts = {tag: re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("script", "style")}
    script, style = (_hash(found[1]) for found in parts.values() if found)
    return text, (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
