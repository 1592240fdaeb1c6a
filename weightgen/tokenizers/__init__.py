"""Networks to tokens and back."""

from weightgen.tokenizers.behavioural import BehaviouralTokenizer, Cell
from weightgen.tokenizers.general import GeneralConfig, GeneralTokenizer
from weightgen.tokenizers.quantiser import QuantiserConfig
from weightgen.tokenizers.tokenizer import WeightTokenizer, tokenizer_for, tokenizers
from weightgen.tokenizers.tokens import WeightTokens

__all__ = [
    "BehaviouralTokenizer",
    "Cell",
    "GeneralConfig",
    "GeneralTokenizer",
    "QuantiserConfig",
    "WeightTokenizer",
    "WeightTokens",
    "tokenizer_for",
    "tokenizers",
]
