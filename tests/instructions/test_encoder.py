import pytest
import torch

from weightgen.errors import InstructionError, MissingDataError
from weightgen.instructions import (
    InstructionEncoder,
    InstructionEncoderConfig,
    PretrainedInstructionEncoder,
    Sentence,
    sentences,
)

TASKS = ("digits", "mnist", "mnist/3v8")
CONFIG = InstructionEncoderConfig(buckets=512, width=32, dimension=16, tasks=TASKS)
EXAMPLES = [one for task in TASKS for one in sentences(task, 200)]


@pytest.fixture(scope="module")
def fitted():
    encoder = InstructionEncoder(CONFIG)
    return encoder, encoder.fit(EXAMPLES, epochs=15)


def test_embeddings_are_unit_vectors_and_the_encoder_is_small():
    encoder = InstructionEncoder()
    embeddings = encoder(["a CNN for MNIST", "", "?!", "x" * 5000])
    assert embeddings.shape == (4, 64) and embeddings.dtype == torch.float32
    assert torch.allclose(embeddings.norm(dim=-1), torch.ones(4), atol=1e-5)
    assert encoder([]).shape == (0, 64)
    assert sum(parameter.numel() for parameter in encoder.parameters()) <= 300_000


def test_fitting_tells_tasks_and_families(fitted):
    _, measured = fitted
    assert measured["task_accuracy"] >= 0.8 and measured["family_accuracy"] >= 0.8


def test_near_instructions_are_more_similar_than_far_ones(fitted):
    encoder, _ = fitted
    with torch.no_grad():
        others = ["convnet for the MNIST digits", "MLP, sklearn 8x8 digits"]
        near, far = encoder.similarity(["a CNN for MNIST"], others)[0]
    assert near > far


def test_a_seed_gives_the_same_encoder_whatever_the_global_state():
    states = []
    for _ in range(2):
        torch.rand(3)
        encoder = InstructionEncoder(CONFIG)
        encoder.fit(EXAMPLES[::10], epochs=1, seed=7)
        states.append(encoder.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    other = InstructionEncoder(CONFIG)
    other.fit(EXAMPLES[::10], epochs=1, seed=8)
    assert not torch.equal(states[0]["buckets.weight"], other.state_dict()["buckets.weight"])


def test_fitting_leaves_the_global_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    InstructionEncoder(CONFIG).fit(EXAMPLES[::20], epochs=1)
    assert torch.equal(torch.rand(1), expected)


def test_weights_pass_from_one_encoder_to_another(fitted):
    encoder, _ = fitted
    twin = InstructionEncoder(CONFIG, seed=1)
    twin.load_state_dict(encoder.state_dict())
    assert torch.equal(twin(["tiny MLP"]), encoder(["tiny MLP"]))


def test_what_cannot_be_trained_on_is_refused():
    with pytest.raises(InstructionError, match="cifar"):
        InstructionEncoder(CONFIG).fit([Sentence("a net", "cifar10", None)] * 20)
    with pytest.raises(InstructionError, match="too few"):
        InstructionEncoder(CONFIG).fit(EXAMPLES[:3])
    with pytest.raises(InstructionError):
        InstructionEncoderConfig(buckets=0)


def test_a_pretrained_text_model_can_take_its_place(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "small", "cnn", "mlp", "for", "mnist", "digits"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    encoder = PretrainedInstructionEncoder(tmp_path / "model").train()
    texts = ["a small cnn for mnist", "mlp", "digits " * 50]
    embeddings = encoder(texts)
    assert embeddings.shape == (3, encoder.dimension) == (3, 16)
    assert torch.allclose(embeddings.norm(dim=-1), torch.ones(3), atol=1e-5)
    assert torch.allclose(embeddings[1], encoder(["mlp"])[0], atol=1e-5), "padding must not matter"
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder([]).shape == (0, 16)


def test_a_missing_text_model_is_named(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(MissingDataError, match=str(tmp_path)):
        PretrainedInstructionEncoder(tmp_path)
