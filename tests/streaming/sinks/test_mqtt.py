"""MQTT against a real broker: what arrives, what happens when it goes away, and that the password appears nowhere."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sinksamples import Seen, predicted, with_image

from edge_resnet.core.errors import ConfigError, EdgeResnetError

pytest.importorskip("paho.mqtt.client", reason="needs paho-mqtt: pip install 'edge-resnet[mqtt]'")

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from edge_resnet.streaming.sinks import mqtt
from edge_resnet.streaming.sinks.mqtt import Broker, MqttSink, parse_broker
from edge_resnet.streaming.sinks.serialise import to_json

FRAME = with_image()


class Mosquitto:
    """A broker on loopback that can be stopped and restarted on its port."""

    def __init__(self, folder: Path, *settings: str) -> None:
        command = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
        if command is None:
            pytest.skip("no mosquitto here: apt install mosquitto")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._command = [command, "-c", str(folder / "mosquitto.conf")]
        # What it keeps across a proper end are subscriptions: after that no message is missed by who connects again too late.
        lines = ["persistence true", f"persistence_location {folder}/"]
        lines += [f"listener {self.port} 127.0.0.1", *(settings or ("allow_anonymous true",)), "max_queued_messages 0"]
        (folder / "mosquitto.conf").write_text("\n".join([*lines, "user root", ""]))
        self.start()

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        _wait_for(self._answers)

    def signal(self, number: int) -> None:
        """Send its process a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Stop it properly."""
        self._process.terminate()
        self._process.wait(20)

    def kill(self) -> None:
        """Kill it, as a power cut does."""
        self._process.kill()
        self._process.wait(20)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


class Subscriber:
    """Receives everything that is published, retained or not, in the order of arrival; reconnects by itself."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, str]] = []
        self.subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id=uuid.uuid4().hex, clean_session=False)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self.subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.messages.append((message.topic, message.payload.decode()))
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self.subscribed.wait(20)

    def on(self, topic: str) -> list[str]:
        """What has arrived on a topic."""
        return [payload for name, payload in self.messages if name == topic]

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def _wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that accepts everybody."""
    mosquitto = Mosquitto(tmp_path)
    yield mosquitto
    mosquitto.kill()


@pytest.fixture
def subscriber(broker: Mosquitto) -> Iterator[Subscriber]:
    """A subscriber to that broker."""
    subscriber = Subscriber(broker.port)
    yield subscriber
    subscriber.close()


def _at(port: int, **fields: Any) -> Broker:
    return Broker("127.0.0.1", port, "site/door", tls=False, **fields)


@pytest.mark.parametrize("qos", [0, 1])
def test_what_is_published(broker: Mosquitto, subscriber: Subscriber, qos: int) -> None:
    """Every prediction arrives once, in order, as the line that a file would contain; none is lost by closing."""
    predictions = [predicted(number, Seen("größe ねこ")) for number in range(50)]
    with MqttSink(_at(broker.port), qos=qos) as sink:
        for prediction in predictions:
            sink.write(prediction, FRAME)
    _wait_for(lambda: len(subscriber.on("site/door")) >= 50)
    assert subscriber.on("site/door") == [to_json(prediction) for prediction in predictions]


def test_online_and_offline_are_retained(broker: Mosquitto, subscriber: Subscriber) -> None:
    """A subscriber during the run sees online; a later one sees offline."""
    with MqttSink(_at(broker.port)):
        _wait_for(lambda: subscriber.on("site/door/status") == ["online"])
        late = Subscriber(broker.port)
        _wait_for(lambda: late.on("site/door/status"))
        assert late.on("site/door/status") == ["online"]
        late.close()
    _wait_for(lambda: subscriber.on("site/door/status") == ["online", "offline"])
    later = Subscriber(broker.port)
    _wait_for(lambda: later.on("site/door/status"))
    assert later.on("site/door/status") == ["offline"]
    later.close()


def test_a_killed_run_is_offline(broker: Mosquitto, subscriber: Subscriber) -> None:
    """The broker itself publishes offline when a run is killed."""
    code = (
        "import sys\nfrom edge_resnet.streaming.sinks.mqtt import MqttSink, parse_broker\n"
        "sink = MqttSink(parse_broker(sys.argv[1]))\nprint('up', flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, f"mqtt://127.0.0.1:{broker.port}/site/door"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    _wait_for(lambda: subscriber.on("site/door/status") == ["online"])
    child.kill()
    child.communicate()
    _wait_for(lambda: subscriber.on("site/door/status") == ["online", "offline"])


def test_a_broker_that_comes_back(broker: Mosquitto, subscriber: Subscriber) -> None:
    """With QoS 1 messages written while the broker is away arrive when it is back, and the run is online again."""
    with MqttSink(_at(broker.port), qos=1) as sink:
        sink.write(predicted(0), FRAME)
        _wait_for(lambda: subscriber.on("site/door"))
        broker.stop()
        for number in range(1, 20):
            sink.write(predicted(number), FRAME)
        broker.start()
        _wait_for(lambda: sink._client.is_connected())
        sink.write(predicted(20), FRAME)
        _wait_for(lambda: len({json.loads(payload)["frame"] for payload in subscriber.on("site/door")}) == 21)
        _wait_for(lambda: subscriber.on("site/door/status")[-1] == "online")


@pytest.mark.alone
def test_losses_are_reported(broker: Mosquitto, subscriber: Subscriber) -> None:
    """With QoS 0 each write while the broker is away is an error at once; when it is back, writing works again."""
    with MqttSink(_at(broker.port)) as sink:
        broker.kill()
        _wait_for(lambda: not sink._client.is_connected())
        for number in range(20):
            started = time.monotonic()
            with pytest.raises(EdgeResnetError, match="cannot be reached"):
                sink.write(predicted(number), FRAME)
            assert time.monotonic() - started < 1.0
        subscriber.subscribed.clear()
        broker.start()
        assert subscriber.subscribed.wait(20)
        _wait_for(lambda: sink._client.is_connected())
        sink.write(predicted(99), FRAME)
        _wait_for(lambda: subscriber.on("site/door"))
    assert [json.loads(payload)["frame"] for payload in subscriber.on("site/door")] == [99]


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.alone
def test_a_broker_that_is_suspended(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch, qos: int) -> None:
    """No write waits, and the messages in flight are limited; close gives up and reports it."""
    monkeypatch.setattr(mqtt, "_DRAIN_S", 0.3)
    monkeypatch.setattr(mqtt, "_END_S", 0.3)
    long = Seen("x" * 100_000)  # 300 of them are more than the sockets of both sides hold
    sink = MqttSink(_at(broker.port), qos=qos, in_flight=10)
    broker.signal(signal.SIGSTOP)
    refusals, slowest = [], 0.0
    for number in range(300):
        started = time.monotonic()
        try:
            sink.write(predicted(number, long), FRAME)
        except EdgeResnetError as error:
            refusals.append(error.message)
        slowest = max(slowest, time.monotonic() - started)
    assert all("wait for the MQTT broker" in message and "it is slow" in message for message in refusals)
    assert len(refusals) >= (290 if qos else 100)
    assert slowest < 1.0
    assert len(sink._in_flight) <= 10
    # With QoS 0 the machine's own buffers may have taken all of them by now: then none is left, and none was confirmed.
    pattern = r"has not taken the last \d+ messages: it is slow"
    with pytest.raises(EdgeResnetError, match=pattern if qos else pattern + "|has not confirmed the end.*it is slow"):
        sink.close()
    sink.close()
    broker.signal(signal.SIGCONT)


def test_an_end_that_is_not_confirmed(broker: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    """With QoS 0, messages in the system's buffers count as sent, but close reports that the broker never confirmed the end."""
    monkeypatch.setattr(mqtt, "_DRAIN_S", 0.3)
    monkeypatch.setattr(mqtt, "_END_S", 0.3)
    sink = MqttSink(_at(broker.port))
    _wait_for(lambda: sink._client.is_connected())
    broker.signal(signal.SIGSTOP)
    sink.write(predicted(1), FRAME)
    _wait_for(lambda: not sink._forget_delivered())
    with pytest.raises(EdgeResnetError, match="has not confirmed the end, and the last messages may be lost: it is slow"):
        sink.close()
    broker.signal(signal.SIGCONT)


