"""The attention and recurrent kernels that a training step runs, by the graph of its loss."""

import re
from collections import Counter

from torch import Tensor, nn
from torch.autograd.graph import Node

KERNELS = {
    "ScaledDotProductFlashAttention": "attention: flash",
    "ScaledDotProductFlashAttentionForCpu": "attention: flash (CPU)",
    "ScaledDotProductEfficientAttention": "attention: memory-efficient",
    "ScaledDotProductCudnnAttention": "attention: cuDNN",
    "ScaledDotProductFusedAttentionOverrideable": "attention: fused by the backend",
    "FlexAttentionAutogradOp": "attention: flex",
    "FlashAttention": "attention: flash, by lengths",
    "VarlenAttn": "attention: flash, by lengths",
    "CudnnRnn": "recurrence: cuDNN",
    "MiopenRnn": "recurrence: MIOpen",
    "MkldnnRnnLayer": "recurrence: oneDNN",
    "_Scan": "recurrence: scan",
}
"""By the name of the node, without the suffix `Backward`."""
COMPILED = "CompiledFunction"
ATTENTION = re.compile(r"aten\._(scaled_dot_product_\w+)\.default\(|(flex_attention)")  # in the code of the compiler


def kernels_of(loss: Tensor, model: nn.Module) -> dict[str, int]:
    """Return the kernels that computed a loss, and how often each ran.

    Args:
        loss: the loss of a training step, before its backward pass.
        model: the model that computed it.
    """
    nodes = _nodes(loss)
    found = Counter[str]()
    for name, times in nodes.items():
        if kernel := KERNELS.get(name):
            found[kernel] += times
    kinds = {kernel.split(":")[0] for kernel in found}
    recurrent = sum(isinstance(module, nn.RNNBase) for module in model.modules())
    if recurrent and "recurrence" not in kinds:
        found["recurrence: native, position by position"] = recurrent
    softmax = nodes["Softmax"] + nodes["SafeSoftmax"]
    if "attention" not in kinds and softmax and nodes["Bmm"]:
        found["attention: math, in several kernels"] = softmax
    if nodes[COMPILED]:
        found["compiled by torch.compile"] = nodes[COMPILED]
    return dict(found)


def _nodes(loss: Tensor) -> Counter[str]:
    """Return the number of the graph's nodes by name, without the suffix `Backward`."""
    seen: set[Node] = set()
    waiting = [loss.grad_fn]
    found = Counter[str]()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name().rpartition("::")[2].partition("Backward")[0]
        found[name] += 1
        if name == COMPILED:
            found.update(_compiled(node))
        waiting += [following for following, _ in node.next_functions]
    return found


def _compiled(node: Node) -> list[str]:
    """Return the kernels of attention that the code of a compiled function calls, as names of nodes."""
    graph = getattr(getattr(node, "_forward_cls", None), "compiled_fw", None)  # torch 2.13; else none is found
    calls = {
        match.group(1) or match.group(2) for match in ATTENTION.finditer(getattr(graph, "source_code", None) or "")
    }
    return ["FlexAttentionAutogradOp" if call == "flex_attention" else call.title().replace("_", "") for call in calls]
