"""Journal records as Weights & Biases data: metric rows, tables of samples, histograms and pictures."""

from collections import deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.runs.journal import CLOCK
from pipeline.runs.run import Run
from pipeline.tracking.journal_sync import ARTIFACTS, Record
from pipeline.tracking.shipping import Shipping

if TYPE_CHECKING:
    from wandb import Run as ClientRun

SAMPLES_SHOWN = 64  # rows in the table of samples; the whole table is sent each time


class Messages:
    """Sends journal records to the client's run `client`.

    Args:
        client: the object that `wandb.init` returned.
        run: the run of the records.
        shipping: sends the artifacts; None leaves them out.
    """

    def __init__(self, client: "ClientRun", run: Run, shipping: Shipping | None) -> None:
        self.client, self.run, self.shipping = client, run, shipping
        self.samples: deque[list[object]] = deque(maxlen=SAMPLES_SHOWN)

    def send(self, number: int, record: Record) -> None:
        """Send line `number` of the journal."""
        if record["kind"] in ARTIFACTS:
            if self.shipping is not None:
                self.shipping.publish(record)
            return
        row = getattr(self, f"_{record['kind']}")(record)
        clock = {name: record[name] for name in ("step", "tokens", "seconds", "attempt")}
        if "time" in record:  # when it was measured, not when it is sent
            clock["_timestamp"] = datetime.fromisoformat(record["time"]).timestamp()
        self.client.log({**row, **clock}, step=number, commit=True)

    def _metrics(self, record: Record) -> dict[str, Any]:
        return {name: value for name, value in record.items() if name not in (*CLOCK, "like")}

    def _samples(self, record: Record) -> dict[str, Any]:
        import wandb

        self.samples.extend([record["step"], one["prompt"], one["text"]] for one in record["samples"])
        return {"samples": wandb.Table(columns=["step", "prompt", "text"], data=list(self.samples))}

    def _gradients(self, record: Record) -> dict[str, Any]:
        import wandb

        return {
            f"gradients/{name}": wandb.Histogram(np_histogram=(one["counts"], one["edges"]))
            for name, one in record["gradients"].items()
        }

    def _diagnosis(self, record: Record) -> dict[str, Any]:
        import wandb

        found, row = record["diagnosis"], {}
        for name, place in (("gradient", "lag"), ("loss", "position")):
            data = [list(pair) for pair in enumerate(found[name])]
            row[f"diagnosis/{name}"] = wandb.Table(columns=[place, name], data=data)
        for name in ("gates", "attention"):
            if measured := found[name]:
                data = [[module, *each.values()] for module, each in measured.items()]
                row[f"diagnosis/{name}"] = wandb.Table(columns=["module", *next(iter(measured.values()))], data=data)
        return {**row, "diagnosis/effective_memory": found["memory"], "diagnosis/receptive_field": found["field"]}

    def _pictures(self, record: Record) -> dict[str, Any]:
        import wandb

        kinds: dict[str, Callable[[Path], object]] = {
            ".svg": lambda path: wandb.Html(path.read_text(), inject=False),
            ".png": lambda path: wandb.Image(str(path)),
            ".wav": lambda path: wandb.Audio(str(path)),
        }
        there = {name: self.run.path / file for name, file in record["pictures"].items()}
        return {name: kinds[path.suffix](path) for name, path in there.items() if path.is_file()}

    def _fault(self, record: Record) -> dict[str, Any]:
        return {f"fault/{record['fault']}": 1}
