"""`unroll cancel RUN...`: cancel the jobs of runs; a run in training saves first and can be submitted again."""

from pipeline.arguments import Parser
from pipeline.commands.slurm import queue
from pipeline.errors import ConfigError


def main(argv: list[str]) -> int:
    """Cancel the jobs of runs.

    Raises:
        ConfigError: a run has no job in the queue, or Slurm rejects the command.
    """
    parser = Parser(prog="unroll cancel", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="name of a run under runs/, or its path")
    runs = parser.parse_args(argv).runs
    queued = queue.queue()
    for name in runs:
        run = queue.submitted(name)
        job, prepared = queue.live(run, queued), queue.preparation(run)
        if job is None:
            raise ConfigError(f"run {name} has no job in the queue")
        queue.run_slurm_command("scancel", job.job)
        print(f"run {name}: job {job.job}, {job.state.lower()}, cancelled")
        if prepared and (preparation := queue.job_of(prepared)) in queued:  # other runs may wait for it
            print(f"{prepared.stem} continues. Cancel it with `scancel {preparation}`")
    return 0
