"""The OpenAI wire format: request and response models.

Unknown request fields are ignored, as clients send many; known ones are checked strictly. Nothing here
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

BoundedText: TypeAlias = Annotated[str, Field(max_length=MAX_CHARS)]
ModelName: TypeAlias = Annotated[str, Field(min_length=1, max_length=256)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False, populate_by_name=True)


class TextPart(_Request):
    """A part of a message. Only text can be answered."""

    type: Literal["text"]
    text: BoundedText


class Message(_Request):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: BoundedText | Annotated[list[TextPart], Field(max_length=MAX_MESSAGES)] | None = None

    @property
    def text(self) -> str:
        """The content as one text; parts are joined by a line break."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(_Request):
    """Options of a streamed response."""

    include_usage: bool | None = None


class Function(_Request):
    """A function of a tool; `parameters` is the JSON Schema of its arguments."""

    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(_Request):
    """A tool that the model may call."""

    type: Literal["function"]
    function: Function


class JsonSchema(_Request):
    """A JSON Schema that an answer must match, with its name."""

    name: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class ResponseFormat(_Request):
    """The format of an answer: text, any JSON object, or JSON that matches a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and (self.json_schema is None or self.json_schema.schema_ is None):
            raise ValueError("json_schema needs a `schema`")
        return self


class _Generation(_Request):
    """The parameters that chat and completion requests share."""

    model: ModelName  # an expert's, or `auto`
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
    def _check_stop(cls, stop: str | list[str] | None) -> str | list[str] | None:
        stops = [stop] if isinstance(stop, str) else stop or []
        if any(not 0 < len(text) <= 1000 for text in stops):
            raise ValueError("a stop string has 1 to 1000 characters")
        return stop

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
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
    def logprobs_count(self) -> int | None:
        """How many top log-probabilities to return per token; None for no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @model_validator(mode="after")
    def _check_top_logprobs(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs `logprobs: true`")
        return self

    @model_validator(mode="after")
    def _check_total_length(self) -> "ChatRequest":
        if (size := sum(len(message.text) for message in self.messages)) > MAX_CHARS:
            raise ValueError(f"the messages have {size} characters, more than {MAX_CHARS}")
        return self


class CompletionRequest(_Generation):
    """The body of `POST /v1/completions`. Token ids and several prompts are not supported."""

    prompt: BoundedText | Annotated[list[BoundedText], Field(min_length=1, max_length=1)]
    logprobs: int | None = Field(default=None, ge=0, le=MAX_LOGPROBS)
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    @property
    def logprobs_count(self) -> int | None:
        """How many top log-probabilities to return per token; None for no log-probabilities."""
        return self.logprobs

    @property
    def text(self) -> str:
        """The one prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class RouteRequest(_Request):
    """The body of `POST /route`: a query, or messages of which the last user's is the query."""

    query: BoundedText | None = Field(
        default=None, validation_alias=AliasChoices("query", "text", "input", "prompt")
    )
    messages: list[Message] | None = Field(default=None, min_length=1, max_length=MAX_MESSAGES)

    @model_validator(mode="after")
    def _check_one_input(self) -> "RouteRequest":
        if (self.query is None) == (self.messages is None):
            raise ValueError("give either `query` or `messages`")
        return self


class Usage(BaseModel):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ModelCard(BaseModel):
    """One entry of `GET /v1/models`; `domain`, `type` and `bytes` are ours."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "mom"
    domain: str | None = None
    type: str | None = None
    bytes: int | None = None


class ModelList(BaseModel):
    """The response of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class CompletionResponse(BaseModel):
    """A completion or a chunk of one. What a choice looks like differs, see `router.api.responses`."""

    id: str
    object: str
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: Usage | None = None
