"""`unroll cancel RUN`: take a run's job out of the queue; one that trains saves first and can be submitted again."""

from pipeline.arguments import Parser
from pipeline.commands.slurm import queue
from pipeline.errors import ConfigError


def main(argv: list[str]) -> int:
    """Cancel the jobs of runs.

    Raises:
        ConfigError: a run has no job in the queue, or Slurm refuses.
    """
    parser = Parser(prog="unroll cancel", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    queued = queue.queue()
    for name in parser.parse_args(argv).runs:
        job = queue.live(queue.submitted(name), queued)
        if job is None:
            raise ConfigError(f"run {name} has no job in the queue")
        queue.run_slurm_command("scancel", job.job)
        print(f"run {name}: job {job.job}, {job.state.lower()}, cancelled")
    return 0
