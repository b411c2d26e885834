"""A server on this machine that takes what `wandb sync` sends, to see that the library reads our files and sends them.

It answers only what the library asks for while it sends a run; it is no stand-in for the real service, which checks and
shows what it gets.
"""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OWNER = {"id": "project", "name": "r3cnn", "entity": {"id": "entity", "name": "me"}}


@dataclass
class Received:
    """What has been sent.

    Attributes:
        runs: Variables of every request that creates or changes a run.
        lines: Lines that were streamed, by file.
        uploads: Content of uploaded files, by name.
    """

    url: str = ""
    runs: list[dict[str, object]] = field(default_factory=list)
    lines: dict[str, list[str]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def listening() -> Iterator[Received]:
    """A server for one or more calls of `wandb sync`."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            received.uploads[self.path.removeprefix("/uploads/")] = self._body()
            self._reply({})

        def do_POST(self) -> None:
            content = json.loads(self._body())
            if self.path.endswith("/graphql"):
                self._reply({"data": answer(received, content["operationName"], content.get("variables") or {})})
                return
            for name, part in (content.get("files") or {}).items():
                received.lines.setdefault(name, []).extend(part["content"])
            self._reply({})

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _reply(self, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    received.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(received: Received, operation: str, variables: dict[str, object]) -> dict[str, object]:
    """What the library needs to hear to go on."""
    if operation == "UpsertBucket":
        received.runs.append(variables)
        run = {"id": "run", "name": variables["name"], "displayName": variables.get("displayName"), "project": OWNER}
        return {"upsertBucket": {"bucket": run, "inserted": True}}
    if operation == "RunResumeStatus":
        return {"model": {**OWNER, "bucket": None}}
    if operation == "CreateRunFiles":
        files = [{"name": name, "uploadUrl": f"{received.url}/uploads/{name}"} for name in variables["files"]]  # type: ignore[attr-defined]
        return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
    if operation == "CreateArtifact":
        artifact = {"id": "artifact", "state": "COMMITTED", "artifactSequence": {"latestArtifact": {"id": "artifact"}}}
        return {"createArtifact": {"artifact": artifact}}
    if operation == "ServerFeaturesQuery":
        return {"serverInfo": {"features": []}}
    raise ValueError(f"the library asks for {operation}, which is not known here")
