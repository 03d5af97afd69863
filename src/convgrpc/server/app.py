"""The composition root: a store, the handlers, the pipeline, and the two fronts, started and stopped together."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Container, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from functools import partial
from typing import NamedTuple

import uvicorn

from convgrpc.contract.item_policy import ItemPolicy
from convgrpc.contract.methods import Method, methods
from convgrpc.handlers import conversations, input_tokens, responses
from convgrpc.handlers.conversations import ConversationsService
from convgrpc.handlers.input_tokens import InputTokensService
from convgrpc.handlers.message_work import MessageWork
from convgrpc.handlers.responses import ResponsesService
from convgrpc.handlers.token_counter import TokenCounter, UnavailableTokenCounter
from convgrpc.server.admission import Admission, Limits
from convgrpc.server.auth import Keys
from convgrpc.server.grpc.server import GrpcServer
from convgrpc.server.health import Health
from convgrpc.server.http.admin import Operations
from convgrpc.server.http.connections import Bounds
from convgrpc.server.http.gateway import Gateway
from convgrpc.server.http.server import FLUSH_SECONDS, http_server
from convgrpc.server.listener import CannotListen, listening
from convgrpc.server.metrics import Metrics
from convgrpc.server.pipeline import Pipeline, bind_handlers
from convgrpc.server.process import give_memory_back, raise_open_files, stop_signals
from convgrpc.server.tls import Certificates, Files
from convgrpc.settings import Address, Settings
from convgrpc.storage.interface import Commit, Sizes, Store
from convgrpc.storage.sqlite.store import SqliteStore

_log = logging.getLogger(__name__)


class CannotSecure(Exception):
    """The certificates cannot be used; the message says why, for the operator."""


class CannotCount(Exception):
    """The file of models cannot be used; the message says why, for the operator."""


class Running(NamedTuple):
    """The addresses of a server that runs; metrics are not served unless that was asked for."""

    grpc: Address
    http: Address
    metrics: Address | None = None


async def serve(settings: Settings, started: Callable[[Running], None]) -> None:
    """Serves until SIGTERM, SIGINT or SIGHUP; then lets what is in flight finish. A second signal ends that too.

    The process is the server's own: its limits and its memory are set for it. Raises `UnusableDatabase`, `CannotCount`,
    `CannotSecure` and `CannotListen` before anything is served.
    """
    give_memory_back()
    raise_open_files(settings.max_connections)
    stopping = asyncio.Event()
    with stop_signals(stopping):
        async with running(settings) as addresses:
            started(addresses)
            _log.info("serving")
            await stopping.wait()
            _log.info("stopping: what is in flight has %g seconds", settings.shutdown_grace)
    _log.info("stopped")


@asynccontextmanager
async def running(settings: Settings, *, drain_delay: float = 0.2) -> AsyncIterator[Running]:
    """Runs a server while the context lasts.

    At its end the server still answers for `drain_delay` seconds. Then it refuses for as long again, so that nothing
    that is on its way is cut off.
    """
    certificates = _certificates(settings)
    metrics = Metrics()
    if certificates:
        metrics.observe_gauge(
            "convgrpc_tls_certificate_expires_at_seconds",
            "Until when the server's certificate is valid, in Unix time.",
            lambda: certificates.expires_at,
        )
    store = await open_store(settings, metrics.observe_commit, alone=True)
    metrics.observe_gauge(
        "convgrpc_store_waiting_writes", "Writes that wait to be stored.", lambda: store.waiting_writes
    )
    try:
        has_keys = await store.has_keys()
        for address in (settings.grpc, settings.http):
            _check_exposure(address, settings, has_keys=has_keys)
        with _counter(store, settings) as counter:
            async with _fronts(store, counter, metrics, certificates, settings, drain_delay) as addresses:
                yield addresses
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        await store.close()


async def open_store(
    settings: Settings, observe: Callable[[Commit], None] = lambda commit: None, *, alone: bool = False
) -> Store:
    """Opens the database; `observe` is told of each commit, in another thread. Raises `UnusableDatabase`.

    `alone` is for a server: of those that open it so there is one at a time.
    """
    sizes = Sizes(
        item_bytes=settings.max_item_bytes,
        conversation_items=settings.max_conversation_items,
        project_conversations=settings.max_project_conversations,
        project_bytes=settings.max_project_bytes,
    )
    opened = partial(SqliteStore.open, settings.db, keep_requests=settings.keep_requests, sizes=sizes, observe=observe)
    return await asyncio.to_thread(opened, alone=alone)


def _certificates(settings: Settings) -> Certificates | None:
    if not settings.tls_cert:
        return None
    try:
        return Certificates(Files(settings.tls_cert, settings.tls_key, settings.tls_client_ca))
    except ValueError as error:
        raise CannotSecure(str(error)) from None


@asynccontextmanager
async def _fronts(
    store: Store,
    counter: TokenCounter,
    metrics: Metrics,
    certificates: Certificates | None,
    settings: Settings,
    drain_delay: float,
) -> AsyncIterator[Running]:
    contract = methods([conversations.SERVICE, input_tokens.SERVICE, responses.SERVICE])
    pipeline = _pipeline(store, counter, settings)
    admission = Admission(Keys(store), _limits(settings))
    metrics.observe_gauge("convgrpc_calls_in_flight", "Calls that are at work.", lambda: admission.running)
    metrics.observe_gauge("convgrpc_watchers", "Callers that watch.", lambda: admission.watching)
    grpc_server = GrpcServer(
        admission,
        pipeline,
        metrics,
        contract,
        max_message_bytes=settings.max_message_bytes,
        max_calls=settings.max_calls,
        max_connections=settings.max_connections,
        transfer_timeout=settings.transfer_timeout,
        request_timeout=settings.request_timeout,
        with_reflection=settings.reflection,
    )
    health = Health(store, grpc_server.keyless.tell_health)
    _observe_health(metrics, health)
    gateway, bounds = _gateway(admission, health, pipeline, metrics, contract, settings), _bounds(settings)
    pages = [_HttpEndpoint("REST", settings.http, http_server(gateway, bounds, certificates))]
    if settings.metrics:
        operations = Operations(metrics.registry, health)
        pages.append(_HttpEndpoint("metrics", settings.metrics, http_server(operations, bounds, None)))
    with ExitStack() as stack:
        # Longer than connections are left alone here, where their other ends are told.
        user_timeout = 2 * settings.transfer_timeout
        listeners = [stack.enter_context(listening(page.address, page.name, user_timeout)) for page in pages]
        grpc_address = _bound(grpc_server, settings.grpc, certificates)
        bound = [Address(page.address.host, each.getsockname()[1]) for page, each in zip(pages, listeners, strict=True)]
        await grpc_server.keyless.tell_health(True)
        await health.probe()
        await grpc_server.start()
        # If REST cannot go on, the group ends what waits for the signal to stop.
        async with asyncio.TaskGroup() as group:
            for page, listener in zip(pages, listeners, strict=True):
                group.create_task(page.server.serve([listener]))
            looking = [group.create_task(each) for each in (health.watch(), admission.check())]
            try:
                yield Running(grpc_address, *bound)
            finally:
                for each in looking:
                    each.cancel()
                health.draining = True
                await _drain(admission, grpc_server, settings.shutdown_grace, drain_delay)
                for page in pages:
                    page.server.should_exit = True
                await grpc_server.stop(FLUSH_SECONDS)


class _HttpEndpoint(NamedTuple):
    """What is served by HTTP: its name for the operator, where, and by what."""

    name: str
    address: Address
    server: uvicorn.Server


async def _drain(admission: Admission, grpc_server: GrpcServer, grace: float, drain_delay: float) -> None:
    """Lets both fronts finish, in an order in which no call is cancelled that could be answered."""
    await grpc_server.keyless.drain()
    # What was sent before those who watch the health could know is served still.
    await asyncio.sleep(drain_delay)
    await admission.finish(grace)
    # What is on its way is refused in words: grpcio would cancel it.
    await asyncio.sleep(drain_delay)


@contextmanager
def _counter(store: Store, settings: Settings) -> Iterator[TokenCounter]:
    try:
        # What it needs is an extra.
        from convgrpc.handlers.stored_token_counter import StoredTokenCounter, load_models
    except ImportError as error:
        yield UnavailableTokenCounter(str(error))
        return
    try:
        models = load_models(settings.models)
    except ValueError as error:
        raise CannotCount(str(error)) from None
    with closing(StoredTokenCounter(store, models, max_items=settings.max_counted_items)) as counter:
        counter.warm_up()
        yield counter


def _item_policy(settings: Settings) -> ItemPolicy:
    any_ids = settings.ids == "any"
    return ItemPolicy(keep_unknown=settings.unknown == "keep", any_ids=any_ids, need_ids=not any_ids)


def _pipeline(store: Store, counter: TokenCounter, settings: Settings) -> Pipeline:
    work = MessageWork()
    about_conversations = ConversationsService(store, counter, work, include_policy=settings.include_policy)
    return Pipeline(
        {
            **bind_handlers(conversations.SERVICE, about_conversations),
            **bind_handlers(input_tokens.SERVICE, InputTokensService(counter)),
            **bind_handlers(responses.SERVICE, ResponsesService(store, work)),
        },
        work,
        max_timeout=settings.request_timeout,
        transfer_timeout=settings.transfer_timeout,
        policy=_item_policy(settings),
    )


def _observe_health(metrics: Metrics, health: Health) -> None:
    metrics.observe_gauge(
        "convgrpc_store_failing",
        "1 while the database cannot be written or read.",
        lambda: health.condition.unavailable is not None,
    )
    metrics.observe_gauge(
        "convgrpc_store_damaged",
        "1 once something that was stored could not be read.",
        lambda: health.condition.corrupt is not None,
    )


def _gateway(
    admission: Admission,
    health: Health,
    pipeline: Pipeline,
    metrics: Metrics,
    contract: list[Method],
    settings: Settings,
) -> Gateway:
    return Gateway(
        admission,
        health,
        pipeline,
        metrics,
        contract,
        max_body_bytes=settings.max_message_bytes,
        body_timeout=settings.transfer_timeout,
        hosts=_hosts(settings),
        policy=_item_policy(settings),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.project_rate,
        settings.project_concurrency,
        settings.max_calls,
        settings.max_request_bytes,
        settings.max_watchers,
        # Each of these is one that nobody else can use.
        settings.max_connections // 2,
    )


def _bounds(settings: Settings) -> Bounds:
    return Bounds(settings.max_connections, settings.transfer_timeout)


def _check_exposure(address: Address, settings: Settings, *, has_keys: bool) -> None:
    if not (address.is_loopback or settings.insecure or has_keys):
        raise CannotListen(
            f"{address} can be reached from other machines, and whoever reaches it may read and write everything; "
            "make a key with 'convgrpc keys create', use a loopback address, or --insecure if that is meant"
        )


def _hosts(settings: Settings) -> Container[str] | None:
    """The host names by which REST requests may come; any where other machines are served."""
    if not settings.http.is_loopback:
        return None
    more = (name.strip().lower() for name in settings.allowed_hosts.split(","))
    return {"localhost", "127.0.0.1", "::1", settings.http.host.lower(), *filter(None, more)}


def _bound(server: GrpcServer, address: Address, certificates: Certificates | None) -> Address:
    # grpcio does not say why it cannot take an address, but writes to stderr: a socket of our own fails first.
    with listening(address, "gRPC"):
        pass
    try:
        return Address(address.host, server.bind(str(address), certificates.for_grpc() if certificates else None))
    except RuntimeError as error:
        raise CannotListen(f"cannot serve gRPC on {address}: {error}") from None
