"""Publishes predictions to an MQTT broker through paho-mqtt. Does not know who subscribes."""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from edge_resnet.core.errors import ConfigError, EdgeResnetError, MissingDependencyError
from edge_resnet.streaming.records import Frame, Prediction
from edge_resnet.streaming.sinks.serialise import to_json

try:
    from paho.mqtt.client import Client, MQTTMessageInfo
    from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
except ImportError as missing:
    raise MissingDependencyError(f"--mqtt needs paho-mqtt 2 ({missing})", hint="pip install 'edge-resnet[mqtt]'") from missing

__all__ = ["Broker", "MqttSink", "parse_broker"]

_log = logging.getLogger(__name__)

_FORM = "mqtt://[user:password@]host[:1883]/topic, or mqtts:// for TLS; in a password @ : / ? # % are %40 %3A %2F %3F %23 %25"
_PORTS: Mapping[str, int] = {"mqtt": 1883, "mqtts": 8883}
_KEEPALIVE_S = 30
_CONNECT_S = 5.0
_RETRY_S = (1, 30)
#: How long ``close`` waits for messages in flight, and then for the connection to end.
_DRAIN_S, _END_S = 3.0, 2.0


@dataclass(frozen=True)
class Broker:
    """Where to publish. ``topic``: of the predictions; ``topic/status`` is online or offline. The password is not in the repr."""

    host: str
    port: int
    topic: str
    tls: bool
    user: str | None = None
    password: str | None = field(default=None, repr=False)


def parse_broker(uri: str) -> Broker:
    """Parse ``mqtt://[user:password@]host[:port]/topic``; user and password may be percent-encoded.

    Raises ConfigError, which quotes no part of the URI, since any may hold a password.
    """
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        parts, port = SplitResult("", "", "", "", ""), None
    topic = unquote(parts.path.removeprefix("/"))
    # An unescaped / ? or # in a password ends the host early: the rest of the password would be published in the topic.
    torn = "?" in uri or "#" in uri or "@" in topic
    if parts.scheme not in _PORTS or not parts.hostname or port == 0 or torn:
        raise ConfigError("the address of the MQTT broker is not valid", hint=_FORM)
    if not topic or any(sign in topic for sign in "+#\0") or topic.startswith("$"):
        raise ConfigError("the MQTT topic must be a path without + and #", hint=_FORM)
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Broker(parts.hostname, port or _PORTS[parts.scheme], topic, parts.scheme == "mqtts", user, password)


