"""Reports of real runs, of a small autoregressive model: nothing of them needs a diffusion model."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest
from commands import ENVIRONMENT, ROOT
from conftest import SIZES
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from sacrebleu import corpus_bleu
from support import call, hypotheses, lines

from fairseq_diffusion.cli.main import main
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.models.config import flag
from fairseq_diffusion.reporting import read, render
from fairseq_diffusion.reporting import run as run_module
from fairseq_diffusion.reporting.facts import facts_of

SMALL = "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16 --encoder-ffn-embed-dim 16"
MODEL = f"--arch transformer {SMALL} --encoder-attention-heads 2 --decoder-attention-heads 2"
TRAINING = "--optimizer adam --lr 1e-2 --cpu --batch-size 8 --max-epoch 20 --save-interval 10 --num-workers 0"
EVERY = "--required-batch-size-multiple 1"  # fairseq after 0.12.2 drops a last batch that is smaller
N = SIZES["test"]
MOSES = "--tokenizer moses -s a -t b"  # which fairseq wants to hear the languages of


@dataclass
class RawConfig(TranslationConfig):
    raw_reference: Optional[str] = flag(None, "raw references")


@register_task("translation_with_raw", dataclass=RawConfig)
class RawTask(TranslationTask):
    pass


@pytest.fixture(scope="module")
def ar(data: Path, tmp_path_factory: pytest.TempPathFactory, trains: None) -> Path:
    """The folder of a training of fairseq's own Transformer."""
    folder = tmp_path_factory.mktemp("ar")
    user = ["--user-dir", ROOT / "fairseq_diffusion", "--task", "translation"]
    call("train", data, *user, *MODEL.split(), *TRAINING.split(), "--save-dir", folder)
    return folder


def arguments(data: Path, path: Path, flags: str) -> list[Any]:
    usual = f"--gen-subset test --batch-size 4 --cpu --num-workers 0 --beam 2 --path {path}"
    user = ["--user-dir", ROOT / "fairseq_diffusion", "--task", "translation_with_raw"]
    return [data, *user, *usual.split(), *flags.split()]


def decode(data: Path, ar: Path, flags: str = f"--remove-bpe {EVERY}", name: str = "checkpoint_last.pt") -> str:
    return call("generate", *arguments(data, ar / name, flags))


def report(data: Path, ar: Path, tmp_path: Path, flags: str = f"--remove-bpe {EVERY}", **more: Any) -> dict[str, Any]:
    """From the JSON file, which says the same as the end of the text beside it."""
    results = tmp_path / "results"
    assert decode(data, ar, f"{flags} --results-path {results}", **more) == ""
    found = read(results / "generate-test.json")
    assert (results / "generate-test.txt").read_text().endswith(render(found) + "\n")
    return found


def block(output: str) -> str:
    *_, found, end = re.split(r"^\|-+\n", output, flags=re.MULTILINE)
    assert end == ""
    return found


@pytest.fixture
def raw(data: Path, ar: Path, tmp_path: Path) -> Path:
    """References that are the hypotheses as text, but for the third."""
    found = lines(decode(data, ar, f"--remove-bpe {MOSES} {EVERY}"), "D")
    texts = [found[str(i)][0][1] for i in range(N)]
    texts[3] = "Something else."
    (tmp_path / "raw.b").write_text("".join(f"{text}\n" for text in texts))
    return tmp_path / "raw.b"


