"""The HTTP service: route a request to an expert, generate its answer, send the response.

The application is put together from what it is given; it opens no file and starts no model. The same
app runs in a test, in one process (`router.engine.worker.LocalEngine`) and behind Ray Serve
(`router.serving.lifecycle`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache, partial
from logging import Logger
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from pydantic import BaseModel

from router.api import web_ui
from router.api.circuit_breaker import CircuitBreaker
from router.api.disconnect import while_connected
from router.api.embeddings import EmbeddingRequest, Encoder, embed
from router.api.failover import Failover, StartedAnswer, Streams, until
from router.api.json_body import JsonRoute
from router.api.middleware import error_responses
from router.api.middleware.access_log import AccessLogMiddleware, add_log_fields
from router.api.middleware.api_keys import ApiKeys
from router.api.middleware.auth import AuthMiddleware, RateLimiter
from router.api.middleware.body_limit import BodyLimitMiddleware
from router.api.middleware.tracing import TracingMiddleware
from router.api.openapi import ERROR_RESPONSES, STREAM_RESPONSE, with_model_names
from router.api.prometheus import CONTENT_TYPE, Metrics, MetricsMiddleware
from router.api.readiness import Readiness
from router.api.responses import CHAT, COMPLETION, TOOL_CALL, ChoiceFormat, ResponseState, json_body, sse
from router.api.sampling_params import reject_unsupported, sampling_params
from router.api.schema import (
    AUTO,
    ChatRequest,
    CompletionRequest,
    Message,
    ModelCard,
    ModelList,
    RouteRequest,
)
from router.api.tools import required_tools, system_message
from router.engine.worker import Engine
from router.errors import BadRequest, UnknownModel
from router.experts.catalogue import Catalogue, Expert
from router.experts.chat_template import Prompt, render
from router.routing import route
from router.routing.cascade import RoutePredictor
from router.routing.conversation import route_conversation
from router.routing.decide import Decision
from router.routing.model import Thresholds
from router.settings import Limits

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


@dataclass(frozen=True, kw_only=True)
class Service:
    """The endpoints and their dependencies."""

    predictor: RoutePredictor
    thresholds: Thresholds
    catalogue: Catalogue
    engine: Engine
    limits: Limits
    misfit: route.Misfit = route.no_misfit
    api_keys: ApiKeys | None = None
    requests_per_minute: int | None = None
    metrics: Metrics = field(default_factory=Metrics)
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    encoder: Encoder | None = None
    access_log: Logger | None = None
    log_prompts: bool = False
    tracer_provider: "TracerProvider | None" = None

    async def chat_completions(self, request: Request, body: ChatRequest) -> Response:
        """Create a chat completion, streamed if `stream`; `model: auto` routes to an expert."""
        user_turns = _user_turns(body.messages) if body.model == AUTO else []
        last = next((message.text for message in reversed(body.messages) if message.role == "user"), "")
        add_log_fields(request.scope, prompt=last)
        decision = await self._decide(body.model, *user_turns)
        tools = required_tools(body)
        messages = [{"role": _template_role(message), "content": message.text} for message in body.messages]

        @cache  # a template is rendered once a request, however often its expert is asked
        def prompt(expert: str) -> Prompt:
            template = self.catalogue.experts[expert].chat
            return render([system_message(tools), *messages] if tools else messages, template)

        return await self._generate(request, body, decision, prompt, TOOL_CALL if tools else CHAT)

    async def completions(self, request: Request, body: CompletionRequest) -> Response:
        """Create a completion of a prompt, streamed if `stream`."""
        add_log_fields(request.scope, prompt=body.text)
        decision = await self._decide(body.model, body.text)
        prompt = Prompt(body.text)
        return await self._generate(request, body, decision, lambda expert: prompt, COMPLETION)

    async def embeddings(self, body: EmbeddingRequest) -> Response:
        """Create embedding vectors of texts with the router's encoder."""
        return JSONResponse(await run_in_threadpool(embed, body, self.encoder))

    async def route(self, body: RouteRequest) -> Response:
        """Explain the routing decision for a query, without generating an answer."""
        turns = [body.query or ""] if body.messages is None else _user_turns(body.messages)
        decision = await self._decide(AUTO, *turns)
        return JSONResponse(asdict(decision), headers=_decision_headers(decision))

    async def list_models(self) -> ModelList:
        """List the models: `auto` and the experts."""
        created = min(_unix_time(expert) for expert in self.catalogue.experts.values())
        experts = map(_model_card, self.catalogue.experts.values())
        return ModelList(data=[ModelCard(id=AUTO, created=created), *experts])

    async def get_model(self, name: str) -> ModelCard:
        """Describe one model."""
        if name == AUTO:
            return (await self.list_models()).data[0]
        return _model_card(self._expert(name))

    async def health(self) -> dict[str, str]:
        """Liveness of the process."""
        return {"status": "ok"}

    async def list_experts(self) -> dict[str, Any]:
        """List the experts with their measured quality and running requests."""
        return web_ui.expert_table(self.catalogue, self.metrics.running())

    async def prometheus_metrics(self) -> Response:
        """Metrics in Prometheus' text format."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def _decide(self, model: str, *turns: str) -> Decision:
        """The decision for the last of a user's turns: the expert called `model`, for `auto` the router's."""
        if model != AUTO:
            decision = route.by_name(model, self._expert(model).domain)
        else:
            route_turn = partial(
                route.route,
                predictor=self.predictor,
                thresholds=self.thresholds,
                experts=self.catalogue.by_domain,
                generalist=self.catalogue.generalist,
                disabled_reason=self.catalogue.disabled_reason,
                costs=self.catalogue.costs,
                misfit=self.misfit,
            )
            decision = await run_in_threadpool(route_conversation, turns, route_turn, self.misfit)
        self.metrics.count_decision(decision)
        return decision

    def _expert(self, name: str) -> Expert:
        if name not in self.catalogue.experts:
            known = ", ".join([AUTO, *self.catalogue.experts])
            raise UnknownModel(f"there is no model {name!r}; there are: {known}")
        return self.catalogue.experts[name]

    async def _generate(
        self,
        request: Request,
        body: ChatRequest | CompletionRequest,
        decision: Decision,
        prompt: Callable[[str], Prompt],
        form: ChoiceFormat,
    ) -> Response:
        reject_unsupported(body)
        start = partial(self._start, body, prompt, self._deadline())
        fallback = self.catalogue.generalist if body.model == AUTO else None
        failover = Failover(self.breaker, self.metrics, self.limits.first_token_seconds)

        async def respond(answer: StartedAnswer) -> Response:
            expert, headers = answer.decision.expert, _decision_headers(answer.decision)
            state = ResponseState(
                format=form,
                model=expert,
                strip=prompt(expert).strip,
                prompt_tokens=answer.prompt_tokens,
            )
            add_log_fields(request.scope, response=state)
            if body.stream:
                events = sse(answer.choices, state, body.include_usage, answer.closing)
                return StreamingResponse(events, media_type="text/event-stream", headers=headers)
            async with answer.closing:
                return JSONResponse(await json_body(answer.choices, state), headers=headers)

        return await while_connected(request, failover.answer(decision, start, fallback, respond))

    def _start(
        self,
        body: ChatRequest | CompletionRequest,
        prompt: Callable[[str], Prompt],
        deadline: float | None,
        expert: str,
    ) -> Streams:
        """The events of each choice from one expert, up to the deadline and counted."""
        text = prompt(expert)
        streams = [
            self.engine.stream(expert, text.text, sampling)
            for sampling in sampling_params(body, text, self.limits)
        ]
        return [self.metrics.instrument(until(each, deadline), expert) for each in streams]

    def _deadline(self) -> float | None:
        """When an answer that starts now must have ended, by the event loop's clock."""
        seconds = self.limits.deadline_seconds
        return None if seconds is None else asyncio.get_running_loop().time() + seconds


