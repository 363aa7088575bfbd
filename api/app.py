"""The factory of the API.  Nothing happens at import and nothing is opened: the front door gives what there is."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException

from api.attempts import Attempts
from api.auth import Authenticator
from api.credentials import Tickets
from api.dependencies import Services
from api.heartbeats import Heartbeats
from api.logwriter import LogWriter
from api.metrics import Meters
from api.middleware import Envelope
from api.openapi import DESCRIPTION, Document
from api.parameters import ParameterSchemas
from api.presence import Presence
from api.problems import on_error, on_refused
from api.readiness import Readiness
from api.routers import (
    dags,
    docs,
    events,
    executors,
    health,
    keys,
    logs,
    runs,
    tasks,
    worker,
    worker_attempts,
    worker_moves,
    workers,
)
from api.routing import nowhere
from api.stream import Streams
from api.validation import on_invalid
from dag.errors import RunyardError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from api.readiness import Placer
    from api.settings import ApiSettings
    from dag.world import Clock, Entropy
    from executors.base import Door
    from metastore.store import Store

#: In the order in which a request is looked for, one route after the other: what comes most often is first.
ROUTERS: Final = (
    worker,
    worker_attempts,
    worker_moves,
    dags,
    runs,
    tasks,
    logs,
    events,
    executors,
    workers,
    keys,
    health,
    docs,
)


def create_app(
    *,
    store: Store,
    clock: Clock,
    entropy: Entropy,
    settings: ApiSettings,
    version: str = "0.1.0",
    registry: CollectorRegistry | None = None,
    active: Sequence[Placer] = (),
    door: Door | None = None,
) -> FastAPI:
    """Return the API over *store*.

    *registry* is where its measurements go and what ``/metrics`` shows.  *active* are the executors of this process;
    ``/health/ready`` looks at them.  Workers start and end attempts through *door*; without one they are told to come
    later.  Call :func:`stop_streams` before the server stops.
    """
    registry = CollectorRegistry() if registry is None else registry
    app = FastAPI(
        title="Runyard",
        version=version,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        lifespan=_serving,
        # The routes themselves, not copies: what a route declares is what is asked of its callers.
        routes=[route for module in ROUTERS for route in module.router.routes],
        exception_handlers={
            HTTPException: on_refused,
            RequestValidationError: on_invalid,
            RunyardError: on_error,
        },
    )
    app.router.default = nowhere
    app.openapi = Document(app)  # type: ignore[method-assign]  # FastAPI's own way to say it
    meters = Meters(registry)
    app.add_middleware(Envelope, settings=settings, clock=clock, entropy=entropy, meters=meters)
    authenticator = Authenticator(store, clock)
    app.state.authenticator = authenticator
    app.state.tickets = Tickets(store)
    app.state.readiness = Readiness(store, clock, settings.log_dir, active)
    app.state.services = Services(
        store=store,
        clock=clock,
        entropy=entropy,
        settings=settings,
        registry=registry,
        authenticator=authenticator,
        streams=Streams(settings, clock, authenticator),
        parameters=ParameterSchemas(store),
        meters=meters,
        door=door,
        heartbeats=Heartbeats(store, clock, settings, registry),
        attempts=Attempts(store, clock),
        logs=LogWriter(settings.log_dir),
    )
    app.state.presence = Presence(store, settings.worker_lease)
    return app


@asynccontextmanager
async def _serving(app: FastAPI) -> AsyncIterator[None]:
    """Say that an API serves for as long as this one does."""
    services: Services = app.state.services
    await app.state.presence.start()
    try:
        yield
    finally:
        await app.state.presence.stop()
        services.logs.close()


def stop_streams(app: FastAPI) -> None:
    """End every stream, followed log and wait, heartbeats' too, and say no more that there is an API.

    A server that stops waits for its answers to end; a new heartbeat does not reach it any more.
    """
    services: Services = app.state.services
    services.streams.stop()
    services.heartbeats.stop()
    app.state.presence.cease()
