"""The command line `unroll VERB ...`; each verb is imported only when it is called."""

import atexit
import os
import sys
from functools import partial

from pipeline.commands import imports
from pipeline.distributed import exit_code, launch, signals, slurm_environment

VERBS = {
    "prepare": ("data_prep", "prepare a dataset from raw files: `unroll prepare text SOURCE... --output data/NAME`"),
    "fit": ("pipeline.commands.fit", "train a run or resume it: `unroll fit --config configs/text/lstm.yaml`"),
    "plan": (
        "pipeline.commands.plan.command",
        "estimate memory per strategy and training time: `unroll plan CONFIG --nodes 2`",
    ),
    "submit": (
        "pipeline.commands.slurm.submit",
        "check a run and submit it to Slurm: `unroll submit CONFIG --nodes 2 --time 24:00:00`",
    ),
    "init": ("pipeline.commands.init", "write the shipped configs and Slurm scripts to a directory: `unroll init DIR`"),
    "status": ("pipeline.commands.slurm.status", "show queue state, step, loss, throughput and attempts of runs"),
    "logs": ("pipeline.commands.slurm.logs", "print the log of a run's job: `unroll logs -f RUN`"),
    "cancel": ("pipeline.commands.slurm.cancel", "cancel a run's job"),
    "doctor": ("pipeline.commands.doctor.command", "diagnose this node or cluster and suggest fixes"),
    "sync": ("pipeline.commands.sync", "upload runs to Weights & Biases: `unroll sync RUN`"),
    "validate": ("pipeline.commands.fit", "evaluate a run's best checkpoint on the validation split"),
    "test": ("pipeline.commands.fit", "evaluate a run's best checkpoint on the test splits: `unroll test RUN`"),
    "generate": ("pipeline.commands.generate.command", "generate text with a run: `unroll generate RUN --prompt TEXT`"),
    "play": ("pipeline.commands.play", "roll out policies in their environment: `unroll play RUN... --return R`"),
    "checkpoint": ("pipeline.commands.checkpoint", "verify, compare, export or convert checkpoints"),
    "verify-resume": (
        "pipeline.commands.verify_resume.command",
        "verify that an interrupted run ends like an uninterrupted one",
    ),
    "compare": (
        "pipeline.commands.compare.command",
        "compare runs in a table and an HTML page: `unroll compare RUN...`",
    ),
    "diagnose": (
        "pipeline.commands.diagnose",
        "measure the memory of runs: gradient by lag, receptive field, gates, attention",
    ),
    "architectures": (
        "pipeline.commands.architectures.command",
        "compare architectures on a small benchmark suite",
    ),
    "tournament": (
        "pipeline.commands.tournament.command",
        "train several architectures with one budget: `unroll tournament configs/tournament/builtin.yaml`",
    ),
    "reproduce": (
        "pipeline.commands.reproduce.command",
        "repeat a published result and compare the figures: `unroll reproduce ptb_kneser_ney`, `--list`",
    ),
    "tune": (
        "pipeline.commands.tune.command",
        "find the best learning rate, or other values: `unroll tune CONFIG --over KEY=log:1e-4:1e-2 --budget tokens=N`",
    ),
    "by-length": ("pipeline.commands.by_length", "score generated outputs by the length of their source"),
    "demo": ("pipeline.commands.demo", "run the whole pipeline in minutes on the built-in corpus"),
}

# Verbs that run a network in this process.
COMPUTING = ("fit", "validate", "test", "generate", "play", "diagnose", "architectures")

HELP = """usage: unroll VERB [OPTIONS]

Train sequence models and resume exactly where training was interrupted.

{verbs}

Run `unroll VERB --help` for details. Exit codes: 0 success, 2 config, 3 data, 4 checkpoint, 5 out of memory,
6 non-finite loss, 7 lost process, 8 hang, 75 stopped and saved (repeat the command), 1 any other error."""

