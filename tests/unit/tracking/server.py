"""A fake Weights & Biases server on the loopback interface; it records the client's requests."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any


@dataclass
class Server:
    """What the client sent, by run, and how the server behaves."""

    address: str = ""
    rows: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    """The history of each run, one dict per row, in the server's order."""
    events: list[dict[str, object]] = field(default_factory=list)
    """The client's system metrics."""
    configs: dict[str, dict[str, object]] = field(default_factory=dict)
    """The config of each run, as the server stores it."""
    runs: list[dict[str, Any]] = field(default_factory=list)
    """Variables of each request that created or changed a run."""
    artifacts: dict[str, dict[str, object]] = field(default_factory=dict)
    """Creation requests of artifacts, by digest."""
    used: list[str] = field(default_factory=list)
    """Ids of the artifacts used by a run."""
    committed: list[str] = field(default_factory=list)
    """Ids of the artifacts whose files are complete."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Uploaded files, by their last name."""
    offered: list[dict[str, object]] = field(default_factory=list)
    """Parameters that the sweep has not assigned yet."""
    refuse: dict[str, int] = field(default_factory=dict)
    """HTTP status of the response to each request whose path or query contains the key; "" is in all of them."""
    delay: float = 0.0
    """Seconds before each response."""
    hang: bool = False
    """Whether to leave every request unanswered."""
    deleted: set[str] = field(default_factory=set)
    """Ids of runs that were deleted: a server never gives such an id to another run."""
    bodies: list[bytes] = field(default_factory=list)
    """All request bodies, without the headers, which contain the key."""

    def status(self, request: str) -> int:
        """Return the HTTP status of the response to a request, given as its path and its query."""
        refused = next((status for part, status in self.refuse.items() if part in request), 0)
        if any(f"/{run}/file_stream" in request for run in self.deleted):
            return 404
        return refused or 200

    def delete(self, run: str) -> None:
        """Delete a run, as its owner can in the browser."""
        del self.rows[run]
        self.deleted.add(run)

    def rewind(self, run: str, rows: int) -> None:
        """Forget all rows of a run after the first `rows`, as a server that was restored from a backup does."""
        del self.rows[run][rows:]

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, object]:
        """Return the data of a GraphQL response."""
        operations = self._of_runs | self._of_artifacts
        return next((respond(given) for name, respond in operations.items() if name in query), {})

    @property
    def _of_runs(self) -> dict[str, Callable[[dict[str, Any]], dict[str, object]]]:
        me = {"id": "me", "name": "me"}
        return {
            "query Viewer": lambda _: {
                "viewer": {"id": "u", "entity": "me", "username": "me", "email": "", "flags": "{}"}
            },
            "query RunResumeStatus": lambda v: {
                "model": {"id": "p", "name": v["project"], "entity": me, "bucket": self._bucket(v["name"])}
            },
            "mutation UpsertBucket": self._upsert,
            "mutation CreateRunFiles": lambda v: {
                "createRunFiles": {
                    "runID": v["run"],
                    "uploadHeaders": [],
                    "files": [{"name": name, "uploadUrl": f"{self.address}/upload/{name}"} for name in v["files"]],
                }
            },
            "mutation CreateAgent": lambda _: {"createAgent": {"agent": {"id": "agent"}}},
            "mutation Heartbeat": self._offer,
        }

    @property
    def _of_artifacts(self) -> dict[str, Callable[[dict[str, Any]], dict[str, object]]]:
        upload = {"uploadUrl": f"{self.address}/upload/", "uploadHeaders": []}
        return {
            "query ArtifactByID": lambda v: {"artifact": self._found(v["id"])},
            "query ArtifactType": lambda _: {"project": {"artifact": None}},
            "mutation CreateArtifactManifest": lambda v: {
                "createArtifactManifest": {
                    "artifactManifest": {
                        "id": v["artifactID"],
                        "file": {
                            "id": "f",
                            "name": "m",
                            "displayName": "m",
                            "uploadUrl": f"{self.address}/upload/{v['artifactID']}.manifest",
                            "uploadHeaders": [],
                        },
                    }
                }
            },
            "mutation CreateArtifactFiles": lambda v: {
                "createArtifactFiles": {
                    "files": {
                        "edges": [
                            {
                                "node": {
                                    "id": "f",
                                    "name": one["name"],
                                    "displayName": one["name"],
                                    **upload,
                                    "uploadUrl": f"{self.address}/upload/{one['name']}",
                                    "storagePath": None,
                                    "uploadMultipartUrls": None,
                                    "artifact": {"id": one["artifactID"]},
                                }
                            }
                            for one in v["input"]["artifactFiles"]
                        ]
                    }
                }
            },
            "mutation CommitArtifact": lambda v: (
                self.committed.append(v["artifactID"])
                or {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": ""}}}
            ),
            "mutation UseArtifact": lambda v: (
                self.used.append(v.get("artifactID") or v["input"]["artifactID"])
                or {"useArtifact": {"artifact": {"id": "a", "digest": ""}}}
            ),
            "mutation CreateArtifact ": self._artifact,
        }

    def _bucket(self, name: str) -> dict[str, object] | None:
        if name not in self.rows:
            return None
        lines = [json.dumps(row) for row in self.rows[name]]
        summary = {key: value for row in self.rows[name] for key, value in row.items()}
        texts = {
            "displayName": name,
            "notes": "",
            "config": json.dumps(self.configs[name]),
            "eventsTail": "[]",
            "wandbConfig": '{"t": 1}',
            "tags": [],
        }
        counts = {"logLineCount": 0, "historyLineCount": len(lines), "eventsLineCount": 0}
        return {
            "id": name,
            "name": name,
            **texts,
            **counts,
            "historyTail": json.dumps(lines[-1:]),
            "summaryMetrics": json.dumps(summary),
        }

    def _upsert(self, given: dict[str, Any]) -> dict[str, object]:
        new = given["name"] not in self.rows
        self.rows.setdefault(given["name"], [])
        self.runs.append(given)
        self.configs.setdefault(given["name"], {}).update(json.loads(given["config"] or "{}"))
        project = {"id": "p", "name": given["project"] or "p", "entity": {"id": "me", "name": "me"}}
        bucket = {
            "id": given["name"],
            "name": given["name"],
            "displayName": "",
            "description": "",
            "config": "{}",
            "sweepName": given["sweep"],
        }
        return {
            "upsertBucket": {
                "bucket": {**bucket, "project": project, "historyLineCount": len(self.rows[given["name"]])},
                "inserted": new,
            }
        }

    def _artifact(self, given: dict[str, dict[str, str]]) -> dict[str, object]:
        made = given["input"]
        self.artifacts[made["digest"]] = made
        return {
            "createArtifact": {
                "artifact": {
                    "id": made["digest"],
                    "state": "PENDING",
                    "artifactSequence": {"id": "s", "latestArtifact": None},
                }
            }
        }

    def _found(self, digest: str) -> dict[str, object]:
        made = self.artifacts[digest]
        project = {"id": "p", "internalId": "p", "name": "p", "entity": {"id": "me", "internalId": "me", "name": "me"}}
        collection = {
            "__typename": "ArtifactSequence",
            "id": "s",
            "name": made["artifactCollectionName"],
            "project": project,
        }
        facts = {
            "description": None,
            "metadata": made["metadata"],
            "digest": digest,
            "state": "COMMITTED",
            "aliases": [],
            "tags": [],
        }
        numbers = {
            "versionIndex": 0,
            "ttlDurationSeconds": 0,
            "ttlIsInherited": True,
            "historyStep": None,
            "size": 0,
            "fileCount": 1,
        }
        dates = {"createdAt": "2026-01-01T00:00:00Z", "updatedAt": None, "commitHash": None}
        kind = {"artifactType": {"name": made["artifactTypeName"]}, "artifactSequence": collection}
        return {"__typename": "Artifact", "id": digest, **kind, **facts, **numbers, **dates}

    def _offer(self, _: dict[str, object]) -> dict[str, object]:
        command: dict[str, object] = {"type": "exit"}
        if self.offered:
            args = {name: {"value": value} for name, value in self.offered.pop(0).items()}
            command = {"type": "run", "run_id": f"swept{len(self.offered)}", "args": args}
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps([command])}}

    def stream(self, run: str, files: dict[str, Any]) -> None:
        """Store lines of a run's files, each at its offset."""
        history = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
        rows = [json.loads(line) for line in history["content"]]
        self.rows.setdefault(run, [])[history["offset"] : history["offset"] + len(rows)] = rows
        self.events += [json.loads(line) for line in files.get("wandb-events.jsonl", {"content": []})["content"]]


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    """Return the HTTP handler of a server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Do nothing."""

        def handle(self) -> None:
            with suppress(OSError):  # the client disconnected
                super().handle()

        def _respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.bodies.append(self.path.encode() + b"\n" + body)
            time.sleep(server.delay)
            while server.hang:
                time.sleep(0.05)
            status, response = self._answer(body)
            text = json.dumps(response).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def _answer(self, body: bytes) -> tuple[int, dict[str, object]]:
            request = json.loads(body) if self.path == "/graphql" else {}
            query, given = " ".join(request.get("query", "").split()), request.get("variables") or {}
            if (status := server.status(f"{self.path} {query}")) != 200:
                return status, {"errors": [{"message": f"refused with {status}"}]}
            if "mutation UpsertBucket" in query and given["name"] in server.deleted:
                told = f"run {given['name']} was previously created and deleted; try a new run name"
                return 409, {"errors": [{"message": told}]}
            if self.path == "/graphql":
                return 200, {"data": server.answer(query, given)}
            if self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], json.loads(body).get("files") or {})
            if self.path.startswith("/upload/"):
                server.files[self.path.split("/")[-1]] = body
            return 200, {}

        do_GET = do_POST = do_PUT = _respond

    return Handler
