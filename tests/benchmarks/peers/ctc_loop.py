"""A plain PyTorch loop: CTC over bidirectional LSTMs on log-mel features, its clips ready in memory."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from clock import Clock
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

work = json.loads(Path(sys.argv[1]).read_text())
torch.set_num_threads(1)
torch.set_flush_denormal(True)
torch.manual_seed(1)
held = np.load(work["batches"])
width, bands, hop, window = work["width"], work["bands"], work["hop"], work["window"]


class Recogniser(nn.Module):
    """Features, two convolutions that halve the rate, two projected bidirectional LSTMs, an output layer."""

    def __init__(self, outputs):
        super().__init__()
        self.register_buffer("mel", torch.from_numpy(held["mel"]))
        self.register_buffer("hann", torch.hann_window(window))
        self.convolutions = nn.ModuleList([nn.Conv1d(bands, width, 3, 2, 1), nn.Conv1d(width, width, 3, 2, 1)])
        self.first = nn.Linear(width, width)
        self.layers = nn.ModuleList(nn.LSTM(width, width, batch_first=True, bidirectional=True) for _ in range(2))
        self.joins = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(2))
        self.output = nn.Linear(width, outputs)

    def features(self, waves, frames):
        waves = functional.pad(waves, (window - hop, -waves.shape[1] % hop))
        spectrum = torch.stft(waves, window, hop, window=self.hann, center=False, return_complex=True).abs().square()
        values = (spectrum.transpose(1, 2) @ self.mel).clamp(min=1e-5).log()
        inside, counts = torch.arange(values.shape[1]) < frames[:, None], frames[:, None, None]
        values = (values - (values * inside[..., None]).sum(1, keepdim=True) / counts) * inside[..., None]
        return values / (values.square().sum((1, 2), keepdim=True) / (counts * bands) + 1e-3).sqrt()

    def forward(self, waves, lengths):
        frames = -(-lengths // hop)
        values, lengths = self.features(waves, frames).transpose(1, 2), (frames + 3) // 4
        for convolution in self.convolutions:
            values = functional.gelu(convolution(values))
        values = self.first(values.transpose(1, 2))
        for layer, join in zip(self.layers, self.joins, strict=True):
            packed = pack_padded_sequence(values, lengths, batch_first=True, enforce_sorted=False)
            values = join(pad_packed_sequence(layer(packed)[0], batch_first=True)[0])
        return self.output(values).log_softmax(-1), lengths


model, clock = Recogniser(work["vocab_size"] + 1), Clock(work)
optimizer = torch.optim.AdamW(model.parameters(), fused=True, **work["optimizer"])
for step in range(work["steps"]):
    waves, lengths, targets = (torch.from_numpy(held[f"{name}{step % work['held']}"]) for name in ("w", "l", "t"))
    logs, frames = model(waves, lengths)
    counts = (targets >= 0).sum(1)
    loss = functional.ctc_loss(logs.transpose(0, 1), targets.clamp(min=0), frames, counts, work["vocab_size"], "sum")
    loss = loss / (counts + 1).sum()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    clock.step(loss.item())
clock.write(sum(parameter.numel() for parameter in model.parameters()))
