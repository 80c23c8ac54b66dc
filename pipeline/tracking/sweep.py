"""`unroll fit --sweep ENTITY/PROJECT/ID`: a Weights & Biases sweep chooses the values of a run, once.

The first process requests the values as an agent of the sweep and stores them in `sweep.json` of the run before
anything else. It broadcasts them, so every process and every later attempt trains the same config.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.distributed import launch, rendezvous
from pipeline.errors import ConfigError
from pipeline.runs import record
from pipeline.runs.run import SWEEP, Run, directory_of
from pipeline.tracking.graphql import ServerError, post
from pipeline.tracking.settings import has_key

PATIENCE = 120.0  # seconds to wait for the sweep to choose values
REGISTER = """mutation CreateAgent($host: String!, $projectName: String, $entityName: String, $sweep: String!) {
  createAgent(input: {host: $host, projectName: $projectName, entityName: $entityName, sweep: $sweep}) { agent { id } }
}"""
HEARTBEAT = """mutation Heartbeat($id: ID!, $metrics: JSONString, $runState: JSONString) {
  agentHeartbeat(input: {id: $id, metrics: $metrics, runState: $runState}) { agent { id } commands }
}"""


def arguments_of_sweep(arguments: list[str]) -> list[str] | None:
    """Return the arguments of `unroll fit` with the sweep's values added; unchanged if they name no sweep.

    Returns:
        The arguments, or None if the sweep is exhausted.

    Raises:
        ConfigError: no run is named, no API key is set, or the server rejects the request or is unreachable.
    """
    path, rest = _split_option("--sweep", arguments)
    if path is None:
        return arguments
    name, _ = _split_option("--run", rest)
    if name is None:
        raise ConfigError("--sweep requires --run NAME: the run to store the sweep's values in")
    if _split_option("--resume", rest)[0] == "never":
        raise ConfigError("--sweep with --resume never: the sweep chooses once for each run; use --run OTHER")
    run = Run(directory_of(name))

    def first() -> dict[str, Any]:
        with run.lock(patience=PATIENCE):
            return _load_or_request(run, path)

    elsewhere = launch.started_elsewhere()
    chosen = rendezvous.broadcast_result(first, int(os.environ["WORLD_SIZE"]), "sweep") if elsewhere else first()
    if not chosen:
        return None
    values = dict(_flat(chosen["parameters"]))
    if launch.rank() == 0:
        print(f"run {run.name}: sweep {path} chose {', '.join(f'{k}={v}' for k, v in values.items())}", flush=True)
    return [*rest, *(f"--{key}={value}" for key, value in values.items())]


def _split_option(option: str, arguments: list[str]) -> tuple[str | None, list[str]]:
    """Return the value of an option, and the arguments without it."""
    for place, word in enumerate(arguments):
        if word.startswith(f"{option}="):
            return word.partition("=")[2], arguments[:place] + arguments[place + 1 :]
        if word == option and place + 1 < len(arguments):
            return arguments[place + 1], arguments[:place] + arguments[place + 2 :]
    return None, arguments


def _load_or_request(run: Run, path: str) -> dict[str, Any]:
    """Return the values chosen for the run, now or by an earlier attempt; empty if the sweep is exhausted."""
    if run.sweep:
        if run.sweep["path"] != path:
            raise ConfigError(f"run {run.name} belongs to sweep {run.sweep['path']}, not {path}: use --run OTHER")
        return run.sweep
    if run.record:
        raise ConfigError(f"run {run.name} was started without a sweep: use --run OTHER")
    chosen = _request_values(path)
    if chosen:
        record.write_text(run.path, SWEEP, json.dumps(chosen, indent=1))
    return chosen


def _request_values(path: str) -> dict[str, Any]:
    """Return the id and the values of the sweep's next run; empty if there is none."""
    *where, sweep = path.split("/")
    if len(where) > 2 or not sweep:
        raise ConfigError(f"--sweep {path}: expected ENTITY/PROJECT/ID, as `wandb sweep` prints it")
    entity, project = ([None, None, *where])[-2:]
    names = {"projectName": project, "entityName": entity}
    variables = {"host": socket.gethostname(), **names, "sweep": sweep}
    agent = _post(REGISTER, variables)["createAgent"]["agent"]["id"]
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = _post(HEARTBEAT, {"id": agent, "metrics": "{}", "runState": "{}"})
        for command in json.loads(answer["agentHeartbeat"]["commands"]):
            if command["type"] in ("run", "resume"):
                values = {name: given["value"] for name, given in command["args"].items()}
                return {"path": path, "id": sweep, "run_id": command["run_id"], "parameters": values}
            if command["type"] in ("exit", "stop"):
                print(f"sweep {path} is exhausted", flush=True)
                return {}
        time.sleep(5)
    raise ConfigError(f"sweep {path} chose no values within {PATIENCE:.0f} s: check that it is not paused")


def _post(query: str, variables: Mapping[str, object]) -> dict[str, Any]:
    """Return the data of the server's response to a GraphQL request, with three tries."""
    if not has_key():
        raise ConfigError("--sweep requires a Weights & Biases API key: run `wandb login` or set WANDB_API_KEY")
    try:
        return post(query, variables)
    except ServerError as error:
        raise ConfigError(f"--sweep: {error}") from error


def _flat(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys and their values as text."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value)