@pytest.fixture
def unknown(data: Path, corpus: Path, tmp_path: Path) -> Path:
    """Data as text, with a word in the references that is in no dictionary."""
    folder = tmp_path / "unknown"
    folder.mkdir()
    for language in "ab":
        (folder / f"dict.{language}.txt").write_text((data / f"dict.{language}.txt").read_text())
        text = (corpus / f"test.{language}").read_text().replace("THE", "NO")
        (folder / f"test.a-b.{language}").write_text(text)
    return folder


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The recorders of the runs of a test."""
    found: list[Any] = []
    monkeypatch.setattr(run_module, "facts_of", lambda recorder: found.append(recorder) or facts_of(recorder))
    return found


# -- what it says


def test_the_block_ends_the_output(data: Path, ar: Path):
    output = decode(data, ar)
    found = block(output)
    assert re.search(rf"^\| sentences +{N} of {N} decoded$", found, re.MULTILINE)
    assert re.search(r"^\| beam +2$", found, re.MULTILINE) and "network calls" not in found
    assert len(hypotheses(output)) == N and output.count("| system") == 1


def test_facts_of_a_plain_run(data: Path, ar: Path, tmp_path: Path):
    found = report(data, ar, tmp_path, f"--remove-bpe {EVERY} --seed 7 --lenpen 0.5")
    assert (found["system"], found["task"]) == ("transformer", "translation_with_raw")
    (checkpoint,) = found["checkpoints"]
    assert checkpoint == {
        **{"path": str(ar / "checkpoint_last.pt"), "system": "transformer", "task": "translation"},
        **{"updates": 20 * SIZES["train"] // 8, "averaged": [], "ema": False},
    }
    assert found["decoding"] == {"decoder": "SequenceGenerator", "beam": 2, "lenpen": 0.5, "seed": 7}
    assert (found["data"]["directory"], found["data"]["languages"], found["data"]["skipped"]) == (str(data), "a-b", 0)
    assert found["environment"]["precision"] == "fp32" and "fairseq" in found["environment"]["fairseq"]
    speed = found["speed"]
    assert 0 < speed["inference_step"]["seconds"] < speed["end_to_end"]["seconds"] and speed["model"] is None


def test_skipped_sentences_show(data: Path, ar: Path, tmp_path: Path, raw: Path):
    """And count as empty against raw references, of which there is one for each sentence of the subset."""
    flags = "--skip-invalid-size-inputs-valid-test --max-source-positions 9"
    found = report(data, ar, tmp_path, f"--remove-bpe {EVERY} {flags} --raw-reference {raw}")
    printed = lines((tmp_path / "results" / "generate-test.txt").read_text(), "D")
    assert 0 < len(printed) < N
    assert (found["data"]["decoded"], found["data"]["skipped"]) == (len(printed), N - len(printed))
    assert "SKIPPED" in render(found) and f"{N - len(printed)} MISSING" in render(found)
    texts = [printed[str(i)][0][1] if str(i) in printed else "" for i in range(N)]
    score = found["scores"]["sacrebleu"]
    assert score["sentences"] == N and score["brevity_penalty"] < 1
    assert score["bleu"] == pytest.approx(corpus_bleu(texts, [raw.read_text().splitlines()]).score)
    assert found["scores"]["tokenised"]["sentences"] == len(printed)


def test_tokenised_bleu_is_of_the_printed_lines(data: Path, ar: Path, tmp_path: Path):
    found = report(data, ar, tmp_path)["scores"]["tokenised"]
    text = (tmp_path / "results" / "generate-test.txt").read_text()
    printed, wanted = lines(text, "H"), lines(text, "T")
    expected = corpus_bleu(
        *([printed[i][0][1] for i in printed], [[wanted[i][0][0] for i in printed]]), tokenize="none", force=True
    )
    assert found["bleu"] == pytest.approx(expected.score) and found["bleu"] > 0
    assert found["brevity_penalty"] == pytest.approx(expected.bp)
    assert found["length_ratio"] == pytest.approx(expected.ratio)
    assert "tok:none" in found["signature"] and found["bpe"] == "removed (subword_nmt)"


@pytest.mark.parametrize("flags", ["", "--remove-bpe", f"--remove-bpe --nbest 2 {MOSES}"])
def test_texts_are_those_that_fairseq_prints(unknown: Path, ar: Path, recorded: list[Any], flags: str):
    check_texts(recorded, decode(unknown, ar, f"--dataset-impl raw {flags} {EVERY}"), "H")
    assert all(text.startswith("<<unk>> ") for text in recorded[0].references.values())


def test_texts_by_bpe_are_those_that_fairseq_prints(
    data: Path, ar: Path, recorded: list[Any], monkeypatch: pytest.MonkeyPatch
):
    bpe = SimpleNamespace(decode=lambda text: text.replace(" ", "_"))
    monkeypatch.setattr(RawTask, "build_bpe", lambda self, cfg: bpe)
    check_texts(recorded, decode(data, ar, EVERY), "D")
    assert "THE_" in recorded[0].references[0]


def test_replaced_unknown_words_are_those_that_fairseq_prints(
    unknown: Path, ar: Path, tmp_path: Path, recorded: list[Any], monkeypatch: pytest.MonkeyPatch
):
    """fairseq's own generators give no alignment that --replace-unk can read; others may."""
    infer = TranslationTask.inference_step

    def inference_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = infer(self, *args, **kwargs)
        for best, *_ in found:
            best["tokens"][0], best["alignment"] = self.target_dictionary.unk(), [0] * len(best["tokens"])
        return found

    monkeypatch.setattr(RawTask, "inference_step", inference_step)
    (tmp_path / "aligned").write_text("".join(f"w{i} for{i}\n" for i in range(12)))
    check_texts(recorded, decode(unknown, ar, f"--dataset-impl raw --replace-unk {tmp_path / 'aligned'} {EVERY}"), "H")
    assert any(text.startswith("for") for text in recorded[0].hypotheses.values())
    assert all(text.startswith("NO ") for text in recorded[0].references.values())


