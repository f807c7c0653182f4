"""fairseq's dictionary, with a sentence turned into text by looking words up in a list, and with a mask symbol."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from fairseq.data import Dictionary, data_utils

from fairseq_diffusion.errors import UserError

MASK = "<mask>"
MOST = 2**63 - 1  # of a word, what a tensor of counts holds
SHOWN = 200  # characters of what fairseq says


class TableDictionary(Dictionary):
    """Gives the text that fairseq's gives, which takes the numbers out of a tensor one by one, and more than once."""

    mask_index: int | None = None

    @classmethod
    def load(cls, f: Any, *args: Any, **kwargs: Any) -> TableDictionary:
        """The dictionary in a file; its counts may be weights of a loss."""
        try:
            found = super().load(f, *args, **kwargs)
            if wrong := next((word for word, n in zip(found.symbols, found.count) if not 0 <= n <= MOST), None):
                raise ValueError(f"the count of {wrong!r} is {found.count[found.index(wrong)]}")
        except Exception as error:  # fairseq raises several kinds
            said = " ".join(str(error).split())
            raise UserError(
                f"the dictionary {f} cannot be read ({said[:SHOWN]}); it must have a word and its count in each line, "
                "as fairseq-preprocess wrote it"
            ) from error
        return found

    def add_mask(self) -> int:
        """The number of the mask symbol, entered behind all words of the data at the first call."""
        if self.mask_index is None:
            if MASK in self:
                raise UserError(
                    f"this model keeps the symbol {MASK} for words that are not written yet, but the data's own "
                    f"dictionary has it as entry {self.index(MASK)}; call that entry something else in "
                    "dict.LANGUAGE.txt (the binarised sentences stay as they are)"
                )
            self.mask_index = self.add_symbol(MASK, n=0)
        return self.mask_index

    def of_data(self) -> TableDictionary:
        """The dictionary as the data has it, without a mask symbol."""
        if self.mask_index is None:
            return self
        other = copy.deepcopy(self)
        for entries in (other.symbols, other.count):
            del entries[self.mask_index]
        del other.indices[MASK], other.mask_index
        return other

    def string(
        self,
        tensor: Any,
        bpe_symbol: str | None = None,
        escape_unk: bool = False,
        extra_symbols_to_ignore: Iterable[int] | None = None,
        unk_string: str | None = None,
        include_eos: bool = False,
        separator: str = " ",
    ) -> str:
        """Text of one sentence [L], a tensor or a list; or of several [B, L], one a line.

        As in fairseq, `unk_string` and `separator` are for single sentences only.
        """
        if torch.is_tensor(tensor) and tensor.dim() == 2:
            rows = (
                self.string(row, bpe_symbol, escape_unk, extra_symbols_to_ignore, None, include_eos) for row in tensor
            )
            return "\n".join(rows)
        unknown = self.unk_string(escape_unk) if unk_string is None else unk_string
        words = self._words(tensor, self._special_ids(extra_symbols_to_ignore, include_eos), unknown)
        return data_utils.post_process(separator.join(words), bpe_symbol)

    def _special_ids(self, extra: Iterable[int] | None, include_eos: bool) -> set[int]:
        """Numbers of the symbols that are left out."""
        special_ids = set(extra or ())
        if not include_eos:
            special_ids.add(self.eos())
        if hasattr(self, "bos_index"):
            special_ids.add(self.bos())
        return special_ids

    def _words(self, tokens: Any, special_ids: set[int], unknown: str) -> list[str]:
        """Words of tokens [L]; numbers beyond the table have fairseq's name for unknown words, whatever `unknown`
        is."""
        numbers = tokens.tolist() if hasattr(tokens, "tolist") else map(int, tokens)
        symbols, size, unk = self.symbols, len(self.symbols), self.unk()
        return [
            unknown if i == unk else symbols[i] if i < size else self.unk_word for i in numbers if i not in special_ids
        ]
