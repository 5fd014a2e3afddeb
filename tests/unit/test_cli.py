"""How the command line ends where something goes wrong, and what it finds instead of a system."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

import roadcast
from roadcast.client import ask_health, client_of
from roadcast.errors import SourceError

FAILS = """
import sys
from roadcast.cli import app, main

@app.command()
def fail() -> None:
    raise ZeroDivisionError("by zero")

main()
"""


def said(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", FAILS, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    return done.stderr


def test_what_nobody_foresaw_is_one_line_unless_the_trace_is_asked_for() -> None:
    assert said("fail") == "roadcast: unexpected ZeroDivisionError: by zero. roadcast --verbose shows the trace.\n"
    assert "Traceback" in said("--verbose", "fail")


def test_the_version_is_told() -> None:
    command = [sys.executable, "-m", "roadcast", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == (
        f"roadcast {roadcast.__version__}\n"
    )


WELL = b'{"status": "ok", "parts": [{"name": "a", "status": "ok", "since": "now", "detail": "", "remedy": ""}]}'


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """The address of a program that answers everything so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if self.path == "/health/detailed" else b"?" * len(body))

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


OTHERS = [
    b"[]", b"null", b"{}", b"<html>", b'{"status": "ok"}', b'{"status": 1, "parts": []}',
    b'{"status": "ok", "parts": [1]}', b'{"status": "ok", "parts": [{"name": "a"}]}',
]  # fmt: skip


@pytest.mark.parametrize("body", OTHERS)
def test_another_program_on_the_port_is_told_from_ours(body: bytes) -> None:
    said = r"^http://127\.0\.0\.1:\d+ answers, but is not Roadcast\. Set API_PORT or --url\.$"
    with answering(body) as address, pytest.raises(SourceError, match=said):
        ask_health(address)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY", "http_proxy"])
@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_system_on_this_machine_is_not_asked_through_a_proxy(
    name: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, proxy)
    with answering(WELL) as address:
        assert [part.name for part in ask_health(f"{address}/").parts] == ["a"]


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(SourceError, match=r"proxy.*Set NO_PROXY=example\.org"):
        client_of("http://example.org")


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://localhost", "http://", "", "http://a:b"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SourceError, match=r"^--url .*: expected an address such as http://localhost:8000$"):
        ask_health(address)
