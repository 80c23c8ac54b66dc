"""Requests to the Weights & Biases server, and what it has of a run.

The client is not used: its own requests are private, start a service process before this process forks others, and
repeat a request for minutes before they report an error.
"""

import base64
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from pipeline.tracking.redact import error_line
from pipeline.tracking.settings import api_key, server

RECEIVED = """query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) { bucket(name: $name, missingOk: true) { historyLineCount historyTail } }
}"""


class ServerError(Exception):
    """The server cannot be reached, or it rejects a request.

    Args:
        message: the address and the cause, with secrets redacted.
        rejected: whether the same request would be rejected again.
    """

    def __init__(self, message: str, rejected: bool = False) -> None:
        super().__init__(message)
        self.rejected = rejected


def post(query: str, variables: Mapping[str, object], seconds: float = 30.0, tries: int = 3) -> dict[str, Any]:
    """Return the data of the server's response to a GraphQL request.

    Args:
        query: the request.
        variables: its variables.
        seconds: timeout of each try.
        tries: number of tries while the server cannot be reached.

    Raises:
        ServerError: the server cannot be reached or rejects the request, or no API key was found.
    """
    address = f"{server()}/graphql"
    headers = {
        "Authorization": "Basic " + base64.b64encode(f"api:{api_key()}".encode()).decode(),
        "Content-Type": "application/json",
        "User-Agent": f"unroll python/{sys.version_info[0]}.{sys.version_info[1]}",
    }
    body = json.dumps({"query": query, "variables": variables}).encode()
    for attempt in range(1, tries + 1):
        try:
            request = urllib.request.Request(address, body, headers)
            with urllib.request.urlopen(request, timeout=seconds, context=_certificates()) as response:
                answer = json.load(response)
            if answer.get("errors") or not answer.get("data"):
                raise ServerError(f"{address} rejected the request: {answer.get('errors') or answer}", rejected=True)
            return dict(answer["data"])
        except (OSError, ValueError) as error:
            status = error.code if isinstance(error, urllib.error.HTTPError) else 0
            rejected = 400 <= status < 500 and status not in (408, 429)
            if attempt == tries or rejected:
                raise ServerError(f"request to {address} failed: {error_line(error)}", rejected) from error
            time.sleep(2**attempt)
    raise AssertionError


def _certificates() -> ssl.SSLContext:
    """Return the certificates that the client accepts too."""
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(os.environ.get("REQUESTS_CA_BUNDLE") or certifi.where())
    if os.environ.get("WANDB_INSECURE_DISABLE_SSL", "").lower() in ("1", "true"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def last_line(project: str, entity: str | None, run_id: str, seconds: float = 3.0) -> int | None:
    """Return the number of the last journal line that the server has; None if it does not have the run.

    Raises:
        ServerError: see `post`.
    """
    where = {"project": project, "entity": entity, "name": run_id}
    model = post(RECEIVED, where, seconds, tries=1).get("model")
    bucket = (model or {}).get("bucket")
    if bucket is None:
        return None
    tail = json.loads(bucket["historyTail"] or "[]")
    return int(json.loads(tail[-1]).get("_step", 0)) if tail else 0
