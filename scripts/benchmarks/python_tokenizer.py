"""A tokenizer of networks in Python and its inverse, of the usual kind: what the kernels are held against."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from weightgen.tokenizers.layout import Layout


def usual_tokenizer(network: Mapping[str, Tensor], chunk: int, alone: bool = False) -> tuple[Tensor, ...]:
    """A network to tokens, masks and positions as is usual: layer by layer in Python.

    It does what `tokenize_checkpoint` of SANE does (https://github.com/HSG-AIML/SANE, datasets/dataset_auxiliaries.py),
    which others have taken over: a bias is one more column, rows are padded to whole tokens, and each token has a mask
    and a position that is put together in a list. `alone` leaves out mask and positions, which the kernels do not make
    for each network either since a layout has them once.
    """
    tokens, masks, positions = [], [], []
    for layer, name in enumerate(name for name in network if name.endswith("weight")):
        rows = network[name].flatten(1)
        bias = network.get(name.replace("weight", "bias"))
        if bias is not None:
            rows = torch.cat([rows, bias[:, None]], dim=1)
        columns = -(-rows.shape[1] // chunk)
        padded = torch.zeros(len(rows), columns * chunk)
        padded[:, : rows.shape[1]] = rows
        tokens.append(padded.view(-1, chunk))
        if not alone:
            mask = torch.zeros(len(rows), columns * chunk)
            mask[:, : rows.shape[1]] = 1
            masks.append(mask.view(-1, chunk).bool())
            positions += [(layer, row) for row in range(len(rows)) for _ in range(columns)]
    if alone:
        return (torch.cat(tokens),)
    places = torch.tensor([(place, *position) for place, position in enumerate(positions)])
    return torch.cat(tokens), torch.cat(masks), places.to(torch.int16 if places.max() < 1 << 15 else torch.int32)


def usual_detokenizer(tokens: Tensor, positions: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse as is usual, `tokens_to_checkpoint` of SANE: a copy of a network, filled layer by layer.

    The tokens of a layer are sought by their positions, since these are all that a stored sequence comes with.
    """
    network = copy.deepcopy(dict(like))
    for layer, name in enumerate(name for name in like if name.endswith("weight")):
        shape = network[name].shape
        rows = tokens.index_select(0, torch.where(positions[:, 1] == layer)[0]).view(shape[0], -1)
        width = int(torch.prod(torch.tensor(shape)) / shape[0])
        network[name] = rows[:, :width].view(shape)
        if name.replace("weight", "bias") in network:
            network[name.replace("weight", "bias")] = rows[:, width]
    return network


def slices(tokens: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The least that Python can do: where each layer's tokens begin is known, and its rows are cut out and copied."""
    found, start = {}, 0
    names = list(layout.shapes)
    for weight, bias in zip(names[::2], names[1::2], strict=True):
        shape = layout.shapes[weight]
        width = torch.Size(shape[1:]).numel()
        count = shape[0] * -(-(width + 1) // layout.chunk)
        rows = tokens[start : start + count].reshape(shape[0], -1)
        found[weight], found[bias] = rows[:, :width].reshape(shape).clone(), rows[:, width].clone()
        start += count
    return found
