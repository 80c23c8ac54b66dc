"""Resets of state and attention at document boundaries of packed rows, for any network.

A network that can read all documents at once does; for any other, each document becomes a padded row of its own.

Legend: B sequences, T positions, D features.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.data.documents import Documents


@runtime_checkable
class ReadsDocuments(Protocol):
    """A network that reads rows of documents at once."""

    def read_documents(self, inputs: Float[Tensor, "B T D"], documents: Documents) -> Float[Tensor, "B T D"]:
        """Return the outputs of each document, as if it were read alone."""


def read_documents(network: nn.Module, inputs: Float[Tensor, "B T D"], documents: Documents) -> Float[Tensor, "B T D"]:
    """Return the outputs of a causal network that reads each document alone.

    Args:
        network: maps `(inputs, state)` to `(outputs, state)`.
        inputs: rows of packed documents.
        documents: where they are.
    """
    if isinstance(network, ReadsDocuments):
        return network.read_documents(inputs, documents)
    flat, outputs = inputs.flatten(0, 1), []
    for rows in documents.padded:
        read, _ = network(flat.index_select(0, rows.flatten()).view(*rows.shape, -1))
        outputs.append(read.flatten(0, 1))
    return torch.cat(outputs).index_select(0, documents.places).view_as(inputs)
