"""The porter: answers on the listening socket while no worker can be started."""

import json
import select
import socket
import threading
from contextlib import suppress

from roadcast.errors import PROBLEM_MEDIA_TYPE

HEARING_S = 0.5
"""How long a client may take to ask; it gets the same answer whatever it asks."""
PULSE_S = 0.25
_BODY = json.dumps(
    {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "Nothing can serve yet: a part does not start, and is tried again. Standard error says why.",
        "errors": (),
    }
)
_ANSWER = f"""HTTP/1.1 503 Service Unavailable\r
Content-Type: {PROBLEM_MEDIA_TYPE}\r
Content-Length: {len(_BODY)}\r
Retry-After: 5\r
Connection: close\r
\r
{_BODY}""".encode()


class Porter:
    """Answers 503 to whoever asks while no worker can be started: otherwise they would wait for ever."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Answer from now on."""
        if self._thread is None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._run, name="porter", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Answer no more: a worker is about to."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._ended.is_set():
            if select.select([self._listener], [], [], PULSE_S)[0]:
                with suppress(OSError):  # a client that has left, or says nothing
                    self._answer(self._listener.accept()[0])

    def _answer(self, client: socket.socket) -> None:
        with client:
            client.settimeout(HEARING_S)
            client.recv(65536)  # what is closed unheard may lose its answer
            client.sendall(_ANSWER)