TRAINING_HELP = """usage: unroll {verb} --config FILE.yaml [--config OVERLAY.yaml ...] [--run NAME] [--KEY VALUE ...]

  --config FILE       experiment, then overlays such as configs/run/ddp.yaml; later files override earlier ones
  --run NAME          train in runs/NAME (default: named after the first config: configs/text/lstm.yaml gives text-lstm,
                      your own mine.yaml gives mine)
  --resume auto|never continue the run (auto), or set the old run aside and start from scratch (never)
  --from SOURCE       start a new run from the weights of a run, a checkpoint, an exported model or FILE.safetensors;
                      without --config, the config is that of the run SOURCE
  --freeze PATTERN    do not train the parameters with these names, such as 'network.layers.0.*' (repeatable)
  --allow-changes     accept settings that change the results of the run, such as gradient clipping or precision
  --profile N         write a trace of N steps and of the memory of the GPU to runs/NAME/profile/
  --sweep E/P/ID      take the values of the run from a W&B sweep, as `wandb sweep` prints it; requires --run
  --KEY VALUE         set any value: --model.init_args.width 512 --trainer.max_steps 1000 --data.init_args.context 64
  --print_config      print the resolved config and exit
  --help-all          list every key; --model.help CLASS and --data.help CLASS list the arguments of a class

`unroll {verb} --run NAME` alone uses the config stored in the run."""

EVALUATION_HELP = """usage: unroll {verb} RUN [--KEY VALUE ...]

Evaluate the best checkpoint of RUN (a name under runs/, or a path) with the config stored in the run.

  --run RUN           another way to name the run
  --checkpoint WHICH  best, last, or the directory of a checkpoint (default: best)
  --json FILE         also write the scores to FILE
  --split NAME        of the test splits, evaluate only this one (`unroll test`)
  --cache N,L,T       mix a language model with a neural cache of N positions, weight L and sharpness T
  --config FILE       use this config instead; may be repeated, as for `unroll fit`
  --KEY VALUE         set any value: --data.init_args.dataset data/other --trainer.devices 1"""


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code; a reader that closes the pipe of the output is not an error."""
    try:
        try:
            return _main(sys.argv[1:] if argv is None else argv)
        finally:  # also when a parser exits after printing its help
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at exit
        return 0


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {verb:15}{about}" for verb, (_, about) in VERBS.items())))
        return 0
    verb, rest = arguments[0], arguments[1:]
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # for a user's own classes; last, so that no installed module is hidden
    if verb not in VERBS:
        return exit_code.report_error(f"unknown verb {verb!r}: expected one of {', '.join(VERBS)}", 2)
    return exit_code.of(partial(_run, verb, rest))


def _run(verb: str, rest: list[str]) -> int:
    module = VERBS[verb][0]
    if module == "pipeline.commands.fit":
        if not rest or {"-h", "--help"} & set(rest):
            print((TRAINING_HELP if verb == "fit" else EVALUATION_HELP).format(verb=verb))
            return 0 if rest else 2
        signals.install()  # before the import of torch, which takes seconds in which a signal would be lost
        atexit.register(signals.ignore_signals)  # the interpreter restores default handlers: they would change the code
        slurm_environment.set_rank_variables()
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports its start and stop, read with torch
        if launch.rank() == 0 and not any("help" in argument or "print_config" in argument for argument in rest):
            print(f"unroll {verb}: loading", flush=True)  # the import of torch takes seconds
        rest = [verb, *rest]
    computes = verb in COMPUTING and not {"-h", "--help"} & set(rest)
    if computes:
        imports.load_lightning()
    command = imports.load(module)
    if computes:
        flush_denormals()
    return int(command.main(rest))


def flush_denormals() -> None:
    """Flush denormal numbers (below 1e-38) to zero on the CPU, where arithmetic with them is many times slower.

    The setting is per thread, and new threads and forked processes inherit it from their creator. The main thread
    therefore sets it before OpenMP, gloo or the loader's workers start. The backward pass on the CPU runs in the
    calling thread.
    """
    import torch

    torch.set_flush_denormal(True)  # returns False, without other effect, where the processor lacks the setting


if __name__ == "__main__":
    sys.exit(main())
