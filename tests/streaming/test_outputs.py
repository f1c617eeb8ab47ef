"""outputs.py: the sinks that were asked for are opened, and no others; one that fails closes those before it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_resnet.core.errors import ConfigError
from edge_resnet.streaming.counters import RunCounters
from edge_resnet.streaming.outputs import Outputs, RunView, open_sinks
from edge_resnet.streaming.sinks import terminal, window
from edge_resnet.streaming.sinks.jsonl import JsonlSink


@dataclass
class Screen:
    """A window that is not shown: it notes how it was opened."""

    stop: Callable[[], object]
    per_source: bool = False
    name: str = "window"
    wants_frames: bool = True
    calls: list[str] = field(default_factory=list)

    def __enter__(self) -> Screen:
        self.calls.append("enter")
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append("exit")


def _view(told: list[str] | None = None, *, live: bool = False, several: bool = False) -> RunView:
    lines = [] if told is None else told
    return RunView(RunCounters().status, lambda: None, live=live, several=several, tell=lines.append)


def _names(wanted: Outputs, run: RunView) -> list[str]:
    with open_sinks(wanted, run) as sinks:
        return [sink.name for sink in sinks]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "WindowSink", Screen)


def test_nothing_asked_for_opens_nothing() -> None:
    """Without a terminal a headless run has no sinks at all."""
    assert _names(Outputs(), _view()) == []


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"jsonl": "out.jsonl"}, "jsonl"),
        ({"save_video": Path("out.avi")}, "video"),
        ({"record_uncertain": Path("unsure")}, "uncertain"),
        ({"window": True}, "window"),
        ({"web": "127.0.0.1:0"}, "web"),
        ({"mqtt": "mqtt://127.0.0.1:{port}/cats"}, "mqtt"),
        ({"console": print}, "console"),
    ],
)
@pytest.mark.usefixtures("screen")
def test_each_sink_alone(option: dict[str, object], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One option opens one sink, and that one only."""
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    filled = {key: value.format(port=port) if isinstance(value, str) else value for key, value in option.items()}
    assert _names(Outputs(**filled), _view()) == [name]  # type: ignore[arg-type]


@pytest.mark.usefixtures("screen")
def test_all_that_write_files_at_once(tmp_path: Path) -> None:
    """Each gets its own options, and knows whether there are several sources."""
    wanted = Outputs(
        jsonl=str(tmp_path / "out.jsonl"),
        save_video=tmp_path / "out.avi",
        record_uncertain=tmp_path / "unsure",
        uncertain_below=0.25,
        uncertain_max_mib=2,
        window=True,
        console=print,
    )
    with open_sinks(wanted, _view(several=True)) as sinks:
        by_name = {sink.name: sink for sink in sinks}
        assert list(by_name) == ["jsonl", "video", "uncertain", "window", "console"]
        assert vars(by_name["video"])["_per_source"] is True
        assert vars(by_name["window"])["per_source"] is True
        assert vars(by_name["uncertain"])["_below"] == 0.25
        assert vars(by_name["uncertain"])["_max_bytes"] == 2 << 20


def test_a_size_limit_continues_the_file(tmp_path: Path) -> None:
    """A file is replaced, unless it is to be continued or older ones are kept."""
    path = tmp_path / "out.jsonl"
    for options, kept in [({}, ""), ({"jsonl_append": True}, "{}\n"), ({"jsonl_max_mib": 1.0}, "{}\n")]:
        path.write_text("{}\n")
        with open_sinks(Outputs(jsonl=str(path), **options), _view()):  # type: ignore[arg-type]
            assert path.read_text() == kept


def test_a_dash_is_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """No file of that name is made, and stdout stays open."""
    assert _names(Outputs(jsonl="-"), _view()) == ["jsonl"]
    assert not Path("-").exists()
    sys.stdout.write("still open\n")
    assert capsys.readouterr().out == "still open\n"


@pytest.mark.parametrize(("live", "name"), [(True, "table"), (False, "console")])
def test_a_terminal_gets_a_table_for_cameras(live: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines for files, a table for what is live; a headless run on a terminal counts frames."""
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    assert _names(Outputs(console=print), _view(live=live)) == [name]
    assert _names(Outputs(), _view(live=live)) == [terminal.FrameCounter.name]


def test_the_address_of_the_page_is_told() -> None:
    """Port 0 takes any free port, and the line names the one that was bound."""
    told: list[str] = []
    with open_sinks(Outputs(web="127.0.0.1:0"), _view(told)) as sinks:
        (page,) = sinks
        assert told == [f"the page is at {page.url}"]  # type: ignore[attr-defined]
        assert not told[0].endswith(":0/")


def test_one_that_fails_closes_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes through, no sink after it is made, and none before it stays open."""
    closed: list[str] = []
    monkeypatch.setattr(JsonlSink, "close", lambda self: closed.append(self.name))
    wanted = Outputs(jsonl=str(tmp_path / "out.jsonl"), save_video=tmp_path / "none" / "out.avi", record_uncertain=tmp_path / "x")
    with pytest.raises(ConfigError, match="does not exist"), open_sinks(wanted, _view()):
        raise AssertionError("not reached")
    assert closed == ["jsonl"]
    assert not (tmp_path / "x").exists()


def test_libraries_are_loaded_only_where_needed() -> None:
    """Asking for a JSON file loads no OpenCV, web server, MQTT client or rich."""
    code = (
        "import sys; from edge_resnet.streaming.counters import RunCounters\n"
        "from edge_resnet.streaming.outputs import Outputs, RunView, open_sinks\n"
        "view = RunView(RunCounters().status, print, live=False, several=False, tell=print)\n"
        "with open_sinks(Outputs(jsonl='/dev/null'), view): pass\n"
        "print(sorted({'cv2', 'uvicorn', 'paho', 'rich'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "[]\n"
