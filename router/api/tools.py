"""Functions that a caller offers (`tools`): where one must be called, a grammar holds the answer to a call.

The experts are small models that were not taught to choose between words and calls, so `tool_choice: auto`
is refused rather than left to luck.
"""

import json
import uuid
from typing import Any

from router.api.json_grammar import of_schema
from router.api.schema import ChatRequest, Tool
from router.errors import BadRequest
from router.experts.chat_template import Message
from slices.runtime import Piece

CALLED = "tool_calls"


def to_call(ask: ChatRequest) -> list[Tool]:
    """The functions of which one must be called; none where the answer is to be words.

    Raises:
        BadRequest: the choice is left to the model, or names a function that is not offered.
    """
    if not ask.tools or ask.tool_choice == "none":
        return []
    if ask.tool_choice in (None, "auto"):
        why = "the experts are small models that were not taught when to call one"
        raise BadRequest(f"tools are supported only where one must be called: {why}. Say `tool_choice: "
                         "required` or name a function, or leave `tools` out", "tools")  # fmt: skip
    if isinstance(ask.tool_choice, str):
        return ask.tools
    name = ask.tool_choice.function.name
    named = [tool for tool in ask.tools if tool.function.name == name]
    if not named:
        raise BadRequest(f"tool_choice names {name!r}, which is not among the tools", "tool_choice")
    return named


def grammar(tools: list[Tool]) -> str:
    """A grammar of one call of one of these.

    Raises:
        BadRequest: the parameters of one cannot be turned into a grammar.
    """
    return of_schema({"anyOf": [_call(tool) for tool in tools]}, "tools")


def told(tools: list[Tool]) -> Message:
    """What a model is told of them."""
    lines = [json.dumps(tool.function.model_dump(exclude_none=True)) for tool in tools]
    form = '{"name": "...", "arguments": {...}}'
    return {"role": "system", "content": "\n".join(["Functions:", *lines, f"Answer with a call: {form}"])}


def calls(piece: Piece) -> list[dict[str, Any]] | None:
    """A whole answer's call in the form of the API; None where it was cut short."""
    try:
        made = json.loads(piece.text)
    except ValueError:
        return None
    called = {"name": made["name"], "arguments": json.dumps(made["arguments"])}
    return [{"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": called}]


def _call(tool: Tool) -> dict[str, Any]:
    arguments = tool.function.parameters or {"type": "object", "properties": {}}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.function.name}, "arguments": arguments},
        "required": ["name", "arguments"],
    }
