"""State resets at document boundaries of packed rows, for any network.

Each document becomes a row of its own, so neither state nor attention crosses a boundary. Rows are grouped by
length (at most T, T/4, T/16, ...) into a fixed number of calls. Short documents are therefore not padded to the
longest, and every process makes the same calls.

Legend: B sequences, T positions, D features, S segments.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def read_documents(
    network: nn.Module, inputs: Float[Tensor, "B T D"], starts: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T D"]:
    """Return the outputs of a causal network whose state is reset before every position where `starts` is True.

    Args:
        network: maps `(inputs, state)` to `(outputs, state)`.
        inputs: rows of packed documents.
        starts: True at the first position of each document; position 0 of a row always counts as one.
    """
    rows, positions, width = inputs.shape
    opens = starts.clone()
    opens[:, 0] = True
    first = opens.flatten().nonzero().squeeze(1)  # (S,) first position of each segment in the flattened rows
    end = torch.tensor([rows * positions], device=first.device)
    lengths = torch.diff(first, append=end)
    flat = inputs.reshape(rows * positions, width)
    outputs = None
    longest = positions
    while longest:
        shorter = longest // 4
        mine = (lengths <= longest) & (lengths > shorter)
        here, read = _read(network, flat, first[mine], lengths[mine], longest)
        outputs = torch.zeros(flat.shape, dtype=read.dtype, device=flat.device) if outputs is None else outputs
        outputs = outputs.index_copy(0, here, read)
        longest = shorter
    assert outputs is not None
    return outputs.view(rows, positions, -1)


def _read(network: nn.Module, flat: Tensor, first: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Run the network on segments as padded rows; return their flat positions and the outputs there."""
    if not len(first):  # A row of zeros keeps the number of calls equal on every process.
        outputs, _ = network(flat.new_zeros(1, longest, flat.shape[-1]))
        return first, outputs[0, :0] + 0 * outputs.sum()
    steps = torch.arange(int(lengths.max()), device=flat.device)
    inside = steps < lengths[:, None]
    places = first[:, None] + steps
    outputs, _ = network(flat[places.clamp(max=len(flat) - 1)] * inside[..., None])
    return places[inside], outputs[inside]
