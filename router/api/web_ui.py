"""The web page at `/`, and its data on the experts. One static file; only its own script and style run."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse

from router.experts.catalogue import Catalogue, Expert

_PAGE = Path(__file__).with_name("web_ui.html")


def page() -> HTMLResponse:
    """The web page, with a content security policy that names its script and style by their hashes."""
    html, policy = _page_and_policy()
    return HTMLResponse(html, headers={"content-security-policy": policy})


def expert_table(catalogue: Catalogue, running: dict[str, int]) -> dict[str, Any]:
    """The experts as the page shows them.

    Args:
        running: the number of running requests by expert.
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
                "disabled_reason": _disabled_reason(expert, catalogue),
                "running": running.get(expert.name, 0),
            }
            for expert in catalogue.experts.values()
        ],
    }


def _disabled_reason(expert: Expert, catalogue: Catalogue) -> str | None:
    """Why the generalist answers in the expert's domain, or None."""
    if reason := catalogue.disabled_reason.get(expert.domain):
        return reason
    cost = catalogue.costs.at(expert.name, expert.domain)
    if cost is None or cost < catalogue.costs.max_cost:
        return None
    return f"its cost there is {cost:+.1%}, relative to the generalist"


def _quality(expert: Expert) -> list[dict[str, Any]]:
    """Bits per byte on each text that `mom eval` measured it on, and relative to the parent."""
    rows = []
    for text, value in expert.measurements.bits_per_byte.items():
        parent = expert.measurements.parent_bits_per_byte.get(text)
        relative = None if not parent else value / parent - 1
        rows.append({"domain": text[0], "value": value, "relative_to_parent": relative})
    return rows


@cache
def _page_and_policy() -> tuple[str, str]:
    html = _PAGE.read_text(encoding="utf-8")
    elements = {tag: re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL) for tag in ("script", "style")}
    script, style = (_source_hash(element[1]) for element in elements.values() if element)
    return html, (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _source_hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
