"""A run without training: tokenizers of every kind, and a model that is a random table."""

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = ["the cat sat on the mat .", "naïve café – 日本語 🦊🦊 the fox", "Ωmega\tand\nline breaks  twice"]


def word_tokenizer():
    words = sorted({word for line in CORPUS for word in line.split()})
    vocabulary = {token: number for number, token in enumerate(["<eos>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<eos>"])
    return tokenizer


def character_tokenizer():
    characters = sorted({character for line in CORPUS for character in line})
    vocabulary = {token: number for number, token in enumerate(["<eos>", "<unk>", *characters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<eos>"])
    return tokenizer


def bpe_tokenizer(size=300):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_tokenizer():
    return bpe_tokenizer(size=257)


def metaspace_tokenizer():
    tokenizer = Tokenizer(models.Unigram([("<eos>", 0.0), ("<unk>", 0.0), ("▁the", -1.0), ("▁", -2.0)], 1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    pieces = [(letter, -3.0) for letter in sorted({letter for line in CORPUS for letter in line})]
    tokenizer.model = models.Unigram([("<eos>", 0.0), ("<unk>", 0.0), ("▁the", -1.0), ("▁", -2.0), *pieces], 1)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(["<eos>"])
    return tokenizer


class Babbler(torch.nn.Module):
    """A random table of next-token logits in place of a trained model."""

    reads, writes = "prompt", "text"

    def __init__(self, vocab_size):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("logits", torch.randn(vocab_size, vocab_size, generator=generator))

    def forward(self, tokens, state=None):
        return self.logits[tokens], (tokens[:, -1:],)
