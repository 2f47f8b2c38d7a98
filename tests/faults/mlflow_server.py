"""A real MLflow server behind a proxy that can be down, slow, broken or closed to us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.processes import free_port

SLOW_SECONDS = 10.0


class Server:
    """`mlflow server` with a store and artifacts of its own."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
            "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/store.db",
            "--artifacts-destination", str(folder / "artifacts"),
        ]  # fmt: skip
        self._start()

    def kill(self) -> None:
        """All processes of it at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """It takes connections, and answers none."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def bring_back(self) -> None:
        """After either of both."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGCONT)
        else:
            self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 200
        while not self._answers():
            assert self._process.poll() is None, "the MLflow server did not start"
            assert time.monotonic() < deadline, "the MLflow server does not answer"
            time.sleep(0.5)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)


class Proxy:
    """Hands requests on, or not.

    Attributes:
        mode: `pass`, `500`, `401`, `slow` (every answer after ten seconds), `hold` (no answer until
            the mode changes) or `down` (the connection is cut).
        passed: paths of the requests that were handed on and answered, in order.
        held: how many requests wait for an answer.
    """

    def __init__(self, server: Server, mode: str = "pass") -> None:
        self.mode = mode
        self.passed: list[str] = []
        self.held = 0
        self._changed = threading.Condition()
        handler = type("Handler", (_Handler,), {"proxy": self, "target": server.url})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def switch(self, mode: str) -> None:
        with self._changed:
            self.mode = mode
            self._changed.notify_all()

    def wait(self) -> None:
        """What `slow` and `hold` do to a request."""
        with self._changed:
            self.held += 1
            if self.mode == "slow":
                self._changed.wait_for(lambda: self.mode != "slow", SLOW_SECONDS)
            self._changed.wait_for(lambda: self.mode != "hold")
            self.held -= 1

    def close(self) -> None:
        self.switch("down")
        self._http.shutdown()
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    target: str

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.proxy.wait()
        if self.proxy.mode == "down":
            self.close_connection = True
            return
        if self.proxy.mode in ("500", "401"):
            self._answer(int(self.proxy.mode), b"no", "text/plain")
            return
        status, content, kind = self._hand_on(body)
        self.proxy.passed.append(self.path)
        self._answer(status, content, kind)

    def _hand_on(self, body: bytes) -> tuple[int, bytes, str]:
        request = urllib.request.Request(
            self.target + self.path, data=body or None, method=self.command
        )
        request.add_header("Content-Type", self.headers.get("Content-Type", "application/json"))
        try:
            answer = urllib.request.urlopen(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            return answer.status, answer.read(), answer.headers.get("Content-Type", "")

    def _answer(self, status: int, content: bytes, kind: str) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # the client has given up
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Nothing on the test's output."""
