"""Run the supervisor with a small worker in place of the real one: `stand_in.py serve` and `stand_in.py worker`.

The worker answers every request with its process number and whether the database answers; POST ends it with the code
that the path names. While there is a file `broken`, it does not start.
"""

import json
import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from roadcast.errors import RoadcastError
from roadcast.settings import Mode, load_settings
from roadcast.supervisor import Handover, owner, supervise


def serve() -> int:
    try:
        return supervise(load_settings(Mode.DEVELOPMENT), Mode.DEVELOPMENT, worker=[sys.executable, __file__, "worker"])
    except RoadcastError as error:
        sys.stderr.write(f"roadcast: {error}\n")
        return 1


def worker() -> None:
    told = owner()
    if Path("broken").exists():
        sys.exit(1)
    server = HTTPServer(("127.0.0.1", 0), handler(told), bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=told.socket)
    server.serve_forever()


def handler(told: Handover) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"status": "ok", "pid": os.getpid(), "database": answers(told)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            os._exit(int(self.path[1:]))

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler


def answers(told: Handover) -> bool:
    if told.database is None:
        return False
    try:
        socket.create_connection((told.database.host, told.database.port), 2).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(serve() if sys.argv[1] == "serve" else worker())
