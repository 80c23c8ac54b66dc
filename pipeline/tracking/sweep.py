"""`unroll fit --sweep ENTITY/PROJECT/ID`: Weights & Biases chooses the values of a run, once for its whole life.

The first process asks as an agent of the sweep does, and keeps the answer in `sweep.json` of the run before anything
else; the others are told. So every process trains the same config, every later attempt too, and the run's directory
records it.
"""

import base64
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from pipeline.distributed import launch, rendezvous
from pipeline.errors import ConfigError
from pipeline.runs import record
from pipeline.runs.run import SWEEP, Run, directory_of
from pipeline.tracking.redact import error_line
from pipeline.tracking.settings import api_key, server

PATIENCE = 120.0  # seconds that the sweep may take to choose
REGISTER = """mutation CreateAgent($host: String!, $projectName: String, $entityName: String, $sweep: String!) {
  createAgent(input: {host: $host, projectName: $projectName, entityName: $entityName, sweep: $sweep}) { agent { id } }
}"""
ASK = """mutation Heartbeat($id: ID!, $metrics: JSONString, $runState: JSONString) {
  agentHeartbeat(input: {id: $id, metrics: $metrics, runState: $runState}) { agent { id } commands }
}"""


def arguments_of_sweep(arguments: list[str]) -> list[str] | None:
    """Arguments of `unroll fit` with the values that the sweep chose; as they are where they name no sweep.

    Returns:
        None where the sweep has nothing left to try.

    Raises:
        ConfigError: no run is named, there is no key, or the server refuses or cannot be reached.
    """
    path, rest = _taken("--sweep", arguments)
    if path is None:
        return arguments
    name, _ = _taken("--run", rest)
    if name is None:
        raise ConfigError("--sweep wants --run NAME: the run that the sweep's values are for")
    if _taken("--resume", rest)[0] == "never":
        raise ConfigError("--sweep with --resume never: a sweep chooses once for a run; give --run OTHER")
    run = Run(directory_of(name))

    def first() -> dict[str, Any]:
        with run.lock(patience=PATIENCE):
            return _kept(run, path)

    elsewhere = launch.started_elsewhere()
    said = rendezvous.broadcast_result(first, int(os.environ["WORLD_SIZE"]), "sweep") if elsewhere else first()
    if not said:
        return None
    values = dict(_flat(said["parameters"]))
    if launch.rank() == 0:
        print(f"run {run.name}: sweep {path} chose {', '.join(f'{k}={v}' for k, v in values.items())}", flush=True)
    return [*rest, *(f"--{key}={value}" for key, value in values.items())]


def _taken(option: str, arguments: list[str]) -> tuple[str | None, list[str]]:
    """The value of an option, and the arguments without it."""
    for place, word in enumerate(arguments):
        if word.startswith(f"{option}="):
            return word.partition("=")[2], arguments[:place] + arguments[place + 1 :]
        if word == option and place + 1 < len(arguments):
            return arguments[place + 1], arguments[:place] + arguments[place + 2 :]
    return None, arguments


def _kept(run: Run, path: str) -> dict[str, Any]:
    """What was chosen for the run: now, or by an earlier attempt; empty where nothing is left to try."""
    if run.sweep:
        if run.sweep["path"] != path:
            raise ConfigError(f"run {run.name} belongs to sweep {run.sweep['path']}, not {path}: give --run OTHER")
        return run.sweep
    if run.record:
        raise ConfigError(f"run {run.name} was begun without a sweep: give --run OTHER")
    chosen = _ask(path)
    if chosen:
        record.write_text(run.path, SWEEP, json.dumps(chosen, indent=1))
    return chosen


def _ask(path: str) -> dict[str, Any]:
    """The id and the values of the next run of a sweep; empty where there is none."""
    *where, sweep = path.split("/")
    if len(where) > 2 or not sweep:
        raise ConfigError(f"--sweep {path} must be ENTITY/PROJECT/ID, as `wandb sweep` prints it")
    entity, project = ([None, None, *where])[-2:]
    names = {"projectName": project, "entityName": entity}
    about = {"host": socket.gethostname(), **names, "sweep": sweep}
    agent = _tell(REGISTER, about)["createAgent"]["agent"]["id"]
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        said = _tell(ASK, {"id": agent, "metrics": "{}", "runState": "{}"})["agentHeartbeat"]["commands"]
        for command in json.loads(said):
            if command["type"] in ("run", "resume"):
                values = {name: given["value"] for name, given in command["args"].items()}
                return {"path": path, "id": sweep, "run_id": command["run_id"], "parameters": values}
            if command["type"] in ("exit", "stop"):
                print(f"sweep {path} has nothing left to try", flush=True)
                return {}
        time.sleep(5)
    raise ConfigError(f"sweep {path} chose nothing within {PATIENCE:.0f} s: is it paused?")


def _tell(query: str, variables: dict[str, Any]) -> dict[str, Any]:
    """The data that the server answers a GraphQL request with; asked three times where it does not answer.

    Not with the client: its requests of an agent are private, leave a service behind in the process that is to start
    others, and answer an error of the server with no commands.
    """
    key = api_key()
    if key is None:
        raise ConfigError("--sweep wants a key of Weights & Biases: give `wandb login`, or set WANDB_API_KEY")
    address = f"{server()}/graphql"
    headers = {
        "Authorization": "Basic " + base64.b64encode(f"api:{key}".encode()).decode(),
        "Content-Type": "application/json",
        "User-Agent": f"unroll python/{sys.version_info[0]}.{sys.version_info[1]}",
    }
    body = json.dumps({"query": query, "variables": variables}).encode()
    for attempt in (1, 2, 3):
        try:
            request = urllib.request.Request(address, body, headers)
            with urllib.request.urlopen(request, timeout=30) as answer:
                said = json.load(answer)
            if said.get("errors") or not said.get("data"):
                raise ConfigError(f"--sweep: {address} refuses: {said.get('errors') or said}")
            return dict(said["data"])
        except (OSError, ValueError) as error:
            refused = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500
            if attempt == 3 or refused:
                raise ConfigError(f"--sweep: {address} does not answer: {error_line(error)}") from error
            time.sleep(2**attempt)
    raise AssertionError


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and the texts of their values."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)
