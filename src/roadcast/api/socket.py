"""`/ws/real-time`: one connection's life. `docs/asyncapi.yaml` describes its messages.

Three tasks serve a connection: one reads, one writes what the outbox holds, one sends heartbeats. The first that
ends ends them all: a client that is gone, that answers no heartbeat, that takes no message in time or sends too
many that are wrong.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from http import HTTPStatus
from typing import cast
from uuid import uuid4

import orjson
import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from roadcast.api.context import ApiContext
from roadcast.api.deps import context_in, presenter
from roadcast.api.fields import invalid, parse_code
from roadcast.api.problems import Refused, field_errors
from roadcast.api.routes.system import system_status
from roadcast.errors import FieldError, InvalidInput
from roadcast.live.documents import feed_document
from roadcast.live.hub import Channel, Data, Document, Frame, Outbox, Position, Sensors

SEND_TIMEOUT_S = 10.0
MISSED_HEARTBEATS = 3
MOST_SENSORS = 5_000
LARGEST_MESSAGE = 524_288
"""Bytes: holds a filter of as many sensors, with codes of 64 ASCII characters. A connection holds one at a time."""

CLIENT_MESSAGES = ("subscribe", "unsubscribe", "pong", "get_status")

log = structlog.get_logger()
router = APIRouter()


class CloseCode(IntEnum):
    """Why the server closes, as RFC 6455 numbers it."""

    NO_HEARTBEAT = 1001
    WRONG_MESSAGES = 1008
    TOO_LARGE = 1009
    TOO_MANY_SOCKETS = 1013


class _Ended(Exception):
    """The connection is over; with a code, the client is told why."""

    def __init__(self, reason: str, code: CloseCode | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


@router.websocket("/ws/real-time")
async def real_time(socket: WebSocket) -> None:
    """Serve one connection."""
    context = context_in(socket.scope)
    await socket.accept()
    if context.hub.connections >= context.limits.max_sockets:
        await socket.close(CloseCode.TOO_MANY_SOCKETS, "too many connections; try again later")
        return
    outbox = context.hub.join()
    try:
        await _Connection(socket, context, outbox).serve()
    finally:
        context.hub.leave(outbox)


@router.get("/ws/real-time", include_in_schema=False)
async def no_socket(request: Request) -> Response:
    """Tell whoever comes without a handshake what speaks here."""
    error = FieldError(
        "Upgrade", request.headers.get("upgrade"), "expected websocket: open this WebSocket with ws:// or wss://"
    )
    raise Refused(HTTPStatus.UPGRADE_REQUIRED, error, {"Upgrade": "websocket", "Connection": "Upgrade"})


@dataclass(slots=True)
class _Connection:
    socket: WebSocket
    context: ApiContext
    outbox: Outbox
    connection_id: str = field(default_factory=lambda: str(uuid4()))
    wrong: int = 0
    unanswered: int = 0

    async def serve(self) -> None:
        """Run until the first of the tasks ends."""
        self.reply(
            "welcome",
            connection_id=self.connection_id,
            available_subscriptions=list(Channel),
            epoch=self.context.hub.epoch,
            feed=feed_document(self.context.clock),
            heartbeat_s=self.context.limits.heartbeat_s,
        )
        tasks = [asyncio.create_task(part()) for part in (self.read, self.write, self.beat)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._close(next(iter(done)))

    async def _close(self, ended: asyncio.Task[None]) -> None:
        error = ended.exception()
        if not isinstance(error, _Ended):
            raise error or RuntimeError("a socket's task ended")
        log.info("socket_ended", connection_id=self.connection_id, reason=error.reason, dropped=self.outbox.dropped)
        if error.code is not None and self.socket.application_state is WebSocketState.CONNECTED:
            await self._closing(error.code, error.reason)

    async def _closing(self, code: CloseCode, reason: str) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self.socket.close(code, reason)
        except (TimeoutError, WebSocketDisconnect, RuntimeError):
            log.debug("socket_gone", connection_id=self.connection_id)

    async def read(self) -> None:
        """Answer what the client sends."""
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                raise _Ended(f"the client left with {message.get('code')}")
            text: str | bytes = message.get("bytes") or message.get("text") or ""
            if len(text) > LARGEST_MESSAGE:
                raise _Ended(f"a message exceeded {LARGEST_MESSAGE} bytes", CloseCode.TOO_LARGE)
            self.take(text)
            await self.outbox.answered()

    def take(self, text: str | bytes) -> None:
        """Do what one message asks, or say what is wrong with it."""
        self.unanswered = 0
        try:
            message = _decoded(text)
            self._handlers[_one_of(message, "type", CLIENT_MESSAGES)](message)
            self.wrong = 0
        except InvalidInput as error:
            self.wrong += 1
            self.reply("error", message=error.message, errors=field_errors(error.errors))
            if self.wrong > self.context.limits.max_socket_errors:
                raise _Ended("too many wrong messages", CloseCode.WRONG_MESSAGES) from error

    @property
    def _handlers(self) -> Mapping[str, Callable[[Document], None]]:
        return {
            "subscribe": self.subscribe,
            "unsubscribe": self.unsubscribe,
            "pong": lambda _: None,
            "get_status": lambda _: self.outbox.reply(self._status().message()),
        }

    def subscribe(self, message: Document) -> None:
        """Begin a subscription: where the client was, or with a snapshot."""
        hub = self.context.hub
        channel = Channel(_one_of(message, "subscription", tuple(Channel)))
        sensors, position = _sensors(message), _position(message)
        resumed = hub.subscribe(self.outbox, channel, sensors, position)
        self.reply(
            "subscription_confirmed",
            subscription=channel,
            sensors=None if sensors is None else sorted(sensors),
            epoch=hub.epoch,
            resumed=resumed,
        )
        if not resumed and (state := self._snapshot(channel)):
            hub.begin(self.outbox, channel, state)

    def unsubscribe(self, message: Document) -> None:
        """End a subscription."""
        channel = Channel(_one_of(message, "subscription", tuple(Channel)))
        was_subscribed = self.context.hub.unsubscribe(self.outbox, channel)
        self.reply("unsubscription_confirmed", subscription=channel, was_subscribed=was_subscribed)

    def _snapshot(self, channel: Channel) -> Frame | None:
        """What a channel begins with: its present state, else its newest frame."""
        context = self.context
        match channel:
            case Channel.SYSTEM_STATUS:
                return self._status()
            case Channel.TRAFFIC_DATA:
                return context.hub.shared(channel, context.clock.now(), lambda: _readings(context))
            case Channel.PREDICTIONS:
                return context.hub.shared(channel, context.clock.now(), lambda: _forecasts(context))
            case _:
                return context.hub.newest(channel)

    def _status(self) -> Frame:
        context = self.context
        return context.hub.present(Channel.SYSTEM_STATUS, context.clock.now(), system_status(context))

    def reply(self, kind: str, **values: object) -> None:
        """Send a message of this connection alone."""
        self.outbox.reply({"type": kind, "timestamp": self.context.clock.now(), **values})

    async def write(self) -> None:
        """Send what the outbox holds, each message within the time-out."""
        while True:
            text = await self.outbox.take()
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await self.socket.send_text(text)
            except TimeoutError:
                raise _Ended(f"the client took no message for {SEND_TIMEOUT_S:g} s") from None
            except (WebSocketDisconnect, RuntimeError) as error:  # starlette raises either on a dead socket
                raise _Ended("the client is gone") from error

    async def beat(self) -> None:
        """Ask for a sign of life every period."""
        while True:
            await asyncio.sleep(self.context.limits.heartbeat_s)
            if self.unanswered >= MISSED_HEARTBEATS:
                raise _Ended(f"{MISSED_HEARTBEATS} pings were not answered", CloseCode.NO_HEARTBEAT)
            self.unanswered += 1
            self.reply("ping")


def _readings(context: ApiContext) -> Data:
    rows, sensors = context.state.latest(), context.state.sensors
    return presenter(context).readings(rows, sensors, context.clock.now())


def _forecasts(context: ApiContext) -> Data:
    issue = context.state.issue
    return [] if issue is None else presenter(context).forecasts(issue, context.state.sensors)


def _decoded(text: str | bytes) -> Document:
    try:
        message: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        sent = text if isinstance(text, str) else text.decode(errors="replace")
        raise invalid("message", sent, f"expected JSON: {error}") from error
    if not isinstance(message, dict):
        raise invalid("message", message, "expected an object with a type")
    return cast("Document", message)


def _one_of(message: Document, name: str, accepted: Sequence[str]) -> str:
    value = message.get(name)
    if not isinstance(value, str) or value not in accepted:
        raise invalid(name, value, f"expected one of {', '.join(accepted)}")
    return value


def _sensors(message: Document) -> Sensors | None:
    """The filter, None for everything."""
    value = message.get("sensors")
    if value is None:
        return None
    reason = f"expected a list of at most {MOST_SENSORS} sensor codes"
    if not isinstance(value, list) or len(codes := cast("list[object]", value)) > MOST_SENSORS:
        raise invalid("sensors", cast("object", value), reason)
    try:
        return frozenset(parse_code(code) for code in codes)
    except ValueError as error:
        raise invalid("sensors", codes, f"{reason}; {error}") from None


def _position(message: Document) -> Position | None:
    """Where the client was."""
    value = message.get("resume")
    if value is None:
        return None
    given = cast("Document", value if isinstance(value, dict) else {})
    epoch, seq = given.get("epoch"), given.get("seq")
    if not isinstance(epoch, str) or not isinstance(seq, int) or isinstance(seq, bool) or seq < 0:
        reason = 'expected {"epoch": text, "seq": number}, as in the last message'
        raise invalid("resume", cast("object", value), reason)
    return Position(epoch, seq)