def check_texts(recorded: list[Any], output: str, kind: str) -> None:
    """The best hypothesis of each sentence is in the lines of that `kind`, and its reference in the lines T-."""
    (recorder,) = recorded
    printed = {int(i): found[0][1] for i, found in lines(output, kind).items()}
    assert recorder.hypotheses == printed and len(printed) == N
    references = {i: recorder.texts.joined(text) for i, text in recorder.references.items()}
    assert references == {int(i): found[0][0] for i, found in lines(output, "T").items()}


def test_tokenised_bleu_does_not_see_the_detokenizer(data: Path, ar: Path, tmp_path: Path):
    """With --tokenizer fairseq prints joined references beside hypotheses that are not."""
    plain = report(data, ar, tmp_path)["scores"]["tokenised"]
    assert report(data, ar, tmp_path, f"--remove-bpe {MOSES} {EVERY}")["scores"]["tokenised"] == plain


def test_sacrebleu_against_raw_references(data: Path, ar: Path, tmp_path: Path, raw: Path):
    flags = f"--remove-bpe {EVERY} --raw-reference {raw}"
    plain = report(data, ar, tmp_path, flags)["scores"]["sacrebleu"]
    moses = report(data, ar, tmp_path, f"{flags} {MOSES}")["scores"]["sacrebleu"]
    printed = lines((tmp_path / "results" / "generate-test.txt").read_text(), "D")
    texts = [printed[str(i)][0][1] for i in range(N)]
    assert moses["bleu"] == pytest.approx(corpus_bleu(texts, [raw.read_text().splitlines()]).score)
    assert 0 < moses["bleu"] < 100 and plain["bleu"] == moses["bleu"]  # b is no language Moses knows more about
    assert (plain["detokenised"], moses["detokenised"]) == ("sacremoses (b)", "--tokenizer moses")
    assert re.match(r"nrefs:1\|case:mixed\|eff:no\|tok:13a\|smooth:exp\|version:", plain["signature"])
    assert plain["reference"] == str(raw) and plain["missing"] == 0


def test_the_best_of_several_hypotheses_is_scored(data: Path, ar: Path, tmp_path: Path):
    best = report(data, ar, tmp_path)["scores"]
    assert report(data, ar, tmp_path, f"--remove-bpe {EVERY} --nbest 2")["scores"] == best


