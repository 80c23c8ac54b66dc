"""The command line: `unroll VERB ...`, each verb imported only when it is called."""

import importlib
import sys
from functools import partial

from pipeline.distributed import exit_code, signals, slurm_environment

VERBS = {
    "prepare": ("data_prep", "raw text -> dataset: `unroll prepare text SOURCE... --output data/NAME`"),
    "fit": ("pipeline.commands.fit", "train, or continue, a run: `unroll fit --config configs/text/lstm.yaml`"),
    "plan": (
        "pipeline.commands.plan.command",
        "what a run will take: memory by strategy, time: `unroll plan CONFIG --nodes 2`",
    ),
    "submit": (
        "pipeline.commands.slurm.submit",
        "check a run and hand it to Slurm: `unroll submit CONFIG --nodes 2 --time 24:00:00`",
    ),
    "status": ("pipeline.commands.slurm.status", "queue, step, loss, rate and attempts of runs"),
    "logs": ("pipeline.commands.slurm.logs", "what a run's job said: `unroll logs -f RUN`"),
    "cancel": ("pipeline.commands.slurm.cancel", "take a run's job out of the queue"),
    "doctor": ("pipeline.commands.doctor.command", "what on this node or cluster would make a run fail, and the mend"),
    "sync": (
        "pipeline.commands.sync",
        "send runs to Weights & Biases from a machine that reaches it: `unroll sync RUN`",
    ),
    "validate": ("pipeline.commands.fit", "measure a run's best checkpoint on the validation split"),
    "test": ("pipeline.commands.fit", "measure a run's best checkpoint on the test split"),
    "generate": ("pipeline.commands.generate.command", "write text with a run: `unroll generate RUN --prompt TEXT`"),
    "play": ("pipeline.commands.play", "play trained policies in their environment: `unroll play RUN... --return R`"),
    "checkpoint": ("pipeline.commands.checkpoint", "verify, compare, export or convert checkpoints"),
    "verify-resume": (
        "pipeline.commands.verify_resume.command",
        "does an experiment, stopped and continued, end like the straight one?",
    ),
    "compare": (
        "pipeline.commands.compare.command",
        "runs side by side, as a table and a page: `unroll compare RUN...`",
    ),
    "diagnose": (
        "pipeline.commands.diagnose",
        "what runs remember: gradient by lag, receptive field, gates, attention",
    ),
    "architectures": (
        "pipeline.commands.architectures",
        "what a lecture asks of every architecture, measured, as a table",
    ),
    "tournament": (
        "pipeline.commands.tournament.command",
        "every architecture, one dataset, one budget: `unroll tournament configs/tournament/builtin.yaml`",
    ),
    "by-length": ("pipeline.commands.by_length", "scores of what was written from short sources and from long ones"),
    "demo": ("pipeline.commands.demo", "all of it in minutes, on the built-in corpus"),
}

# verbs that run a network in this process
COMPUTING = ("fit", "validate", "test", "generate", "play", "diagnose", "architectures")

HELP = """usage: unroll VERB [OPTIONS]

Train sequence models; lose nothing when they are stopped.

{verbs}

`unroll VERB --help` tells more. Exit codes: 0 done, 2 config, 3 data, 4 checkpoint, 5 memory, 6 not
finite, 7 lost process, 8 hang, 75 stopped and saved (give the same command again), 1 anything else."""

TRAINING_HELP = """usage: unroll {verb} --config FILE.yaml [--config OVERLAY.yaml ...] [--run NAME] [--KEY VALUE ...]

  --config FILE       an experiment, then overlays such as configs/run/ddp.yaml; later files win
  --run NAME          the run's directory is runs/NAME (default: from the name of the first config)
  --resume auto|never auto continues the run where it stands; never starts anew and keeps the old run aside
  --sweep E/P/ID      a sweep of W&B, as `wandb sweep` prints it, chooses values for the run that --run names
  --KEY VALUE         any value: --model.init_args.width 512 --trainer.max_steps 1000 --data.init_args.context 64
  --print_config      the resolved config, and nothing else
  --help-all          every key; --model.help CLASS and --data.help CLASS tell what a class takes

`unroll {verb} --run NAME` alone uses the config kept in the run."""


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {verb:15}{about}" for verb, (_, about) in VERBS.items())))
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        return exit_code.report_error(f"no verb {verb!r}: one of {', '.join(VERBS)}", 2)
    return exit_code.of(partial(_run, verb, rest))


def _run(verb: str, rest: list[str]) -> int:
    module = VERBS[verb][0]
    if module == "pipeline.commands.fit":
        if not rest or {"-h", "--help"} & set(rest):
            print(TRAINING_HELP.format(verb=verb))
            return 0 if rest else 2
        signals.install()  # before torch is imported: a signal in those seconds is not lost
        slurm_environment.set_rank_variables()
        rest = [verb, *rest]
    if verb in COMPUTING and not {"-h", "--help"} & set(rest):
        flush_denormals()
    return int(importlib.import_module(module).main(rest))


def flush_denormals() -> None:
    """Replace numbers below 1e-38 by zero on the CPU, where arithmetic with them is many times slower.

    The processor keeps this setting for each thread, and a new thread or a forked process takes that of the thread that
    makes it. So the main thread sets it before any other is made: those of OpenMP in the first parallel operation, of
    gloo, of the loader's workers. The backward pass on the CPU runs in the thread that calls it.
    """
    import torch

    torch.set_flush_denormal(True)  # False, and nothing else happens, on a processor that has no such setting


if __name__ == "__main__":
    sys.exit(main())
