"""What only a GPU can show: kernels, precisions side by side on the toy, then AR and our systems on a real corpus.

    python scripts/gpu_check.py kernels --out OUT
    python scripts/gpu_check.py precision --out OUT
    python scripts/gpu_check.py corpus --raw DIR --source de --target en --minutes 4 --out OUT   (call again to go on)

`--raw` holds {train,valid,test}.{source,target}, plain text, a sentence a line.  Every call prints as it goes and
writes one small JSON file into --out, with what it ran on.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gpu_kernels
import torch
from sacremoses import MosesTokenizer
from stages import Stage, StageFailed, program, run

import fairseq_diffusion
from fairseq_diffusion import compat, reporting
from fairseq_diffusion.kernels import choice
from fairseq_diffusion.toy.corpus import SPLITS, read_hypotheses

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples" / "toy"))
import chain  # noqa: E402

USER_DIR = shlex.quote(str(Path(fairseq_diffusion.__file__).parent))
PRECISIONS = {"fp32": "", "bf16": "--bf16", "fp16": "--fp16", "amp": "--amp"}
ADAM = "--optimizer adam --adam-betas (0.9,0.98) --no-epoch-checkpoints --log-format json --log-interval 50"
SIZE = "--encoder-layers 4 --decoder-layers 4 --dropout 0.2"
SYSTEMS = {
    "ar": "--task translation --arch transformer --criterion label_smoothed_cross_entropy --label-smoothing 0.1 "
    "--encoder-embed-dim 256 --decoder-embed-dim 256 --encoder-ffn-embed-dim 1024 --decoder-ffn-embed-dim 1024 "
    f"--encoder-attention-heads 4 --decoder-attention-heads 4 --share-decoder-input-output-embed {SIZE}",
    "dinoiser": "--task diffusion_translation --arch dinoiser_iwslt_de_en --criterion diffusion_loss --hidden 256 "
    f"--inner 1024 --heads 4 --store-ema --ema-fp32 --ema-decay 0.999 {SIZE}",
    "difformer": "--task diffusion_translation --arch difformer_iwslt_de_en --criterion diffusion_loss --hidden 256 "
    f"--inner 1024 --heads 4 --store-ema --ema-fp32 --ema-decay 0.999 {SIZE}",
}
ONE_PASS = (
    "diffglat_iwslt_de_en",
    "diffglat_iwslt_de_en_ctc",
    "diffglat_iwslt_de_en_dag",
    "da_transformer_iwslt_de_en",
)
SYSTEMS |= {
    arch: f"--task diffusion_translation --arch {arch} --criterion diffusion_loss --hidden 256 --inner 1024 --heads 4 "
    f"--glance-updates 20000 {SIZE}"
    for arch in ONE_PASS
}
FIVE_BY_FIVE = "--iter-decode-max-iter 20 --use-ema --iter-decode-with-beam 5 --noise-beam 5"
DECODINGS = {
    "AR, beam 5": ("ar", "--beam 5 --lenpen 1"),
    "DINOISER, CeDi": ("dinoiser", "--iter-decode-max-iter 20"),
    "DINOISER, DDIM": ("dinoiser", "--iter-decode-max-iter 20 --sampler ddim"),
    "DINOISER, CeDi, averaged weights, 5 x 5, two-level MBR": ("dinoiser", f"{FIVE_BY_FIVE} --selection mbr_two_level"),
    "Difformer, DDPM": ("difformer", "--iter-decode-max-iter 20"),
    "Difformer, DDPM, averaged weights, 5 x 5, MBR": ("difformer", f"{FIVE_BY_FIVE} --selection mbr"),
    "Difformer, DDPM, averaged weights, 5 x 5, rescored by AR": ("difformer:ar", f"{FIVE_BY_FIVE} --selection rescore"),
    **{arch: (arch, "") for arch in ONE_PASS},
    "diffglat_iwslt_de_en, 5 lengths": (ONE_PASS[0], "--iter-decode-with-beam 5 --selection joint"),
    "diffglat_iwslt_de_en_dag, beam 5": (ONE_PASS[2], "--path-search beam --beam 5"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kernels", "precision", "corpus"))
    parser.add_argument("--out", type=Path, required=True, help="where the JSON file goes")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu-check"), help="data, checkpoints and logs")
    parser.add_argument("--size", type=int, default=50_000, help="precision: sentences to train on")
    parser.add_argument("--updates", type=int, default=1500, help="precision: updates of each training")
    parser.add_argument("--raw", type=Path, help="corpus: folder of the raw text")
    parser.add_argument("--source", default="de", help="corpus: source language")
    parser.add_argument("--target", default="en", help="corpus: target language")
    parser.add_argument("--minutes", type=float, default=4, help="corpus: train each system so long, then decode")
    parser.add_argument("--cpu", action="store_true", help="try the script itself where there is no GPU")
    options = parser.parse_args()
    (options.work / "logs").mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        result = {"kernels": kernels, "precision": precision, "corpus": corpus}[options.what](options)
    except StageFailed as failure:
        print(f"gpu_check: {failure}", file=sys.stderr)
        return 1
    name = "cpu" if options.cpu else torch.cuda.get_device_name()
    record = {"device": name, "torch": torch.__version__, "flags": vars(options), "result": result}
    (options.out / f"{options.what}.json").write_text(json.dumps(record, indent=2, default=str) + "\n")
    return 0


def fairseq(options: argparse.Namespace, what: str, name: str, flags: str) -> str:
    """Run one of fairseq's programs in the working folder."""
    device = "--cpu" if options.cpu and what in ("train", "generate") else ""
    begun = time.time()
    printed = run(Stage(name, f"{program(f'fairseq-{what}')} {flags} {device}", options.work))
    print(f"  {name}: {time.time() - begun:.0f} s", flush=True)
    return printed


