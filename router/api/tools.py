"""Tool calls (`tools`): where the request requires one, a grammar constrains the answer to a call.

The experts are small models that were not trained to choose between text and calls, so `tool_choice: auto`
is refused rather than left to luck.
"""

import json
import uuid
from typing import Any

from router.api.json_grammar import schema_grammar
from router.api.schema import ChatRequest, Tool
from router.errors import BadRequest
from router.experts.chat_template import Message
from slices.runtime import Piece

FINISH_REASON = "tool_calls"


def required_tools(request: ChatRequest) -> list[Tool]:
    """The tools of which one must be called; none where the answer is text.

    Raises:
        BadRequest: the choice is left to the model, or names a function that is not offered.
    """
    if not request.tools or request.tool_choice == "none":
        return []
    if request.tool_choice in (None, "auto"):
        reason = "the experts are small models that were not trained to decide when to call one"
        raise BadRequest(
            f"tools are supported only where one must be called: {reason}. Set `tool_choice` to `required` "
            "or to a function, or leave `tools` out", "tools",
        )  # fmt: skip
    if isinstance(request.tool_choice, str):
        return request.tools
    name = request.tool_choice.function.name
    named = [tool for tool in request.tools if tool.function.name == name]
    if not named:
        raise BadRequest(f"tool_choice names {name!r}, which is not among the tools", "tool_choice")
    return named


def tools_grammar(tools: list[Tool]) -> str:
    """A GBNF grammar of one call of one of these tools.

    Raises:
        BadRequest: the parameters of one cannot be turned into a grammar.
    """
    return schema_grammar({"anyOf": [_call_schema(tool) for tool in tools]}, "tools")


def system_message(tools: list[Tool]) -> Message:
    """The system message that describes the tools to the model."""
    lines = [json.dumps(tool.function.model_dump(exclude_none=True)) for tool in tools]
    form = '{"name": "...", "arguments": {...}}'
    return {"role": "system", "content": "\n".join(["Functions:", *lines, f"Answer with a call: {form}"])}


def parse_calls(piece: Piece) -> list[dict[str, Any]] | None:
    """The `tool_calls` of a whole answer; None where it was cut short."""
    try:
        call = json.loads(piece.text)
    except ValueError:
        return None
    function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
    return [{"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}]


def _call_schema(tool: Tool) -> dict[str, Any]:
    arguments = tool.function.parameters or {"type": "object", "properties": {}}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.function.name}, "arguments": arguments},
        "required": ["name", "arguments"],
    }
