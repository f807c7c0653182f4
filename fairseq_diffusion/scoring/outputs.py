"""Outputs of systems, read from what fairseq-generate printed or from plain text, with the reports beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairseq_diffusion import reporting
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.files import generated
from fairseq_diffusion.files.generated import Hypothesis, Sentence
from fairseq_diffusion.files.texts import join_pieces, pieces_in, read_lines
from fairseq_diffusion.reporting.output import KIND

LEFT_TO_RIGHT = "SequenceGenerator"  # fairseq's decoders that call the network once a token
LEFT_OUT = ("kind", "scores", "speed")  # of a report
SHOWN = 5  # numbers of missing sentences that a message lists


@dataclass
class Output:
    """A system's translations, one for each line of the references."""

    name: str
    path: Path
    printed: list[str]  # pieces joined
    detokenised: list[str] | None = None  # by the --tokenizer of fairseq-generate
    report: dict[str, Any] = field(default_factory=dict)  # the one beside the file, without times and scores
    calls: float | None = None
    skipped: int = 0

    @property
    def steps(self) -> int | None:
        decoding = self.report.get("decoding", {})
        return decoding.get("steps", decoding.get("passes"))

    @property
    def languages(self) -> tuple[str, str] | None:
        """Source and target, as the data-bin calls them."""
        source, _, target = self.report.get("data", {}).get("languages", "").rpartition("-")
        return (source, target) if target else None


def name_and_path(spec: str) -> tuple[str, Path]:
    """Of ``NAME=FILE``, or of a file: its own name, or its folder's where fairseq chose the file's name."""
    name, equals, path = spec.partition("=")
    if not equals or Path(spec).exists():
        name, path = "", spec
    file = text_file(Path(path))
    own = file.absolute().parent.name if file.name.startswith("generate-") else file.stem
    return name or own, file


def text_file(path: Path) -> Path:
    """The file itself, or the one that fairseq-generate has written into a folder of --results-path."""
    if not path.is_dir():
        return path
    found = sorted(path.glob("generate-*.txt"))
    if len(found) != 1:
        there = f"holds {', '.join(file.name for file in found)}" if found else "holds no generate-SUBSET.txt"
        raise UserError(f"--hyp {path} is a folder that {there}; name the file to score")
    return found[0]


def read_output(name: str, path: Path, count: int) -> Output:
    """The translations of `count` sentences, as many as there are references."""
    lines = read_lines(path, "--hyp")
    if any(map(generated.is_generated, lines)):
        return from_log(name, path, count)
    if not any(line.strip() for line in lines):
        raise UserError(f"--hyp {path} is empty; was the decoding stopped?")
    if len(lines) != count:
        raise UserError(
            f"--hyp {path} has {len(lines)} lines, but there are {count} references; "
            "give one translation a line, for each sentence of that test set, in its order"
        )
    return Output(name, path, without_pieces(lines))


def from_log(name: str, path: Path, count: int) -> Output:
    sentences = {number: sentence for number, sentence in generated.read(path).items() if sentence.hypotheses}
    report = report_beside(path)
    skipped = check_complete(path, sentences, count, report)
    best = [sentences[number].hypotheses[0] if number in sentences else Hypothesis(0, "") for number in range(count)]
    printed = without_pieces([hypothesis.text for hypothesis in best])
    joined = without_pieces([hypothesis.detokenised or "" for hypothesis in best])
    has_joined = any(joined) and joined != printed  # without --tokenizer, D- lines only repeat the words of H-
    calls = calls_of(report.get("decoding", {}), list(sentences.values()))
    return Output(name, path, printed, joined if has_joined else None, report, calls, skipped)


def without_pieces(texts: list[str]) -> list[str]:
    """Texts with their word pieces joined."""
    kind = pieces_in(texts)
    return [join_pieces(text, kind) for text in texts]


def report_beside(log: Path) -> dict[str, Any]:
    """generate-SUBSET.json without times and scores; nothing where there is no report of ours."""
    path = log.with_suffix(".json")
    if not path.is_file() or KIND.encode() not in path.read_bytes():
        return {}
    report = reporting.read(path)
    return {key: value for key, value in report.items() if value is not None and key not in LEFT_OUT}


def check_complete(path: Path, sentences: dict[int, Sentence], count: int, report: dict[str, Any]) -> int:
    """The number of sentences that were skipped on purpose, by the report; other gaps are refused."""
    beyond = [number for number in sentences if number >= count]
    if beyond:
        raise UserError(
            f"--hyp {path} holds sentence {max(beyond)} (counted from 0), but there are {count} references; "
            "give the references of the subset that was decoded"
        )
    missing = [number for number in range(count) if number not in sentences]
    if missing and len(missing) != report.get("data", {}).get("skipped"):
        listed = ", ".join(map(str, missing[:SHOWN])) + (", ..." if len(missing) > SHOWN else "")
        raise UserError(
            f"--hyp {path} has no translation of {len(missing)} of {count} sentences: {listed} (counted from 0); "
            "was the decoding stopped, did it skip long sentences or a last small batch "
            "(--required-batch-size-multiple 1), or are these the references of another subset?"
        )
    return len(missing)


def calls_of(decoding: dict[str, Any], sentences: list[Sentence]) -> float | None:
    """Network calls of the decoder, mean of a candidate; of a left-to-right decoder, tokens and </s>."""
    if not str(decoding.get("decoder", "")).startswith(LEFT_TO_RIGHT):
        return decoding.get("calls")
    lengths = [len(sentence.hypotheses[0].word_scores) for sentence in sentences]
    return sum(lengths) / len(lengths) if all(lengths) else None