def test_averaged_checkpoints_are_named(data: Path, ar: Path, tmp_path: Path):
    command = ["average", "--inputs", str(ar), "--last", "2", "--output", str(tmp_path / "mean.pt")]
    assert main(command) == 0
    found = report(data, tmp_path, tmp_path, name="mean.pt")
    assert found["checkpoints"][0]["averaged"] == [str(ar / f"checkpoint{i}.pt") for i in (20, 10)]
    assert "average of 2 checkpoints" in render(found) and str(ar / "checkpoint10.pt") in render(found)


def test_scores_do_not_need_the_printed_lines(data: Path, ar: Path, tmp_path: Path, raw: Path):
    flags = f"--remove-bpe {MOSES} {EVERY} --raw-reference {raw}"
    printed = report(data, ar, tmp_path, flags)
    quiet = report(data, ar, tmp_path, f"{flags} --quiet")
    assert quiet["scores"] == printed["scores"] and quiet["scores"]["sacrebleu"]["bleu"] > 0
    assert not hypotheses((tmp_path / "results" / "generate-test.txt").read_text())
    assert f"{N} of {N} decoded" in render(quiet) and "(--quiet)" in render(quiet)


def test_a_generator_describes_itself(data: Path, ar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    build = TranslationTask.build_generator

    def build_generator(self: Any, *args: Any, **kwargs: Any) -> Any:
        generator = build(self, *args, **kwargs)
        generator.describe = lambda: {
            **{"steps": 3, "calls": 2.5, "length_beam": 2, "noise_beam": 4, "oracle_length": True, "sampler": "s"},
            **{"model_seconds": 0.5, "sentences": N, "precision": "bf16"},
        }
        return generator

    monkeypatch.setattr(TranslationTask, "build_generator", build_generator)
    found = report(data, ar, tmp_path)
    assert set(found["decoding"]) == {"steps", "calls", "length_beam", "noise_beam", "oracle_length", "sampler"}
    assert found["speed"]["model"] == {"seconds": 0.5, "sentences_per_second": 2 * N}
    assert found["environment"]["precision"] == "bf16"
    assert "ORACLE" in render(found) and "beam 2 x noise beam 4 = 8" in render(found)


def test_a_shard_speaks_for_itself(data: Path, ar: Path, tmp_path: Path, raw: Path):
    flags = f"--remove-bpe {EVERY} --raw-reference {raw} --distributed-world-size 2 --results-path {tmp_path}"
    counts = []
    for rank in (0, 1):
        decode(data, ar, f"{flags} --distributed-rank {rank}")
        found = read(tmp_path / f"generate-test.shard-{rank}-of-2.json")
        counts.append(found["data"]["decoded"])
        assert found["scores"]["sacrebleu"]["sentences"] == counts[-1] and found["scores"]["sacrebleu"]["missing"] == 0
        assert found["data"]["skipped"] is None and f"shard {rank} of 2" in render(found)
    assert sum(counts) == N and min(counts) > 0


# -- what it must not do


@pytest.mark.parametrize("count", [N - 1, N + 1])
def test_raw_references_of_another_subset_are_refused_before_decoding(
    data: Path, ar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
):
    (tmp_path / "raw").write_text("a\n" * count)
    monkeypatch.setattr(RawTask, "inference_step", lambda *args, **kwargs: pytest.fail("decoding began"))
    with pytest.raises(UserError, match=f"raw has {count} lines, but the subset test has {N} sentences"):
        decode(data, ar, f"--raw-reference {tmp_path / 'raw'}")


def test_missing_raw_references_are_refused(data: Path, ar: Path, tmp_path: Path):
    with pytest.raises(UserError, match="--raw-reference .*nowhere cannot be read"):
        decode(data, ar, f"--raw-reference {tmp_path / 'nowhere'}")


def test_a_failing_report_leaves_the_translations(
    data: Path, ar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(recorder: Any) -> Any:
        raise RuntimeError("one\nH-2")

    monkeypatch.setattr(run_module, "facts_of", fail)
    decode(data, ar, f"{EVERY} --results-path {tmp_path}")
    text = (tmp_path / "generate-test.txt").read_text()
    assert len(hypotheses(text)) == N and text.endswith("| no report: RuntimeError: one H-2\n")
    assert not list(tmp_path.glob("*.json"))


def test_a_failing_score_leaves_the_report(data: Path, ar: Path, monkeypatch: pytest.MonkeyPatch):
    from fairseq_diffusion.reporting import scores

    monkeypatch.setattr(scores, "BLEU", lambda **options: 1 / 0)
    found = block(decode(data, ar))
    assert "tokenised BLEU  not available: ZeroDivisionError" in found and "| device" in found


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_an_earlier_run_is_moved_away_and_not_overwritten(
    data: Path, ar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Whatever of text, report and history it has; that of another subset stays."""
    report(data, ar, tmp_path)
    first = content(tmp_path / "results")
    (tmp_path / "results/generate-valid.txt").write_text("valid")
    report(data, ar, tmp_path, flags=f"{EVERY} --seed 3")
    folder = tmp_path / "results/replaced/generate-test-1"
    assert content(folder) == first and f"are in {folder}" in capsys.readouterr().err
    second = content(tmp_path / "results")
    report(data, ar, tmp_path)
    kept = {name: text for name, text in content(tmp_path / "results").items() if "replaced/generate-test-2" in name}
    assert [*kept.values()] == [second[Path(name).name] for name in kept] and len(kept) == 2
    assert (tmp_path / "results/generate-valid.txt").read_text() == "valid"


def test_an_interrupted_run_changes_nothing_of_an_earlier_one(
    data: Path, ar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """What it has translated is kept; a run that is killed also leaves parts, which are in nobody's way."""
    report(data, ar, tmp_path)
    results, earlier, batches, infer = tmp_path / "results", content(tmp_path / "results"), [], RawTask.inference_step

    def fail_at_the_second(task: Any, *args: Any, **kwargs: Any) -> Any:
        batches.append(args)
        return infer(task, *args, **kwargs) if len(batches) == 1 else 1 / 0

    monkeypatch.setattr(RawTask, "inference_step", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        decode(data, ar, f"--results-path {results}")
    assert content(results) == earlier
    monkeypatch.setattr(RawTask, "inference_step", fail_at_the_second)
    with pytest.raises(ZeroDivisionError):
        decode(data, ar, f"--results-path {results}")
    part = results / "generate-test.txt.partial"
    assert len(hypotheses(part.read_text())) == 4 and f"before this error is in {part}" in capsys.readouterr().err
    assert content(results) == {**earlier, part.name: part.read_text()}
    (results / "generate-test.json.partial").write_text("{")
    monkeypatch.setattr(RawTask, "inference_step", infer)
    report(data, ar, tmp_path)
    assert not list(results.glob("*.partial")) and content(results / "replaced/generate-test-1") == earlier


def test_a_file_of_the_same_name_is_not_replaced(data: Path, ar: Path, tmp_path: Path):
    (tmp_path / "generate-test.json").write_text("{}")
    with pytest.raises(UserError, match="which we did not write; take another --results-path"):
        decode(data, ar, f"--results-path {tmp_path}")
    assert (tmp_path / "generate-test.json").read_text() == "{}"


def test_generate_run_as_a_module_reports_too(data: Path, ar: Path):
    command = [sys.executable, "-m", "fairseq_cli.generate", *arguments(data, ar / "checkpoint_last.pt", EVERY)]
    command[command.index("translation_with_raw")] = "translation"
    result = subprocess.run(
        list(map(str, command)), env=ENVIRONMENT, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert f"{N} of {N} decoded" in block(result.stdout), result.stderr
