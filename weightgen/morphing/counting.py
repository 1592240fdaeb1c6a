"""How large a network is: its parameters, and the multiplications that one example takes."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from weightgen.architecture import Architecture


def count_macs(architecture: Architecture) -> int:
    """Multiply-accumulates of one forward pass over one example (an image, or eight tokens) of the whole network.

    Counted by torch on tensors without memory: matrix products, convolutions and attention; all else is small.

    Raises:
        ArchitectureError: if it is not known what the network reads.
    """
    examples = architecture.example_inputs()
    module = architecture.on_meta().eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*(example.to("meta") for example in examples))
    return counter.get_total_flops() // 2