def curve(printed: str, kind: str) -> list[dict[str, Any]]:
    return [json.loads(record) for record in re.findall(rf"\| {kind} \| (\{{.*\}})", printed)]


# -- kernels --------------------------------------------------------------------------------------------------------


def kernels(options: argparse.Namespace) -> dict[str, Any]:
    """What kernels say and how long they take; without a GPU portable ones can be tried alone."""
    reason = choice.hindrance(torch.device("cpu" if options.cpu else "cuda"))
    if reason and not options.cpu:
        raise StageFailed(f"there are no kernels to check: {reason}; --cpu tries the script with the portable ones")
    rows = gpu_kernels.checked(options.cpu)
    return {"triton": reason or "used", "as_exact": all(row["as_exact_as_portable"] for row in rows), "rows": rows}


# -- precision ------------------------------------------------------------------------------------------------------


def precision(options: argparse.Namespace) -> dict[str, Any]:
    """Train and decode the toy in every precision; compare losses, scores, and outputs of one checkpoint."""
    work = options.work
    if not (work / "data-bin").exists():
        chain.prepare(work, chain.Recipe(size=options.size, test_size=300))
    system = f"{chain.SYSTEMS['DINOISER'].flags} {ADAM} --lr 2e-3 --lr-scheduler polynomial_decay"
    flags = f"data-bin --user-dir {USER_DIR} {system}"
    length = (
        f"--batch-size 128 --warmup-updates 200 --max-update {options.updates} --total-num-update {options.updates}"
    )
    names = ["fp32"] if options.cpu else list(PRECISIONS)
    result = {}
    for name in names:
        printed = fairseq(options, "train", f"train {name}", f"{flags} {length} {PRECISIONS[name]} --save-dir {name}")
        last = curve(printed, "valid")[-1]
        result[name] = {
            "valid_loss": float(last["valid_loss"]),
            "sigma_min": float(last["valid_sigma_min"]),
            "updates_per_second": float(curve(printed, "train")[-1]["train_ups"]),
        }
    reference = toy_outputs(options, "fp32", "fp32")
    for name in names:
        result[name]["valid_translations"] = toy_valid(options, name)
        if name not in ("fp32", "amp"):  # there is no decoding in AMP
            pairs = list(zip(toy_outputs(options, "fp32", name), reference))
            result[name]["same_output_as_fp32_for_one_checkpoint"] = sum(a == b for a, b in pairs) / len(pairs)
        print(f"  {name}: {result[name]}", flush=True)
    return result


def toy_outputs(options: argparse.Namespace, trained: str, decoded: str) -> list[str]:
    """Translations of the test set by the checkpoint of one precision, decoded in another."""
    how = PRECISIONS[decoded].replace("--amp", "")
    flags = f"data-bin --user-dir {USER_DIR} --task diffusion_translation --path {trained}/checkpoint_last.pt {how}"
    decoding = "--gen-subset test --batch-size 100 --iter-decode-max-iter 20 --remove-bpe"
    fairseq(options, "generate", f"decode {trained} in {decoded}", f"{flags} {decoding}")
    return hypotheses(options, f"decode {trained} in {decoded}")