def test_no_broker_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a broker a run starts, QoS 1 keeps what fits, the rest is refused, and close returns soon."""
    monkeypatch.setattr(mqtt, "_DRAIN_S", 0.3)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        sink = MqttSink(_at(closed.getsockname()[1]), qos=1, in_flight=5)
        for number in range(5):
            sink.write(predicted(number), FRAME)
        with pytest.raises(EdgeResnetError, match=r"5 messages wait for the MQTT broker .*: no connection"):
            sink.write(predicted(5), FRAME)
        started = time.monotonic()
        with pytest.raises(EdgeResnetError, match="has not taken the last 5 messages"):
            sink.close()
        assert time.monotonic() - started < 60
    with pytest.raises(EdgeResnetError, match="closed"):
        sink.write(predicted(6), FRAME)


def test_the_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The right one is accepted; with a wrong one the broker's reason is logged, and no log, error or repr contains it."""
    subprocess_path = shutil.which("mosquitto_passwd")
    if subprocess_path is None:
        pytest.skip("no mosquitto_passwd here: apt install mosquitto")
    (tmp_path / "users").touch(mode=0o600)
    subprocess.run([subprocess_path, "-b", str(tmp_path / "users"), "door", "s3cr/t@x"], check=True, capture_output=True)
    broker = Mosquitto(tmp_path, "allow_anonymous false", f"password_file {tmp_path / 'users'}")
    try:
        with MqttSink(parse_broker(f"mqtt://door:s3cr%2Ft%40x@127.0.0.1:{broker.port}/site/door"), qos=1) as sink:
            sink.write(predicted(), FRAME)
            _wait_for(lambda: not sink._forget_delivered())
        with caplog.at_level(logging.DEBUG):
            wrong = parse_broker(f"mqtt://door:wr0ng-one@127.0.0.1:{broker.port}/site/door")
            sink = MqttSink(wrong)
            with pytest.raises(EdgeResnetError, match="refuses the connection: Not authorized") as caught:
                sink.write(predicted(), FRAME)
            sink.close()
        texts = f"{caplog.text} {caught.value} {wrong!r} {sink!r} {vars(sink)}"
        assert "Not authorized" in caplog.text
        assert "wr0ng" not in texts
    finally:
        broker.kill()


