"""The OpenAI wire format: what a request may say and what an answer says.

Unknown fields are ignored, as clients send many; known ones are checked strictly. Nothing here
chooses an expert or knows of HTTP.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

MAX_MESSAGES = 512
MAX_CHARS = 400_000  # of all messages together
MAX_STOPS = 16
MAX_CHOICES = 8
MAX_LOGPROBS = 20
AUTO = "auto"

Text: TypeAlias = Annotated[str, Field(max_length=MAX_CHARS)]
Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False, populate_by_name=True)


class TextPart(_Request):
    """A part of a message. Only text can be answered."""

    type: Literal["text"]
    text: Text


class Message(_Request):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[TextPart], Field(max_length=MAX_MESSAGES)] | None = None

    @property
    def text(self) -> str:
        """The content as one text; parts are joined by a line break."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_Request):
    """What a stream carries besides the text."""

    include_usage: bool | None = None


class Function(_Request):
    """A function that a caller offers; `parameters` is a JSON Schema of its arguments."""

    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(_Request):
    """What a caller offers to be called."""

    type: Literal["function"]
    function: Function


class JsonSchema(_Request):
    """A schema that an answer must match."""

    name: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(_Request):
    """The form an answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _with_its_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.schema_ is None):
            raise ValueError("json_schema wants a `schema`")
        return self


class _Generation(_Request):
    """What chat and completion requests share."""

    model: Name  # an expert's, or `auto`
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @field_validator("stop")
    @classmethod
    def _usable_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        stops = [stop] if isinstance(stop, str) else stop or []
        if any(not 0 < len(text) <= 1000 for text in stops):
            raise ValueError("a stop string has 1 to 1000 characters")
        return stop

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class ChatRequest(_Generation):
    """The body of `POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = Field(default=None, max_length=64)
    tool_choice: Literal["none", "auto", "required"] | Tool | None = None
    functions: list[Any] | None = None
    audio: Any = None

    @property
    def wants_logprobs(self) -> int | None:
        """How many of the likeliest tokens to tell at each place; None for no probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @model_validator(mode="after")
    def _top_of_something(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs wants `logprobs: true`")
        return self

    @model_validator(mode="after")
    def _not_too_long(self) -> "ChatRequest":
        if (size := sum(len(message.text) for message in self.messages)) > MAX_CHARS:
            raise ValueError(f"the messages have {size} characters, more than {MAX_CHARS}")
        return self


class CompletionRequest(_Generation):
    """The body of `POST /v1/completions`. Token ids and several prompts are not taken."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=1)]
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    @property
    def wants_logprobs(self) -> int | None:
        """How many of the likeliest tokens to tell at each place; None for no probabilities."""
        return self.logprobs

    @property
    def text(self) -> str:
        """The one prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class RouteRequest(_Request):
    """The body of `POST /route`: a query, or messages of which the last user's is the query."""

    query: Text | None = Field(
        default=None, validation_alias=AliasChoices("query", "text", "input", "prompt")
    )
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=MAX_MESSAGES)

    @model_validator(mode="after")
    def _one_of_them(self) -> "RouteRequest":
        if (self.query is None) == (self.messages is None):
            raise ValueError("give either `query` or `messages`")
        return self


class Usage(BaseModel):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Model(BaseModel):
    """One entry of `GET /v1/models`; `domain`, `type` and `bytes` are ours."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "mom"
    domain: str | None = None
    type: str | None = None
    bytes: int | None = None


class Models(BaseModel):
    """The answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[Model]


class Answer(BaseModel):
    """A completion, whole or a chunk. What a choice looks like differs, see `router.api.responses`."""

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage | None = None
