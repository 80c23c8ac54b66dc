"""A stand-in for the server of Weights & Biases on the loopback, and a run and its journal that need no training."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml

from pipeline.journal import JournalWriter
from pipeline.run import Run

KEY = "5ecre7" * 7  # of the form that an account's key has


@dataclass
class Server:
    """What the client sent, by run; and how the server behaves."""

    address: str = ""
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The history of each run, a row a line, in the server's order."""
    events: list[dict[str, Any]] = field(default_factory=list)
    """The client's own measurements of the machine."""
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The config of each run, as the server keeps it."""
    runs: list[dict[str, Any]] = field(default_factory=list)
    """Variables of each request that made or changed a run."""
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What artifacts were made as, by their id."""
    used: list[str] = field(default_factory=list)
    """Ids of the artifacts that a run used."""
    committed: list[str] = field(default_factory=list)
    """Ids of the artifacts whose files have all come."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Uploaded files, by their last name."""
    offered: list[dict[str, Any]] = field(default_factory=list)
    """Parameters that a sweep still has to give out."""
    refuse: int = 0
    """HTTP status that answers everything; 0 for none."""
    hang: bool = False
    """Answer nothing."""
    bodies: list[bytes] = field(default_factory=list)
    """All that was sent, without the headers, which hold the key."""

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL request."""
        return next((say(given) for name, say in self._operations.items() if name in query), {})

    @property
    def _operations(self) -> dict[str, Any]:
        me = {"id": "me", "name": "me"}
        upload = {"uploadUrl": f"{self.address}/upload/", "uploadHeaders": []}
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
            "mutation CreateAgent": lambda _: {"createAgent": {"agent": {"id": "agent"}}},
            "mutation Heartbeat": self._offer,
        }

    def _bucket(self, name: str) -> dict[str, Any] | None:
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

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
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

    def _artifact(self, given: dict[str, Any]) -> dict[str, Any]:
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

    def _found(self, digest: str) -> dict[str, Any]:
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

    def _offer(self, _: dict[str, Any]) -> dict[str, Any]:
        command: dict[str, Any] = {"type": "exit"}
        if self.offered:
            args = {name: {"value": value} for name, value in self.offered.pop(0).items()}
            command = {"type": "run", "run_id": f"swept{len(self.offered)}", "args": args}
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps([command])}}

    def stream(self, run: str, files: dict[str, Any]) -> None:
        """Take lines of a run's files, each at its place."""
        history = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
        rows = [json.loads(line) for line in history["content"]]
        self.rows.setdefault(run, [])[history["offset"] : history["offset"] + len(rows)] = rows
        self.events += [json.loads(line) for line in files.get("wandb-events.jsonl", {"content": []})["content"]]


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    """The HTTP side of it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Nothing."""

        def handle(self) -> None:
            with suppress(OSError):  # the client left
                super().handle()

        def _take(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.bodies.append(self.path.encode() + b"\n" + body)
            while server.hang:
                time.sleep(0.05)
            said: dict[str, Any] = {}
            if not server.refuse and self.path == "/graphql":
                asked = json.loads(body)
                said = {"data": server.answer(" ".join(asked["query"].split()), asked.get("variables") or {})}
            elif not server.refuse and self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], json.loads(body).get("files") or {})
            elif not server.refuse and self.path.startswith("/upload/"):
                server.files[self.path.split("/")[-1]] = body
            text = json.dumps(said).encode()
            self.send_response(server.refuse or 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _take

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that the client of this test speaks to, with a key."""
    said = Server()
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler(said))
    listening.daemon_threads = True
    said.address = f"http://127.0.0.1:{listening.server_address[1]}"
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    for name, value in {"BASE_URL": said.address, "API_KEY": KEY, "MODE": "online"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    yield said
    said.hang = False
    listening.shutdown()
    listening.server_close()


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in [name for name in os.environ if name.startswith(("WANDB_", "NETRC"))]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone after the test
    yield
    wandb.teardown()


class Written:
    """A run directory, and a journal that a test writes as training would.

    Args:
        path: of the run.
    """

    def __init__(self, path: Path) -> None:
        self.run = Run(path)
        self.run.create()
        self.data = path.parent / "data"
        self.data.mkdir(exist_ok=True)
        (self.data / "dataset.json").write_text('{"splits": {"train": "sha256"}}')
        dataset = {"path": str(self.data), "checksum": "c0ffee"}
        self.run.write(wandb_id="id123456", git_commit="c0ffee", dataset=dataset, parameters=12)
        self.config()
        self.attempts = 0

    def config(self, **tracking: Any) -> None:
        """Write the config, with this of its tracking."""
        parts: dict[str, Any] = {"trainer": {}, "model": {}, "data": {}}
        parts["tracking"] = {"project": "unroll", **tracking}
        (self.run.path / "config.yaml").write_text(yaml.safe_dump(parts))

    def attempt(self, start: int) -> "Written":
        """Begin an attempt at step `start`."""
        self.attempts += 1
        JournalWriter(self.run.path).attempt(self.attempts, start)
        return self

    def rows(self, *steps: int) -> "Written":
        """Measure a loss at these steps: a hundredth of it, and the attempt."""
        journal = JournalWriter(self.run.path)
        for step in steps:
            journal.metrics(self.attempts, step, step * 8, step / 2, {"train/loss": step + self.attempts / 10})
        return self

    def samples(self, step: int) -> "Written":
        """Write a text."""
        JournalWriter(self.run.path).samples(self.attempts, step, 0, 0.0, [{"prompt": "p", "text": f"text {step}"}])
        return self

    def event(self, kind: str, step: int, **fields: Any) -> "Written":
        """Write a record of another kind."""
        JournalWriter(self.run.path).event(kind, self.attempts, step, 0, 0.0, fields)
        return self


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """A run of two processes' worth of nothing: its directory and its journal."""
    return Written(tmp_path / "run")
