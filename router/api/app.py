"""The HTTP service: a question comes in, an expert is chosen, its answer goes out.

The application is put together from what it is given; it opens no file and starts no model. The same
app runs in a test, in one process (`router.engine.worker.LocalEngine`) and behind Ray Serve
(`router.serving.lifecycle`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from logging import Logger
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel

from router.api.circuit_breaker import Breaker
from router.api.embeddings import EmbeddingRequest, Encoder, embeddings
from router.api.failover import Failover, Opened, Streams, until
from router.api.middleware import error_responses
from router.api.middleware.access_log import AccessLog, note
from router.api.middleware.api_keys import Keys
from router.api.middleware.auth import Guard, Pace
from router.api.middleware.body_limit import BodyLimit
from router.api.middleware.tracing import Traced
from router.api.openapi import describe
from router.api.prometheus import TYPE, Counting, Metrics
from router.api.readiness import Readiness
from router.api.readiness import told as told_of_readiness
from router.api.request_body import parsed, while_connected
from router.api.responses import CALL, CHAT, TEXT, Saying, Shape, sse, whole
from router.api.sampling_params import refuse, samplings
from router.api.schema import AUTO, ChatRequest, CompletionRequest, Message, Model, Models, RouteRequest
from router.api.tools import to_call
from router.api.tools import told as told_of
from router.api.web_ui import experts, front
from router.engine.worker import Engine
from router.errors import BadRequest, UnknownModel
from router.experts.catalogue import Catalogue, Expert
from router.experts.chat_template import Prompt, render
from router.routing import route
from router.routing.cascade import Reader
from router.routing.conversation import converse
from router.routing.decide import Decision
from router.routing.model import Thresholds
from router.settings import Limits

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


@dataclass(frozen=True)
class Service:
    """What the endpoints need, and the endpoints."""

    reader: Reader
    thresholds: Thresholds
    catalogue: Catalogue
    engine: Engine
    limits: Limits
    keys: Keys | None = None
    per_minute: int | None = None
    metrics: Metrics = field(default_factory=Metrics)
    breaker: Breaker = field(default_factory=Breaker)
    encoder: Encoder | None = None
    log: Logger | None = None
    log_prompts: bool = False
    traces: "TracerProvider | None" = None

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        ask = await parsed(ChatRequest, request)
        turns = _asked(ask.messages) if ask.model == AUTO else []
        note(request.scope, prompt=next((m.text for m in reversed(ask.messages) if m.role == "user"), ""))
        decision = await self.decide(ask.model, *turns)
        tools = to_call(ask)
        said = [{"role": _role(message), "content": message.text} for message in ask.messages]
        told = [told_of(tools), *said] if tools else said

        def prompt(expert: str) -> Prompt:
            return render(told, self.catalogue.experts[expert].chat)

        return await self._answer(request, ask, decision, prompt, CALL if tools else CHAT)

    async def complete(self, request: Request) -> Response:
        """`POST /v1/completions`."""
        ask = await parsed(CompletionRequest, request)
        note(request.scope, prompt=ask.text)
        decision = await self.decide(ask.model, ask.text)
        return await self._answer(request, ask, decision, lambda expert: Prompt(ask.text), TEXT)

    async def embed(self, request: Request) -> Response:
        """`POST /v1/embeddings`."""
        ask = await parsed(EmbeddingRequest, request)
        return JSONResponse(await run_in_threadpool(embeddings, ask, self.encoder))

    async def explain(self, request: Request) -> Response:
        """`POST /route`."""
        ask = await parsed(RouteRequest, request)
        turns = [ask.query or ""] if ask.messages is None else _asked(ask.messages)
        decision = await self.decide(AUTO, *turns)
        return JSONResponse(asdict(decision), headers=_headers(decision))

    async def models(self) -> Models:
        """`GET /v1/models`."""
        created = min(_unix(expert) for expert in self.catalogue.experts.values())
        return Models(data=[Model(id=AUTO, created=created), *map(_model, self.catalogue.experts.values())])

    async def model(self, name: str) -> Model:
        """`GET /v1/models/{name}`."""
        if name == AUTO:
            return (await self.models()).data[0]
        return _model(self._expert(name))

    async def health(self) -> dict[str, str]:
        """`GET /health`: the process answers."""
        return {"status": "ok"}

    async def show(self) -> dict[str, Any]:
        """`GET /experts`: what the page shows of them."""
        return experts(self.catalogue, self.metrics.running())

    async def count(self) -> Response:
        """`GET /metrics`, for Prometheus."""
        return Response(self.metrics.text(), media_type=TYPE)

    async def decide(self, model: str, *turns: str) -> Decision:
        """Who answers a user's last turn: the expert named `model`, or for `auto` the router's choice."""
        if model != AUTO:
            decision = route.by_name(model, self._expert(model).domain)
        else:
            known = self.catalogue
            one = partial(
                route.route,
                reader=self.reader,
                limits=self.thresholds,
                experts=known.by_domain,
                generalist=known.generalist,
                barred=known.barred,
            )
            decision = await run_in_threadpool(converse, turns, one)
        self.metrics.decided(decision)
        return decision

    def _expert(self, name: str) -> Expert:
        if name not in self.catalogue.experts:
            known = ", ".join([AUTO, *self.catalogue.experts])
            raise UnknownModel(f"there is no model {name!r}; there are: {known}")
        return self.catalogue.experts[name]

    async def _answer(
        self,
        request: Request,
        ask: ChatRequest | CompletionRequest,
        decision: Decision,
        prompt: Callable[[str], Prompt],
        shape: Shape,
    ) -> Response:
        refuse(ask)
        start = partial(self._start, ask, prompt, self._deadline())
        elsewhere = self.catalogue.generalist if ask.model == AUTO else None
        failover = Failover(self.breaker, self.metrics, self.limits.first_token_seconds)

        async def finish(opened: Opened) -> Response:
            expert, headers = opened.decision.expert, _headers(opened.decision)
            saying = Saying(shape, expert, prompt(expert).strip, opened.prompt_tokens)
            note(request.scope, usage=saying)
            if ask.stream:
                pieces = sse(opened.choices, saying, ask.wants_usage, opened.closing)
                return StreamingResponse(pieces, media_type="text/event-stream", headers=headers)
            async with opened.closing:
                return JSONResponse(await whole(opened.choices, saying), headers=headers)

        return await while_connected(request, failover.answer(decision, start, elsewhere, finish))

    def _start(
        self,
        ask: ChatRequest | CompletionRequest,
        prompt: Callable[[str], Prompt],
        deadline: float | None,
        expert: str,
    ) -> Streams:
        """What an expert says to each choice."""
        text = prompt(expert)
        found = [self.engine.stream(expert, text.text, each) for each in samplings(ask, text, self.limits)]
        return [self.metrics.watched(until(each, deadline), expert) for each in found]

    def _deadline(self) -> float | None:
        """When an answer that begins now must have ended, by the event loop's clock."""
        seconds = self.limits.deadline_seconds
        return None if seconds is None else asyncio.get_running_loop().time() + seconds