class MqttSink:
    """Publishes each prediction as :func:`edge_resnet.streaming.sinks.serialise.to_json` makes it, and, retained, ``online`` to
    ``topic/status``; at the end ``offline``, which the broker itself publishes if the connection breaks.

    ``write`` never waits. ``qos`` 0: messages written without a connection are lost, and ``write`` raises; those in flight when
    it breaks are lost silently. ``qos`` 1: messages are kept and sent again until the broker confirms them, perhaps twice. At
    most ``in_flight`` messages are in flight: more are refused. The connection is made, and restored, in the background; the
    first one is awaited for up to five seconds, so that a short run does not end before it. ``ca_file``: the certificate
    authority for mqtts://, None for the system's.

    Raises ConfigError if the certificates cannot be read; importing the module raises MissingDependencyError without paho-mqtt.
    """

    name = "mqtt"
    wants_frames = False

    def __init__(self, broker: Broker, *, qos: int = 0, in_flight: int = 100, ca_file: Path | None = None) -> None:
        if qos not in (0, 1):
            raise ConfigError(f"MQTT predictions are published with QoS 0 or 1, not {qos}", hint="1 loses no message")
        if in_flight < 1:
            raise ConfigError(f"at least one message is in flight, not {in_flight}", hint="100 is a good start")
        self._where = f"{broker.host}:{broker.port}"
        self._topic = broker.topic
        self._status = f"{broker.topic}/status"
        self._qos = qos
        self._limit = in_flight
        self._in_flight: deque[MQTTMessageInfo] = deque()
        self._fault = "not connected yet"
        self._closed = False
        self._tried = threading.Event()
        self._client = _client(broker, ca_file)
        self._client.on_connect = self._connected
        self._client.on_connect_fail = self._not_connected
        self._client.on_disconnect = self._disconnected
        self._client.will_set(self._status, "offline", qos=1, retain=True)
        self._client.connect_async(broker.host, broker.port, _KEEPALIVE_S)
        self._client.loop_start()
        if not self._tried.wait(_CONNECT_S):
            _log.warning("MQTT broker %s: no answer yet", self._where)

    def write(self, prediction: Prediction, frame: Frame) -> None:  # noqa: ARG002 - the protocol's signature
        """Publish one prediction. Raises EdgeResnetError if there is no connection or too many messages are in flight."""
        if self._closed:
            raise EdgeResnetError("the connection to the MQTT broker is closed")
        self._forget_delivered()
        if len(self._in_flight) >= self._limit:
            raise EdgeResnetError(f"{len(self._in_flight)} messages wait for the MQTT broker {self._where}: {self._state()}")
        info = self._client.publish(self._topic, to_json(prediction), qos=self._qos)
        if info.rc == MQTTErrorCode.MQTT_ERR_NO_CONN and self._qos == 1:
            info.rc = MQTTErrorCode.MQTT_ERR_SUCCESS  # paho keeps it for the next connection, but marks it as failed
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise EdgeResnetError(f"the MQTT broker {self._where} cannot be reached: {self._state()}")
        self._in_flight.append(info)

    def close(self) -> None:
        """Publish offline, wait up to three seconds for messages in flight, and disconnect.

        Raises EdgeResnetError with the number of messages that are left, or if the broker did not confirm the end: then messages
        in the system's buffers may be lost.
        """
        if self._closed:
            return
        self._closed = True
        ends, confirmed = time.monotonic() + _DRAIN_S, True
        if self._client.is_connected():
            # The broker confirms this message after all that were sent before it, including those of QoS 0.
            last = self._client.publish(self._status, "offline", qos=1, retain=True)
            while time.monotonic() < ends and (self._forget_delivered() or not _is_delivered(last)):
                time.sleep(0.005)
            confirmed = _is_delivered(last)
        left, state = self._forget_delivered(), self._state()
        self._client.disconnect()
        # Joined in a thread: a name server that does not answer blocks paho's thread for longer than a service may take to end.
        ending = threading.Thread(target=self._client.loop_stop, daemon=True)
        ending.start()
        ending.join(_END_S)
        if left:
            raise EdgeResnetError(f"the MQTT broker {self._where} has not taken the last {left} messages: {state}")
        if not confirmed:
            raise EdgeResnetError(
                f"the MQTT broker {self._where} has not confirmed the end, and the last messages may be lost: {state}"
            )

    def __enter__(self) -> MqttSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        self.close()

    def _forget_delivered(self) -> int:
        """How many messages are in flight. Those lost with a connection count as delivered, since there is no way to know."""
        while self._in_flight and _is_delivered(self._in_flight[0]):
            self._in_flight.popleft()
        return len(self._in_flight)

    def _state(self) -> str:
        return "it is slow" if self._client.is_connected() else self._fault

    # The methods below run in paho's thread; their parameters have paho's own types.

    def _connected(self, client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            self._note(f"it refuses the connection: {reason}")
            return
        self._note("")
        client.publish(self._status, "online", qos=1, retain=True)

    def _not_connected(self, _client: object, _data: object) -> None:
        self._note("no connection")

    def _disconnected(self, _client: object, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        # If the connection was refused, the reason given then is more specific.
        if not self._closed and not self._fault:
            self._note(f"the connection was lost: {reason}")

    def _note(self, fault: str) -> None:
        if fault != self._fault:
            _log.log(logging.WARNING if fault else logging.INFO, "MQTT broker %s: %s", self._where, fault or "connected")
        self._fault = fault
        self._tried.set()


def _is_delivered(info: MQTTMessageInfo) -> bool:
    try:
        return info.is_published()
    except (ValueError, RuntimeError):  # paho's way to report that it was dropped
        return True


def _client(broker: Broker, ca_file: Path | None) -> Client:
    name = f"edge-resnet-{socket.gethostname()[:32]}-{uuid.uuid4().hex[:8]}"
    client = Client(CallbackAPIVersion.VERSION2, client_id=name)
    client.connect_timeout = _CONNECT_S
    client.reconnect_delay_set(*_RETRY_S)
    if broker.user is not None:
        client.username_pw_set(broker.user, broker.password)
    if broker.tls:
        try:
            client.tls_set(ca_certs=None if ca_file is None else str(ca_file))
        except OSError as error:
            raise ConfigError(f"{ca_file} contains no usable certificate", hint="use a PEM file") from error
    return client