def build_app(service: Service) -> FastAPI:
    """The application: routes, authentication, rate and body limits, and errors in the OpenAI format."""
    app = FastAPI(
        title="mom",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
        responses=ERROR_RESPONSES,
    )
    app.router.route_class = JsonRoute
    _add_routes(app, service)
    app.add_middleware(BodyLimitMiddleware, limit=service.limits.body_bytes)
    limiter = RateLimiter(service.requests_per_minute) if service.requests_per_minute else None
    app.add_middleware(AuthMiddleware, keys=service.api_keys, rate_limiter=limiter)
    app.add_middleware(MetricsMiddleware, metrics=service.metrics)
    if service.tracer_provider is not None:
        app.add_middleware(TracingMiddleware, provider=service.tracer_provider)
    if service.access_log is not None:  # the outermost, since it is added last
        app.add_middleware(AccessLogMiddleware, log=service.access_log, prompts=service.log_prompts)
    error_responses.install(app)
    app.openapi = with_model_names(app, _model_names(service))  # type: ignore[method-assign]
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    stream: dict[str, Any] = {"response_model": None, "responses": STREAM_RESPONSE}
    app.post("/v1/chat/completions", **stream)(service.chat_completions)
    app.post("/v1/completions", **stream)(service.completions)
    app.post("/v1/embeddings", response_model=None)(service.embeddings)
    app.get("/v1/models", response_model_exclude_none=True)(service.list_models)
    app.get("/v1/models/{name:path}", response_model_exclude_none=True)(service.get_model)
    app.post("/route", response_model=None)(service.route)
    app.get("/", response_class=HTMLResponse)(web_ui.page)
    app.get("/experts")(service.list_experts)
    app.get("/health")(service.health)
    app.get("/ready", response_model=None)(Readiness(service.engine, service.catalogue.experts).ready)
    app.get("/metrics", response_class=PlainTextResponse)(service.prometheus_metrics)


def _model_names(service: Service) -> dict[type[BaseModel], list[str]]:
    """The values that `model` may have, by request class."""
    experts = [AUTO, *service.catalogue.experts]
    encoders = [AUTO, service.encoder.name] if service.encoder else [AUTO]
    return {ChatRequest: experts, CompletionRequest: experts, EmbeddingRequest: encoders}


def _user_turns(messages: list[Message]) -> list[str]:
    """The texts of the user's messages, the oldest first."""
    turns = [message.text for message in messages if message.role == "user"]
    if not turns:
        raise BadRequest("nothing to route on: there is no message of the role 'user'", "messages")
    return turns


def _template_role(message: Message) -> str:
    return "system" if message.role == "developer" else message.role


def _decision_headers(decision: Decision) -> dict[str, str]:
    return {
        "x-mom-expert": decision.expert,
        "x-mom-decision": decision.reason.encode("ascii", "replace").decode(),
        "x-mom-confidence": f"{decision.confidence:.4f}",
        "x-mom-fallback": str(decision.fallback).lower(),
    }


def _model_card(expert: Expert) -> ModelCard:
    return ModelCard(
        id=expert.name,
        created=_unix_time(expert),
        domain=expert.domain,
        type=expert.type,
        bytes=expert.bytes,
    )


def _unix_time(expert: Expert) -> int:
    return int(datetime.fromisoformat(expert.created).timestamp())