def _certificate(folder: Path, name: str, subject: str) -> None:
    """A self-signed certificate for ``subject`` and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={subject}", "-days", "2"]
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    subprocess.run(["openssl", "req", "-x509", *key, *names, *files], check=True, capture_output=True)


# paho leaves the socket of a handshake that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_with_tls(tmp_path: Path) -> None:
    """With mqtts:// only a broker whose certificate is signed by the given authority is accepted."""
    for name in ("ours", "other"):
        _certificate(tmp_path, name, "IP:127.0.0.1")
    settings = (f"cafile {tmp_path}/ours.pem", f"certfile {tmp_path}/ours.pem", f"keyfile {tmp_path}/ours.key")
    broker = Mosquitto(tmp_path, "allow_anonymous true", *settings)
    address = parse_broker(f"mqtts://127.0.0.1:{broker.port}/site/door")
    try:
        with MqttSink(address, qos=1, ca_file=tmp_path / "ours.pem") as sink:
            sink.write(predicted(), FRAME)
            _wait_for(lambda: not sink._forget_delivered())
        for ca_file in (tmp_path / "other.pem", None):
            with MqttSink(address, ca_file=ca_file) as sink, pytest.raises(EdgeResnetError, match="cannot be reached"):
                sink.write(predicted(), FRAME)
        for content in (None, "no certificate"):
            (tmp_path / "bad.pem").write_text(content) if content else None
            with pytest.raises(ConfigError, match="contains no usable certificate"):
                MqttSink(address, ca_file=tmp_path / "bad.pem")
    finally:
        broker.kill()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("subject", "accepted"), [("IP:127.0.0.1", True), ("DNS:broker.example", False)])
