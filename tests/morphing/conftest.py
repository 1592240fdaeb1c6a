"""Networks at pico size whose norms, biases and weights are all different from one another."""

import pytest
import torch

from weightgen.architecture import Architecture
from weightgen.checkpoint import Card, Checkpoint

LLAMA = (
    "transformers/LlamaForCausalLM?hidden_size=32&num_hidden_layers=2&num_attention_heads=4&num_key_value_heads=2"
    "&intermediate_size=24&vocab_size=99"
)
BERT = (
    "transformers/BertForMaskedLM?vocab_size=99&hidden_size=16&num_hidden_layers=2&num_attention_heads=4"
    "&intermediate_size=18"
)
GPT2 = (
    "transformers/GPT2LMHeadModel?vocab_size=99&n_embd=16&n_layer=2&n_head=4&n_positions=12&bos_token_id=1"
    "&eos_token_id=1"
)


def random_checkpoint(recipe: str, seed: int = 0) -> Checkpoint:
    """A network of a recipe in which no norm is one and no bias zero, so that nothing hides an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Architecture.parse(recipe).build()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point() and tensor.dim() == 1:
                lowest = 0.6 if name.endswith(("running_var", "weight")) else -0.3
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.6 + lowest)
    return Checkpoint(Architecture.parse(recipe), module.state_dict(), Card(run="one", split="train"))


@pytest.fixture(scope="session")
def make():
    return random_checkpoint


@pytest.fixture(scope="session")
def recipes() -> dict[str, str]:
    return {"llama": LLAMA, "bert": BERT, "gpt2": GPT2}


@pytest.fixture(scope="session")
def digits() -> Checkpoint:
    """A network that was trained for a moment on the digits."""
    from weightgen.tasks import get_task

    task = get_task("digits")
    torch.manual_seed(0)
    architecture = Architecture.parse("weightgen/resnet?blocks=1,1&width=8&input=1,8,8")
    module = architecture.build().train()
    optimiser = torch.optim.AdamW(module.parameters(), 1e-2)
    images, labels = task.train()
    for _ in range(60):
        chosen = torch.randint(len(labels), (128,))
        loss = task.loss(module(images[chosen]), labels[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Checkpoint(architecture, module.state_dict(), Card(task="digits"))
