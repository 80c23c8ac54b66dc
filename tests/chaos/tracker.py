"""The tests' Weights & Biases server, which can be shut down for a while."""

import threading
from collections import Counter
from collections.abc import Mapping
from http.server import ThreadingHTTPServer

from tests.unit.tracking.server import Server, handler


class Tracker:
    """A server on the loopback interface."""

    def __init__(self) -> None:
        self.state = Server()
        self._listening: ThreadingHTTPServer | None = None
        self._port = 0
        self.revive()

    def environment(self) -> dict[str, str]:
        """Return the variables with which a run is sent to this server."""
        return {"WANDB_BASE_URL": self.state.address, "WANDB_API_KEY": "5ecre7" * 7, "WANDB_MODE": "online"}

    def die(self, silently: bool) -> None:
        """Refuse connections, or accept them without an answer."""
        if silently:
            self.state.hang = True
            return
        self.state.refuse = {"": 503}  # on connections that are already open
        if self._listening is not None:
            self._listening.shutdown()
            self._listening.server_close()
            self._listening = None

    def revive(self) -> None:
        """Answer again, at the same address and with the same contents."""
        self.state.hang, self.state.refuse = False, {}
        if self._listening is None:
            self._listening = ThreadingHTTPServer(("127.0.0.1", self._port), handler(self.state))
            self._listening.daemon_threads = True
            self._port = self._listening.server_address[1]
            self.state.address = f"http://127.0.0.1:{self._port}"
            threading.Thread(target=self._listening.serve_forever, args=(0.05,), daemon=True).start()

    def compare(self, run: str, expected: Mapping[str, Mapping[int, float]]) -> dict[str, int]:
        """Return how many rows of a run are missing, sent twice, or different.

        Args:
            run: the W&B id of the run.
            expected: the value at each step, by metric.
        """
        found = {"missing": 0, "twice": 0, "different": 0}
        for metric, values in expected.items():
            rows = [(int(str(row["step"])), row[metric]) for row in self.state.rows.get(run, []) if metric in row]
            times = Counter(step for step, _ in rows)
            found["missing"] += len(values.keys() - times.keys())
            found["twice"] += sum(count - 1 for count in times.values())
            found["different"] += sum(value != values.get(step) for step, value in rows)
        return found
