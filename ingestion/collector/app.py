"""The collector as an ASGI application. 202 means that the event log has the events on disk.

202  all events are kept
400  what is wrong, in JSON: `{"reason": …}`, and for an array `{"accepted": n, "refused": [{"index": …, "reason": …}]}`:
     what was not refused is kept
413  the body is larger than MAX_BODY_BYTES
503  the event log cannot be reached, or does not keep up: send it again, with the same `event_id`; it may have been kept
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ingestion.collector.appender import Appender
from ingestion.collector.directory import Directory, NotReady
from ingestion.collector.door import MAX_BODY_BYTES, Door, Opened, Sender, address_of, unpacked
from ingestion.event import Reason, Refused
from ingestion.event_log import EventLogUnavailable, open_event_log
from ingestion.settings import Settings, from_environment
from ingestion.site_time import from_datetime

ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}
"""Pages of all sites send here; nothing is ever read back, and no cookie is set."""
PREFLIGHT = {"Access-Control-Allow-Methods": "POST", "Access-Control-Allow-Headers": "Content-Type", "Access-Control-Max-Age": "86400"}  # fmt: skip
RETRY = {"Retry-After": "5"}
APPEND_SECONDS = 10.0
"""How long the event log may take. A server that hangs says nothing."""
UNHEALTHY_SECONDS = 10.0
"""How long `/health` remembers a failure. Whoever sends nothing to the unhealthy would otherwise never see it recover."""

log = logging.getLogger("footfall")
_encode = msgspec.json.Encoder().encode


class Metrics:
    """What Prometheus sees of one process."""

    def __init__(self, directory: Directory) -> None:
        self.registry = CollectorRegistry()
        self.accepted = Counter("footfall_events_accepted", "Events that the event log holds.", registry=self.registry)
        self.refused = Counter(
            "footfall_events_refused", "Events refused, by reason.", ["reason"], registry=self.registry
        )
        self.unavailable = Counter("footfall_unavailable", "Requests answered with 503.", registry=self.registry)
        self.seconds = Histogram(
            "footfall_request_seconds", "From a request's head to its answer.", registry=self.registry
        )
        age = Gauge("footfall_sites_age_seconds", "Since the sites were last read.", registry=self.registry)
        age.set_function(lambda: float("inf") if (seconds := directory.age()) is None else seconds)


def make_app(settings: Settings, postgres_url: str) -> Starlette:
    """The application, on an event log and on the PostgreSQL with sites and salts."""
    directory = Directory(postgres_url, add_unknown=settings.any_site)
    collector = _Collector(settings, directory, Appender(open_event_log(settings, postgres_url)))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(collector.close)

    routes = [
        Route("/api/event", collector.event, methods=["POST", "OPTIONS"]),
        Route("/health", collector.health),
        Route("/metrics", collector.metrics_page),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


class _Collector:
    def __init__(self, settings: Settings, directory: Directory, appender: Appender) -> None:
        self.directory, self.appender = directory, appender
        self.trusted = settings.trusted_proxies
        self.door = Door(directory.time_zone, directory.salt, from_datetime(settings.start))
        self.metrics = Metrics(directory)
        self.failed_at: float | None = None

    def close(self) -> None:
        self.appender.close()
        self.directory.close()

    async def event(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={**ANY_ORIGIN, **PREFLIGHT})
        began = time.perf_counter()
        try:
            return await self._take(request)
        except Refused as refused:
            self.metrics.refused.labels(refused.reason.value).inc()
            return _json(413 if refused.reason is Reason.BODY_TOO_LARGE else 400, reason=refused.reason)
        except (EventLogUnavailable, NotReady):
            self.metrics.unavailable.inc()
            return _json(503, reason="unavailable", headers=RETRY)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as mistake:  # ours; its message may quote what a visitor typed
            log.error("%s\n%s", type(mistake).__name__, "".join(traceback.format_tb(mistake.__traceback__)))
            return _json(500, reason="internal_error")
        finally:
            self.metrics.seconds.observe(time.perf_counter() - began)

    async def _take(self, request: Request) -> Response:
        if self.directory.age() is None:
            raise NotReady
        body = unpacked(await _body(request), request.headers.get("content-encoding", "").strip().lower())
        opened = self.door.open(body, self._sender(request), from_datetime(datetime.now(UTC)))
        if opened.lines:
            await self._append(opened.lines)
        self.metrics.accepted.inc(opened.accepted)
        for _, reason in opened.refused:
            self.metrics.refused.labels(reason.value).inc()
        return _answer(opened)

    def _sender(self, request: Request) -> Sender:
        peer = request.client.host if request.client else ""
        forwarded = ",".join(request.headers.getlist("x-forwarded-for"))  # a proxy may add a line of its own
        return Sender(address_of(peer, forwarded, self.trusted), request.headers.get("user-agent", ""))

    async def _append(self, lines: list[bytes]) -> None:
        """Returns when the event log has the lines on disk. Raises EventLogUnavailable."""
        try:
            await asyncio.wait_for(asyncio.wrap_future(self.appender.submit(lines)), APPEND_SECONDS)
        except Exception as problem:
            if self.failed_at is None:
                said = str(problem) if isinstance(problem, EventLogUnavailable) else type(problem).__name__
                log.warning("the event log takes no events: %s", said)
            self.failed_at = time.monotonic()
            raise EventLogUnavailable("see the log") from problem
        if self.failed_at is not None:
            log.warning("the event log takes events again")
            self.failed_at = None

    async def health(self, _: Request) -> Response:
        """Whether it can take events now. Sites and salts that were read stay good for a while, so their age is but a metric."""
        if self.directory.age() is None:
            return _json(503, reason="PostgreSQL was not reached yet")
        if self.failed_at is not None and time.monotonic() - self.failed_at < UNHEALTHY_SECONDS:
            return _json(503, reason="the event log takes no events")
        return _json(200, health="ok")

    async def metrics_page(self, _: Request) -> Response:
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _answer(opened: Opened) -> Response:
    if not opened.refused:
        return _json(202, accepted=opened.accepted)
    if not opened.is_array:
        return _json(400, reason=opened.refused[0][1])
    refused = [{"index": index, "reason": reason} for index, reason in opened.refused]
    return _json(400, accepted=opened.accepted, refused=refused)


async def _body(request: Request) -> bytes:
    """The body as it is on the wire. Raises Refused before more than MAX_BODY_BYTES are held."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise Refused(Reason.BODY_TOO_LARGE)
    return bytes(body)


def _json(status: int, headers: dict[str, str] | None = None, **content: Any) -> Response:
    return Response(_encode(content), status, {**ANY_ORIGIN, **(headers or {})}, "application/json")


def app_from_environment() -> Starlette:
    """What the HTTP server loads in each of its processes. FOOTFALL_POSTGRES names a server: `footfall` sets it to the embedded
    one's where that is used."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    settings = from_environment()
    assert settings.postgres is not None
    return make_app(settings, settings.postgres)


def _end_with_parent() -> None:
    """Whoever killed `footfall collector` would otherwise find its port in use for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