def toy_valid(options: argparse.Namespace, name: str) -> float:
    """Share of valid translations by the checkpoint of one precision, decoded in its own."""
    if name != "fp32":  # which has been decoded
        toy_outputs(options, name, name)
    log = Stage(f"decode {name} in {name}", "", options.work).log.relative_to(options.work)
    command = f"{program('fairseq-diffusion')} toy score --json --corpus corpus --hyp {log}"
    return json.loads(run(Stage(f"score {name}", command, options.work)).splitlines()[-1])["valid"]


def hypotheses(options: argparse.Namespace, name: str) -> list[str]:
    """Detokenised best hypotheses, in corpus order, of a decoding that has run."""
    return read_hypotheses(Stage(name, "", options.work).log)


# -- a real corpus --------------------------------------------------------------------------------------------------


def corpus(options: argparse.Namespace) -> dict[str, Any]:
    """Train all of SYSTEMS, alike in size, for `--minutes` each, or go on; the report of each way to decode."""
    if not (options.work / "real-bin").exists():
        prepare(options)
    result: dict[str, Any] = {}
    schedule = "--lr 7e-4 --lr-scheduler inverse_sqrt --warmup-updates 2000"
    common = f"real-bin --user-dir {USER_DIR} --required-batch-size-multiple 1 {ADAM} {schedule}"
    for name, system in SYSTEMS.items():
        hours = options.minutes / 60 + hours_so_far(options.work / f"real-{name}" / "checkpoint_last.pt")
        limits = f"--max-tokens 12000 --stop-time-hours {hours:.4f} {'' if options.cpu else '--bf16'}"
        saving = f"--save-dir real-{name} --save-interval 20 --validate-interval 20"
        printed = fairseq(options, "train", f"train {name}", f"{common} {system} {limits} {saving}")
        result[name] = {"updates": curve(printed, "train")[-1]["train_num_updates"]}
    for name, (systems, flags) in DECODINGS.items():
        result[name] = decoded(options, name, systems.split(":"), flags)
        print(f"  {name}: {result[name]['scores']['sacrebleu']}", flush=True)
    return result


def decoded(options: argparse.Namespace, name: str, systems: list[str], flags: str) -> dict[str, Any]:
    """The report of decoding the test set; a second system rescores."""
    path = ":".join(f"real-{system}/checkpoint_last.pt" for system in systems)
    rescoring = "--iter-decode-with-external-reranker" if len(systems) > 1 else ""
    references = shlex.quote(str((options.raw / f"test.{options.target}").resolve()))
    where = f"real-bin --user-dir {USER_DIR} --task diffusion_translation --path {path} --gen-subset test"
    post = f"--batch-size 100 --remove-bpe --tokenizer moses -s {options.source} -t {options.target}"
    how = f"{flags} {rescoring} --raw-reference {references} --results-path results-{chain.slug(name)}"
    fairseq(options, "generate", f"decode {name}", f"{where} {post} {how}")
    return reporting.read(options.work / f"results-{chain.slug(name)}" / "generate-test.json")


def hours_so_far(checkpoint: Path) -> float:
    """What fairseq counts towards --stop-time-hours from earlier calls."""
    if not checkpoint.exists():
        return 0.0
    compat.allow_argparse_checkpoints()
    return torch.load(checkpoint, map_location="cpu")["extra_state"]["previous_training_time"] / 3600


def prepare(options: argparse.Namespace) -> None:
    """Moses tokens, BPE of 8,000 merges a side learnt on the training data, data-bin."""
    work = options.work
    sides = (options.source, options.target)
    for side in sides:
        for split in SPLITS:
            lines = (options.raw / f"{split}.{side}").read_text(encoding="utf-8").splitlines()
            (work / f"{split}.tok.{side}").write_text("".join(f"{line}\n" for line in tokenised(lines, side)))
    chain.binarise(work, sides, "{split}.tok.{side}", 8000, "real-bin", "--joined-dictionary --workers 4")


def tokenised(lines: Iterable[str], language: str) -> Iterable[str]:
    moses = MosesTokenizer(lang=language)
    return (moses.tokenize(line, return_str=True, escape=False) for line in lines)


if __name__ == "__main__":
    raise SystemExit(main())
