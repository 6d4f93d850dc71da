"""Messages to prompts: the model's own template, and the plain form."""

import json
from pathlib import Path

import pytest

from router.errors import BadExperts, BadRequest
from router.experts.chat_template import ChatTemplate, Prompt, read_chat_template, render
from tests.router.router_world import TEMPLATE

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": " Why? "},
]


def test_plain_form_is_questions_and_answers() -> None:
    prompt = render(TALK, ChatTemplate())
    assert prompt.text == "Be brief.\n\nQuestion: Hi\nAnswer: Hello.\n\nQuestion: Why?\nAnswer:"
    assert "\nQuestion:" in prompt.stop and prompt.strip


def test_braces_in_a_message_are_text() -> None:
    assert render([{"role": "user", "content": "{0} {x}"}], ChatTemplate()).text.startswith(
        "Question: {0} {x}"
    )
    sly = "{{ 7 * 7 }}"
    assert sly in render([{"role": "user", "content": sly}], ChatTemplate(TEMPLATE)).text


def test_own_template_without_its_bos() -> None:
    prompt = render([{"role": "user", "content": "Hi"}], ChatTemplate(TEMPLATE, bos="<bos>"))
    assert prompt == Prompt("<start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n")


def test_a_template_may_refuse() -> None:
    refusing = ChatTemplate("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(BadRequest, match="roles must alternate"):
        render(TALK, refusing)


@pytest.mark.parametrize(
    "template", ["{% if %}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ a.b.c }}"]
)
def test_a_broken_or_hostile_template_is_the_slices_fault(template: str) -> None:
    with pytest.raises(BadExperts, match="template is broken"):
        render(TALK, ChatTemplate(template))


def test_where_the_format_is_read_from(tmp_path: Path) -> None:
    assert read_chat_template(tmp_path) == ChatTemplate()
    config = {"bos_token": {"content": "<bos>"}, "eos_token": "<eos>", "chat_template": "inner"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert read_chat_template(tmp_path) == ChatTemplate("inner", "<bos>", "<eos>")
    (tmp_path / "chat_template.jinja").write_text("outer")
    assert read_chat_template(tmp_path).template == "outer"


def test_named_templates(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert read_chat_template(tmp_path).template == "d"


@pytest.mark.parametrize("text", ["[", "[]", '{"chat_template": 3}'])
def test_an_unreadable_tokenizer_config_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(BadExperts, match=r"tokenizer_config\.json"):
        read_chat_template(tmp_path)
