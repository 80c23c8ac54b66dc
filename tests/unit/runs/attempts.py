"""A command line and checkpoints that are not real, to begin attempts of a run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from pipeline.dataset.facts import DataFacts
from pipeline.dataset.manifest import Dataset
from pipeline.distributed.checkpoint import directory as checkpoint
from pipeline.runs.resume import Start, begin
from pipeline.runs.run import Run

CONFIG: dict[str, Any] = {
    "seed_everything": 7,
    "model": {"class_path": "A", "init_args": {"width": 8}},
    "data": {"class_path": "B", "init_args": {"dataset": "here", "workers": 2, "seed": 1}},
    "trainer": {
        "max_steps": 10,
        "max_epochs": -1,
        "max_time": None,
        "limit_train_batches": 1.0,
        "gradient_clip_val": 0.5,
    },
}


class CLI:
    """A parsed command line for a dataset, and the objects that it builds."""

    def __init__(self, dataset: Path, resume: str = "auto", allow: bool = False, **changed: object) -> None:
        data = SimpleNamespace(init_args=SimpleNamespace(dataset=dataset))
        trainer = SimpleNamespace(devices=1, num_nodes=3, accelerator="cpu")
        self.config = SimpleNamespace(resume=resume, data=data, trainer=trainer, allow_changes=allow)
        self.kept = {**CONFIG, **changed}
        self.parser = SimpleNamespace(dump=self.dump)
        self.model = SimpleNamespace(check_optimizer=lambda: self.calls.append("optimizer"), schedule=None)
        self.data = SimpleNamespace(steps_per_epoch=5, dataset=Dataset.open(dataset), facts=DataFacts(257))
        self.data.samples = lambda split: self.calls.append(split)
        self.calls: list[str] = []

    def dump(self, config: object, skip_none: bool, skip_validation: bool) -> str:
        assert config is self.config
        assert (skip_none, skip_validation) == (False, True)
        other = {"config": ["a.yaml"], "run": "one", "resume": "auto", "sweep": None, "allow_changes": True}
        return yaml.safe_dump({**self.kept, **other}, sort_keys=False)

    def build(self) -> tuple[object, object, object]:
        return self.model, self.data, None


def begin_again(run: Run, cli: CLI) -> Start:
    """Begin another attempt, as another process would."""
    return begin(Run(run.path), cli)


def save(run: Run, step: int) -> Path:
    made = run.checkpoints / checkpoint.checkpoint_name(step)
    made.mkdir(parents=True)
    files: dict[str, object] = {}
    text = json.dumps({"step": step, "files": files, "sha256": checkpoint._hash({"step": step, "files": files})})
    (made / checkpoint.MANIFEST).write_text(text)
    return made
