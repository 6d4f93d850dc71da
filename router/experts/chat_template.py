"""Chat templates: from chat messages to the prompt that a model continues.

A slice that brings a chat template gets its own, rendered in jinja2's sandbox; a base model gets a
plain question-and-answer form. Nothing here counts or cuts tokens.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from router.errors import BadExperts, BadRequest

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE_FILE = "chat_template.jinja"
TOKENIZER_FILE = "tokenizer_config.json"
PLAIN_STOPS = ("\nQuestion:", "\nAnswer:")


@dataclass(frozen=True)
class ChatTemplate:
    """A model's chat template (jinja2) and special tokens; `template` None: the form for base models."""

    template: str | None = None
    bos: str = ""
    eos: str = ""


@dataclass(frozen=True)
class Prompt:
    """The text to continue, its stop strings, and whether to strip the answer's leading space."""

    text: str
    stop: tuple[str, ...] = ()
    strip: bool = False


Message = Mapping[str, str]  # role and content


def read_chat_template(folder: Path) -> ChatTemplate:
    """The chat template of the slice in `folder`; the plain one where it brings none.

    Raises:
        BadExperts: a file is there and cannot be read as what it should be.
    """
    config = _tokenizer_config(folder / TOKENIZER_FILE)
    template = config.get("chat_template")
    if isinstance(template, list):  # several named ones
        template = next((item.get("template") for item in template if item.get("name") == "default"), None)
    if (folder / TEMPLATE_FILE).is_file():
        template = (folder / TEMPLATE_FILE).read_text(encoding="utf-8")
    if template is not None and not isinstance(template, str):
        raise BadExperts(
            f"{folder / TOKENIZER_FILE}: chat_template is {type(template).__name__}, expected text"
        )
    return ChatTemplate(template or None, _token(config, "bos_token"), _token(config, "eos_token"))


def render(messages: Sequence[Message], chat: ChatTemplate) -> Prompt:
    """The prompt for the assistant's answer to `messages`. The runtime adds the bos itself.

    Raises:
        BadRequest: the model's template refuses these messages.
        BadExperts: the template is broken.
    """
    if chat.template is None:
        return Prompt(_question_answer(messages), PLAIN_STOPS, strip=True)
    return Prompt(_render_template(messages, chat).removeprefix(chat.bos))


def _question_answer(messages: Sequence[Message]) -> str:
    forms = {"user": "Question: {}\n", "assistant": "Answer: {}\n\n"}
    turns = [forms.get(message["role"], "{}\n\n").format(message["content"].strip()) for message in messages]
    return "".join([*turns, "Answer:"])


def _render_template(messages: Sequence[Message], chat: ChatTemplate) -> str:
    from jinja2 import TemplateError

    try:
        return _compiled(chat.template or "").render(
            messages=[dict(message) for message in messages],
            add_generation_prompt=True,
            bos_token=chat.bos,
            eos_token=chat.eos,
        )
    except TemplateError as error:
        raise BadExperts(f"the model's chat template is broken: {error}") from error


@lru_cache(maxsize=64)
def _compiled(template: str) -> "Template":
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise_bad_request, strftime_now=_now)
    return environment.from_string(template)


def _raise_bad_request(message: object) -> NoReturn:
    raise BadRequest(f"the model's chat template refuses these messages: {message}", "messages")


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _now(time_format: str) -> str:
    return datetime.now().strftime(time_format)


def _tokenizer_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadExperts(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise BadExperts(f"{path} holds {type(config).__name__}, expected a JSON object")
    return config


def _token(config: Mapping[str, Any], key: str) -> str:
    value = config.get(key) or ""
    content = value.get("content", "") if isinstance(value, dict) else value
    return content if isinstance(content, str) else ""
