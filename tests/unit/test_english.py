"""Prose in the repository is plain technical English: words that programs and their parts cannot do are not used.

Scanned are comments, docstrings and other strings with a blank in them (help, errors, log lines) of Python files, and
comments of YAML files, shell scripts and all of the pages.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent.parent
UNITS = (
    r"nats?|bits?|bytes?|tokens?|samples?|steps?|GB|MB|kB|seconds?|micro-batch(?:es)?|process(?:es)?|tasks?|GPUs?|"
    r"values?|rows?|lines?|words?|clips?|images?|frames?|sequences?|epochs?|minutes?|cores?|checkpoints?|times"
)
PERS = (
    r"step|token|byte|second|node|process|sequence|epoch|sample|minute|row|line|word|clip|image|frame|core|"
    r"micro-batch|task|GPU|rank|split|series|text|character|hour|day|year|run|pixel|value"
)
# what is written, and what is written instead
FORBIDDEN = {
    r"\b(?:tells?|telling|told)\b": "print, report, name, distinguish",
    r"\b(?:hears?|heard|hearing)\b": "receive, read, take as input",
    r"\b(?:wants?|wanted|wanting)\b": "require, expect",
    r"\b(?:says?|saying|said)\b": "state, print, report, specify",
    r"\b(?:asks?|asked|asking)\b": "request, require, call",
    r"\b(?:mends?|mended|mending)\b": "fix",
    r"\bspoil(?:s|ed|ing|t)?\b": "corrupt, damage",
    r"\b(?:wish(?:es|ed)?|hopes?|knows)\b": "state the fact",
    r"\b(?:is|was|are|were) no (?!longer\b|more\b|different\b|better\b|worse\b)\w+": "is not a ...",
    r"\b(?:go|goes|going|went) on\b": "continue",
    r"\bgo(?:es)? back\b": "return, roll back",
    r"\bstands?\b(?! for\b)": "is, is stored, appears",
    r"\bso many\b": "N",
    r"\bof the house\b|\bin the house\b|\bthis house\b": "of the project, of the package",
    r"\bby heart\b": "overfitted, memorized",
    r"\banew\b": "again",
    r"\btold apart\b|\btell apart\b": "distinguished, classified",
    r"\bend marks?\b": "EOS (end-of-sequence token)",
    r"\bcounted (?:\d-gram|n-gram|baseline)": "Kneser-Ney n-gram baseline",
    r"\bas it were\b|\bof itself\b|\bin turn, and\b": "leave it out",
    rf"\b(?:{UNITS}) an? (?:{PERS})\b": "per",
}
# true uses: the whole match with what stands around it
TRUE_USES = re.compile(r"Show,? (?:Attend )?and\s+Tell|model\.saying|\{saying:")

PYTHON = sorted(
    path
    for folder in ("pipeline", "data_prep", "tests")
    for path in (REPOSITORY / folder).rglob("*.py")
    if path != Path(__file__)
)
OTHERS = sorted(
    path
    for pattern in ("configs/**/*.yaml", "slurm/*", "docs/**/*.md", "*.md", "Makefile", ".ci/run", "pyproject.toml")
    for path in REPOSITORY.glob(pattern)
    if path.is_file()
)


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """The line and the text of what people read in a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield node.lineno, node.value
        return
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.startswith("```")
        if path.suffix == ".md" and not fenced:
            yield number, line
        elif path.suffix != ".md" and "#" in line:
            yield number, line.partition("#")[2]


def findings(path: Path) -> list[str]:
    """What a file should not say, as file:line and what to write."""
    found = []
    for line, text in prose_of(path):
        for pattern, instead in FORBIDDEN.items():
            for match in re.finditer(pattern, text, re.IGNORECASE):
                around = text[max(0, match.start() - 30) : match.end() + 30]
                if not TRUE_USES.search(around):
                    at = line + text[: match.start()].count("\n")
                    found.append(f"{path.relative_to(REPOSITORY)}:{at}: {match.group()!r}: {instead}")
    return found


@pytest.mark.parametrize("path", [*PYTHON, *OTHERS], ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_prose_is_plain_english(path: Path) -> None:
    assert findings(path) == []


def test_the_scan_finds_what_it_should(tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text('raise ValueError("speed=2 is no share, and wants nats a token")  # told\n')
    texts = [text for _, text in prose_of(tmp_path / "some.py")]
    found = [pattern for pattern in FORBIDDEN for text in texts if re.search(pattern, text)]
    assert len(found) == 4


LONGEST = 25  # words of a sentence that does not list things; code and what stands in parentheses are not counted
LISTS = 3  # commas of a sentence that lists things


def sentences_of(text: str) -> Iterator[str]:
    """The sentences of a page outside of code, tables and headings."""
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-#|!]|\d+\. ))", re.sub(r"```.*?```", "\n\n", text, flags=re.S)):
        if not block.lstrip().startswith(("#", "|", "!", "---")):
            block = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "X", block))
            yield from re.split(r"[.:;!?](?:\s+|$)", re.sub(r"\([^()]*\)", "", block))


@pytest.mark.parametrize("path", [each for each in OTHERS if each.suffix == ".md"], ids=lambda path: path.stem)
def test_sentences_of_pages_are_short(path: Path) -> None:
    sentences = [" ".join(each.split()) for each in sentences_of(path.read_text(encoding="utf-8"))]
    long = [each for each in sentences if len(re.findall(r"\w[\w'.-]*", each)) > LONGEST and each.count(",") < LISTS]
    assert long == []


def test_a_long_sentence_is_found() -> None:
    assert max(len(each.split()) for each in sentences_of("A short one. " + "word " * 26 + "ends (with this).")) == 27
