"""Random models small enough to enumerate all their texts."""

import itertools

import torch

VOCAB = 5


class Table:
    """A random model whose next token depends on the last two; its state is the last token read."""

    def __init__(self, seed=0, vocab=VOCAB, sharpness=2.0):
        generator = torch.Generator().manual_seed(seed)
        self.vocab = vocab
        self.logits = sharpness * torch.randn(vocab + 1, vocab, vocab, generator=generator, dtype=torch.float64)

    def __call__(self, tokens, state):
        before = torch.full_like(tokens[:, :1], self.vocab) if state is None else state[0]
        before = torch.cat([before, tokens[:, :-1]], dim=1)
        return self.logits[before, tokens], (tokens[:, -1:],)

    def log_probability(self, prompt, text):
        whole = [*prompt, *text]
        logits, _ = self(torch.tensor([whole]), None)
        logs = logits[0].log_softmax(-1)
        return sum(logs[len(prompt) - 1 + i, token].item() for i, token in enumerate(text))


def prompts_of_unequal_lengths(vocab=VOCAB):
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(vocab, (length,), generator=generator).tolist() for length in (4, 1, 7, 2, 4)]


def every_text(vocab, longest, eos):
    """Yield all texts that end with the EOS token or are cut at the limit."""
    words = [token for token in range(vocab) if token != eos]
    for length in range(1, longest + 1):
        for text in itertools.product(words, repeat=length - 1):
            yield [*text, eos]
    yield from (list(text) for text in itertools.product(words, repeat=longest))


def repeats(text, n):
    grams = [tuple(text[at : at + n]) for at in range(len(text) - n + 1)]
    return len(set(grams)) < len(grams)