def build_app(service: Service) -> FastAPI:
    """The application: its routes, who may ask, the limit on bodies, and errors in the OpenAI form."""
    app = FastAPI(title="mom", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.post("/v1/chat/completions", response_model=None)(service.chat)
    app.post("/v1/completions", response_model=None)(service.complete)
    app.post("/v1/embeddings", response_model=None)(service.embed)
    app.get("/v1/models", response_model_exclude_none=True)(service.models)
    app.get("/v1/models/{name:path}", response_model_exclude_none=True)(service.model)
    app.post("/route", response_model=None)(service.explain)
    app.get("/", response_model=None)(front)
    app.get("/experts")(service.show)
    app.get("/health")(service.health)
    app.get("/ready", response_model=None)(_readiness(service))
    app.get("/metrics", response_model=None)(service.count)
    app.add_middleware(BodyLimit, limit=service.limits.body_bytes)
    pace = Pace(service.per_minute) if service.per_minute else None
    app.add_middleware(Guard, keys=service.keys, pace=pace)
    app.add_middleware(Counting, metrics=service.metrics)
    if service.traces is not None:
        app.add_middleware(Traced, provider=service.traces)
    if service.log is not None:
        app.add_middleware(AccessLog, log=service.log, prompts=service.log_prompts)  # added last, asked first
    error_responses.install(app)
    app.openapi = describe(app, _names(service))  # type: ignore[method-assign]
    return app


def _names(service: Service) -> dict[type[BaseModel], list[str]]:
    """What may be asked as `model`, by kind of request."""
    experts = [AUTO, *service.catalogue.experts]
    encoders = [AUTO, service.encoder.name] if service.encoder else [AUTO]
    return {ChatRequest: experts, CompletionRequest: experts, EmbeddingRequest: encoders}


def _readiness(service: Service) -> Callable[[], Awaitable[Response]]:
    experts = list(service.catalogue.experts)
    readiness = Readiness(service.engine, experts)

    async def ready() -> Response:
        """`GET /ready`: 200 once a token came out of every expert, 503 with what is missing before."""
        state = await readiness.state()
        return JSONResponse(told_of_readiness(state, experts), 200 if state.ready else 503)

    return ready


def _asked(messages: list[Message]) -> list[str]:
    """What the user said, turn by turn."""
    turns = [message.text for message in messages if message.role == "user"]
    if not turns:
        raise BadRequest("nothing to route on: there is no message of the role 'user'", "messages")
    return turns


def _role(message: Message) -> str:
    return "system" if message.role == "developer" else message.role


def _headers(decision: Decision) -> dict[str, str]:
    return {
        "x-mom-expert": decision.expert,
        "x-mom-decision": decision.reason.encode("ascii", "replace").decode(),
        "x-mom-confidence": f"{decision.confidence:.4f}",
        "x-mom-fallback": str(decision.fallback).lower(),
    }


def _model(expert: Expert) -> Model:
    return Model(
        id=expert.name, created=_unix(expert), domain=expert.domain, type=expert.type, bytes=expert.bytes
    )


def _unix(expert: Expert) -> int:
    return int(datetime.fromisoformat(expert.created).timestamp())
