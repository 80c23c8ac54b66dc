"""A run that starts from the weights of another, under every strategy."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from tests.distributed.fixture_types import Fit, State
from tests.distributed.test_strategies import STRATEGIES, TRANSFORMER, WHOLE, assert_close, assert_equal, on

FREEZE = '["embedding.*", "*.0.*"]'


@pytest.fixture(scope="module")
def other_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare a dataset whose tokenizer has some characters of `corpus`, in other rows, and new ones."""
    import data_prep.text.command

    folder = tmp_path_factory.mktemp("other")
    (folder / "text.txt").write_text("\n".join(f"{i} ÄBC zebras quickly jump {i % 5} boxes" for i in range(60)))
    options = ["--documents", "line", "--tokenizer", "character", "--workers", "1", "--output", str(folder / "data")]
    assert data_prep.text.command.main([str(folder / "text.txt"), *options]) == 0
    return folder / "data"


def tokens_of(data: Path) -> dict[str, int]:
    found: dict[str, int] = Tokenizer.from_file(str(data / "tokenizer.json")).get_vocab()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_starts_from_the_same_weights_and_resumes_without_their_source(
    fit: Fit, state: State, corpus: Path, other_corpus: Path, tmp_path: Path, strategy: str
) -> None:
    """The first layer and the embedding, whose rows are matched by token, are frozen; layers are recomputed."""
    keys = [*WHOLE, "data.init_args.order", "shuffled", "trainer.max_steps", 4, "checkpoints.every_steps", 99]
    assert fit("base", *keys, model=TRANSFORMER) == 0
    base = state("base")["state_dict"]
    keys += ["from", "base", "freeze", FREEZE, "data.init_args.dataset", other_corpus]
    keys += ["execution.activation_checkpointing", "true"]
    assert fit("one", *keys, model=TRANSFORMER) == 0
    assert fit("straight", *keys, *on(strategy), model=TRANSFORMER) == 0
    assert_close(state("one"), state("straight"))
    assert fit("killed", *keys, *on(strategy), model=TRANSFORMER, die=(signal.SIGKILL, 1)) == 128 + signal.SIGKILL
    assert [path.name for path in (tmp_path / "runs/killed/checkpoints").glob("step*")] == ["step-00000000"]
    shutil.rmtree(tmp_path / "runs" / "base")
    assert fit("killed", *keys, *on(strategy), model=TRANSFORMER) == 0
    assert_equal(state("straight"), state("killed"))
    found, frozen = state("killed"), [name for name in base if ".0." in name]
    assert len(frozen) > 5
    for name in frozen:
        assert torch.equal(found["state_dict"][name], base[name])
    before, after = tokens_of(corpus), tokens_of(other_corpus)
    common = before.keys() & after.keys()
    assert 10 < len(common) < len(after)
    for name in ("embedding.weight", "output.weight"):  # tied
        for token in common:
            assert torch.equal(found["state_dict"][name][after[token]], base[name][before[token]])
    trained = sum(len(group["params"]) for group in found["optimizer_states"][0]["param_groups"])
    assert trained == len(base) - len(frozen) - 2
