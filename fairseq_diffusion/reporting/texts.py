"""Text of tokens, made as fairseq-generate makes what it prints; and words joined as people write them."""

from __future__ import annotations

from typing import Any, Callable

from fairseq import utils
from fairseq_cli.generate import get_symbols_to_strip_from_output

from fairseq_diffusion.files.texts import Moses


class Texts:
    """From the tokens of a run to text, by its own flags: --post-process, --bpe, --tokenizer, --replace-unk."""

    def __init__(self, cfg: Any, task: Any, generator: Any):
        self.task, self.subset, self.post_process = task, cfg.dataset.gen_subset, cfg.common_eval.post_process
        self.bpe, self.tokenizer = task.build_bpe(cfg.bpe), task.build_tokenizer(cfg.tokenizer)
        self.bpe_name = self.post_process or name_of(cfg.bpe)
        self.tokenizer_name = name_of(cfg.tokenizer)
        self.align_dict = utils.load_align_dict(cfg.generation.replace_unk)
        self.ignored = get_symbols_to_strip_from_output(generator)

    def source(self, batch: dict[str, Any], row: int) -> str:
        """The words of a source sentence; joined, they are the line S-."""
        if self.align_dict is not None:
            return self._words(self._original("src", batch, row))
        dictionary = self.task.source_dictionary
        tokens = utils.strip_pad(batch["net_input"]["src_tokens"][row], dictionary.pad())
        return self._words(dictionary.string(tokens.int().cpu(), self.post_process))

    def reference(self, batch: dict[str, Any], row: int) -> str | None:
        """The words of a reference, <unk> as <<unk>>; joined, they are the line T-.  None where there is none."""
        if batch.get("target") is None:
            return None
        if self.align_dict is not None:
            return self._words(self._original("tgt", batch, row))
        tokens = utils.strip_pad(batch["target"][row], self.task.target_dictionary.pad())
        return self._words(self._string(tokens, escape_unk=True))

    def hypothesis(self, batch: dict[str, Any], row: int, hypothesis: dict[str, Any]) -> str:
        """The words of a hypothesis, as in the line H- but for --bpe; joined, they are the line D-."""
        text = self._string(hypothesis["tokens"])
        if self.align_dict is not None:
            source, unknown = self.joined(self.source(batch, row)), self.task.target_dictionary.unk_string()
            text = utils.replace_unk(text, source, hypothesis["alignment"], self.align_dict, unknown)
        return self._words(text)

    def joined(self, words: str) -> str:
        """Words joined by --tokenizer."""
        return self.tokenizer.decode(words) if self.tokenizer else words

    def _original(self, side: str, batch: dict[str, Any], row: int) -> str:
        return getattr(self.task.dataset(self.subset), side).get_original_text(int(batch["id"][row]))

    def _string(self, tokens: Any, **how: Any) -> str:
        dictionary = self.task.target_dictionary
        return dictionary.string(tokens.int().cpu(), self.post_process, extra_symbols_to_ignore=self.ignored, **how)

    def _words(self, text: str) -> str:
        return self.bpe.decode(text) if self.bpe else text


def detokeniser(texts: Any, language: str, pieces: str | None) -> tuple[Callable[[str], str], str]:
    """What joins words for raw references, and its name; `pieces` is the kind of word pieces that are left in them."""
    if texts.tokenizer:
        return texts.tokenizer.decode, f"--tokenizer {texts.tokenizer_name}"
    if "sentencepiece" in (pieces, texts.bpe_name):
        return str, "sentencepiece alone"
    return Moses(language or "en").text, f"sacremoses ({language or 'en'})"


def name_of(choice: Any) -> str | None:
    """The name of a part that fairseq's configuration chooses, itself a name or a section."""
    return choice if choice is None or isinstance(choice, str) else getattr(choice, "_name", None)