def test_tls_with_the_systems_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subject: str, accepted: bool) -> None:
    """Without a file of its own the sink trusts those that OpenSSL does, SSL_CERT_FILE among them, and a certificate must be for
    the host in the address."""
    _certificate(tmp_path, "ours", subject)
    settings = (f"cafile {tmp_path}/ours.pem", f"certfile {tmp_path}/ours.pem", f"keyfile {tmp_path}/ours.key")
    broker = Mosquitto(tmp_path, "allow_anonymous true", *settings)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ours.pem"))
    try:
        with MqttSink(parse_broker(f"mqtts://127.0.0.1:{broker.port}/site/door"), qos=1) as sink:
            _wait_for(lambda: sink._tried.is_set())
            assert sink._client.is_connected() is accepted
    finally:
        broker.kill()


@pytest.mark.parametrize(
    ("uri", "broker"),
    [
        ("mqtt://host/a", Broker("host", 1883, "a", tls=False)),
        ("mqtts://host/a/b", Broker("host", 8883, "a/b", tls=True)),
        ("mqtt://u@[::1]:1/a%20b/%C3%B6", Broker("::1", 1, "a b/ö", tls=False, user="u")),
        ("mqtt://u:p%40%2F%3A@host:99/a", Broker("host", 99, "a", tls=False, user="u", password="p@/:")),
    ],
)
def test_addresses(uri: str, broker: Broker) -> None:
    """Scheme, user, password, host, port and topic, with the standard ports as default."""
    assert parse_broker(uri) == broker


@pytest.mark.parametrize(
    "uri",
    [
        *("host/a", "mqtt://host", "mqtt://host/", "mqtt:///a", "http://host/a", "mqtt://host/a/#", "mqtt://host/+/a"),
        *("mqtt://host/$SYS", "mqtt://host:0/a", "mqtt://host:99999/a", "mqtt://host:x/a", "mqtt://[::1/a", "mqtt://host/a?b=1"),
        *("mqtt://host/a%00", "mqtt://host/a#", "mqtt://user:12/34@host/a", "mqtt://user:12?34@host/a"),
    ],
)
def test_invalid_addresses(uri: str) -> None:
    """Each is refused, with the expected form."""
    with pytest.raises(ConfigError) as caught:
        parse_broker(uri)
    assert "mqtt://[user:password@]host" in caught.value.hint


@given(st.text(st.sampled_from("@:/?#%[] secretSECRET0123456789"), min_size=6))
def test_a_password_is_never_shown(password: str) -> None:
    """However it is written, a password appears neither in an error nor, in part, in host or topic."""
    marked = f"XyZzY{password}XyZzY"
    try:
        broker = parse_broker(f"mqtt://user:{marked}@host/topic")
    except ConfigError as error:
        chain = f"{error} {error.hint} {error.__cause__} {error.__context__}"
        assert "XyZzY" not in chain
    else:
        assert "XyZzY" not in f"{broker!r}"
        assert (broker.host, broker.topic) == ("host", "topic")


def test_invalid_options() -> None:
    """QoS 2 and no messages at all are refused before connecting."""
    for options in ({"qos": 2}, {"in_flight": 0}):
        with pytest.raises(ConfigError):
            MqttSink(_at(1), **options)


def test_without_paho() -> None:
    """The error names the command that installs paho-mqtt."""
    code = (
        "import sys\nsys.modules['paho'] = None\nfrom edge_resnet.core.errors import MissingDependencyError\n"
        "try:\n    import edge_resnet.streaming.sinks.mqtt\n"
        "except MissingDependencyError as error:\n    assert \"pip install 'edge-resnet[mqtt]'\" in error.hint\n"
        "else:\n    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
