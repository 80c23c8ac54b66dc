"""Mutation testing: a module is changed at one place at a time, and its unit tests must fail each time.

The changes are those of mutmut's operators. mutmut's own runner never changes decorated functions or constants, and
does change error messages. This one imports the libraries once, then forks a process per change, in which the changed
source is imported in place of the file.

`modules.yaml` names the unit tests of each module; `survivors.yaml` lists changes that no test can notice and why.
"""

import argparse
import difflib
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from itertools import islice
from pathlib import Path
from typing import Any

import hypothesis
import libcst as cst
import libcst.matchers as m
import pytest
import yaml
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_assignment

FOLDER = Path(__file__).parent
REPOSITORY = FOLDER.parent.parent
RESULTS = REPOSITORY / ".mutants"  # a hash per change and outcome, so that an interrupted run continues
MARKERS = "not slow and not gpu and not data and not slurm and not benchmark"
COLUMNS = ("sampled", "noticed", "listed", "survived")
REQUIRED = 0.9  # of the sampled changes of a module are noticed or listed
LEFT = m.Annotation() | m.Decorator() | m.Import() | m.ImportFrom() | m.Raise() | m.Assert()
LEFT |= m.Expr(m.SimpleString() | m.ConcatenatedString()) | m.Call(m.Name("print") | m.Name("tell"))
LEFT |= m.Assign([m.AssignTarget(m.Name("__all__"))]) | m.AnnAssign(annotation=m.Annotation(m.Name("TypeAlias")))
# That zip is strict is an assertion, and the tests have one device.
LEFT |= (FIXED := m.Arg(keyword=m.Name("strict") | m.Name("device")))


class Changes(cst.CSTVisitor):
    """Collects (line, node, changed node), except in annotations, messages, documentation and assertions."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        self.found: list[tuple[int, cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if m.matches(node, LEFT):
            return False
        for kind, operator in mutation_operators:
            # What becomes None nearly always ends in a crash, which any test notices.
            if isinstance(node, kind) and operator is not operator_assignment:
                line = self.get_metadata(PositionProvider, node).start.line
                fixed = len(m.findall(node, FIXED | m.Name("None")))
                new = (each for each in operator(node) if len(m.findall(each, FIXED | m.Name("None"))) == fixed)
                self.found += [(line, node, changed) for changed in new]
        return True


def mutants(source: str, seed: int) -> Iterator[tuple[str, str, str]]:
    """Yield (lines before, lines after, changed source) in an order that depends on a seed and on each line alone."""
    wrapper, changes, lines = MetadataWrapper(cst.parse_module(source)), Changes(), source.splitlines()
    wrapper.visit(changes)
    code, ranked = wrapper.module.code_for_node, {}
    for line, node, changed in changes.found:
        key = f"{seed} {lines[line - 1]} {code(node)} {code(changed)}"
        ranked[hashlib.sha256(key.encode()).hexdigest()] = node, changed
    for _, (node, changed) in sorted(ranked.items()):
        mutated = wrapper.module.deep_replace(node, changed).code
        difference = [line for line in difflib.ndiff(lines, mutated.splitlines()) if line[0] in "+-"]
        before, after = (" ".join(line[2:].strip() for line in difference if line[0] == sign) for sign in "-+")
        yield before, after, mutated


class ChangedModule(MetaPathFinder, SourceFileLoader):
    """Imports one module from a text in place of its file."""

    def __init__(self, file: str, code: str) -> None:
        super().__init__(file.removesuffix(".py").replace("/", "."), str(REPOSITORY / file))
        self.code = code

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> Any:
        return compile(self.code, self.path, "exec")


def run_tests(file: str, code: str, tests: list[str], output: str) -> None:
    """Exit with pytest's status, 0 where no test failed."""
    os.setpgid(0, 0)
    for stream in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    sys.meta_path.insert(0, ChangedModule(file, code))
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]  # without the search for the smallest example
    hypothesis.settings.register_profile("mutants", database=None, derandomize=True, phases=phases)
    hypothesis.settings.load_profile("mutants")
    with tempfile.TemporaryDirectory() as folder:
        status = pytest.main(["-xqp", "no:cacheprovider", "-m", MARKERS, f"--basetemp={folder}/tests", *tests])
    sys.stdout.flush()
    os._exit(status)


def is_noticed(file: str, code: str, tests: list[str], output: str, timeout: float) -> bool:
    """Return whether the tests fail, crash or take too long in a forked process."""
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(file, code, tests, output))
    process.start()
    process.join(timeout)
    if process.is_alive():
        os.killpg(process.pid or 0, signal.SIGKILL)
    process.join()
    return process.exitcode != 0


def examine(file: str, tests: list[str], options: argparse.Namespace, known: set[str]) -> Counter[str]:
    """Run the tests of a module on a sample of its changes, print what survives and return the counts."""
    listed = (yaml.safe_load((FOLDER / "survivors.yaml").read_text(encoding="utf-8")) or {}).get(file, [])
    reasons = {(one["before"], one["after"]): one["reason"] for one in listed}
    source, *texts = ((REPOSITORY / name).read_text(encoding="utf-8") for name in (file, *tests))
    counts, timeout = Counter[str](), 0.0
    for before, after, code in islice(mutants(source, options.seed), options.number):
        noticed, survived = (hashlib.sha256(text.encode()).hexdigest() for text in (code, "".join([code, *texts])))
        if (before, after) not in reasons and not known & {noticed, survived}:
            if not timeout:
                begun = time.monotonic()
                if is_noticed(file, source, tests, options.output, 600):
                    sys.exit(f"{file}: its tests fail without any change: {' '.join(tests)}")
                timeout = 20 + 5 * (time.monotonic() - begun)
            found = noticed if is_noticed(file, code, tests, options.output, timeout) else survived
            known.add(found)
            with RESULTS.open("a", encoding="utf-8") as results:
                results.write(f"{found}\n")
        outcome = "listed" if (before, after) in reasons else "noticed" if noticed in known else "survived"
        counts.update(["sampled", outcome])
        if outcome == "survived":
            print(f"{file}:\n- before: {json.dumps(before)}\n  after: {json.dumps(after)}\n  reason:", flush=True)
    return counts


def main() -> int:
    """Print a table of the modules and return 1 where the tests of one notice too little."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", help="parts of the paths of modules (default: all)")
    parser.add_argument("--number", type=int, default=25, help="changes per module (default: 25)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--output", default=os.devnull, help="file for the output of the tests (default: none)")
    options = parser.parse_args()
    os.chdir(REPOSITORY)
    sys.path.insert(0, str(REPOSITORY))
    settings = yaml.safe_load((FOLDER / "modules.yaml").read_text(encoding="utf-8"))
    for library in settings["libraries"]:
        import_module(library)
    known = set(RESULTS.read_text(encoding="utf-8").split()) if RESULTS.exists() else set()
    table = {}
    for file, tests in settings["modules"].items():
        if not options.modules or any(part in file for part in options.modules):
            table[file] = examine(file, tests, options, known)
    print(f"{'module':36}" + "".join(f"{column:>10}" for column in COLUMNS))
    for file, counts in table.items():
        print(f"{file:36}" + "".join(f"{counts[column]:10}" for column in COLUMNS))
    return int(any(counts["survived"] > (1 - REQUIRED) * counts["sampled"] for counts in table.values()))


if __name__ == "__main__":
    sys.exit(main())
