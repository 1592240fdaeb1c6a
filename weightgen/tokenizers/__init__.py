"""Networks to tokens and back."""

from weightgen.tokenizers.tokenizer import Cell, WeightTokenizer, WeightTokens, measure

__all__ = ["Cell", "WeightTokenizer", "WeightTokens", "measure"]
