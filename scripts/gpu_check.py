"""Checks that need a GPU: kernels, precisions side by side on the toy, then AR and our systems on a real corpus.

    python scripts/gpu_check.py kernels --out OUT
    python scripts/gpu_check.py precision --out OUT
    python scripts/gpu_check.py corpus --raw DIR --source de --target en --minutes 4 --out OUT

`--raw` holds {train,valid,test}.{source,target}, plain text, a sentence a line.  Every call prints as it goes and
writes one small JSON file into --out, with the device.  A call that was killed continues when it is repeated.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpu_kernels
import torch

from fairseq_diffusion import reporting
from fairseq_diffusion.errors import UserError
from fairseq_diffusion.kernels import choice
from fairseq_diffusion.toy.corpus import read_hypotheses, read_language, read_split
from fairseq_diffusion.toy.score import score

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "examples" / "toy"))
import chain  # noqa: E402

PRECISIONS = {"fp32": "", "bf16": "--bf16", "fp16": "--fp16", "amp": "--amp"}
ADAM = "--optimizer adam --adam-betas '(0.9,0.98)' --no-epoch-checkpoints --log-format json --log-interval 50"
SIZE = "--encoder-layers 4 --decoder-layers 6 --dropout 0.2"  # 6 layers can be cut into 2, 3 or 6 blocks
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
    if options.raw:
        options.raw = options.raw.resolve()
    out = options.out.resolve()
    return chain.main("gpu_check", lambda: check(options, out))


def check(options: argparse.Namespace, out: Path) -> None:
    with chain.working_in(options.work):
        result = {"kernels": kernels, "precision": precision, "corpus": corpus}[options.what](options)
    name = "cpu" if options.cpu else torch.cuda.get_device_name()
    record = {"device": name, "torch": torch.__version__, "flags": vars(options), "result": result}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{options.what}.json").write_text(json.dumps(record, indent=2, default=str) + "\n")


def train(options: argparse.Namespace, name: str, data: str, flags: str) -> str:
    """A training, and what it printed."""
    folder = f"checkpoints/{name}"
    command = (
        f'fairseq-train {data} --user-dir "$USER_DIR" {flags} --save-dir {folder} {"--cpu" if options.cpu else ""}'
    )
    training = chain.step(f"train-{name}", [data], folder, command, continues=True)
    chain.run(training)
    return training.log.read_text()


def generate(options: argparse.Namespace, name: str, data: str, systems: Sequence[str], flags: str) -> Path:
    """The folder with a system's translations of the test set; a second one rescores."""
    folder, paths = f"translations/{chain.slug(name)}", [f"checkpoints/{name}/checkpoint_last.pt" for name in systems]
    command = (
        f'fairseq-generate {data} --user-dir "$USER_DIR" --task diffusion_translation --path {":".join(paths)} '
        f"--gen-subset test --batch-size 100 --remove-bpe {flags} --results-path {folder} "
        f"{'--iter-decode-with-external-reranker' if len(systems) > 1 else ''} {'--cpu' if options.cpu else ''}"
    )
    chain.run(chain.step(f"decode-{chain.slug(name)}", [data, *paths], folder, command))
    return Path(folder)


def curve(printed: str, kind: str) -> list[dict[str, Any]]:
    return [json.loads(record) for record in re.findall(rf"\| {kind} \| (\{{.*\}})", printed)]


# -- kernels --------------------------------------------------------------------------------------------------------


def kernels(options: argparse.Namespace) -> dict[str, Any]:
    """Errors of the kernels; without a GPU the portable ones alone."""
    reason = choice.why_no_triton(torch.device("cpu" if options.cpu else "cuda"))
    if reason and not options.cpu:
        raise UserError(f"there are no kernels to check: {reason}; --cpu tries the script with the portable ones")
    rows = gpu_kernels.checked(options.cpu)
    return {"triton": reason or "used", "as_exact": all(row["as_exact_as_portable"] for row in rows), "rows": rows}


# -- precision ------------------------------------------------------------------------------------------------------


def precision(options: argparse.Namespace) -> dict[str, Any]:
    """Train and decode the toy in every precision; compare losses, scores, and outputs of one checkpoint."""
    chain.prepare(chain.Recipe(size=options.size, test_size=300))
    flags = f"{chain.SYSTEMS['DINOISER'].flags} {ADAM} --lr 2e-3 --lr-scheduler polynomial_decay --batch-size 128"
    flags += f" --warmup-updates 200 --max-update {options.updates} --total-num-update {options.updates}"
    names = ["fp32"] if options.cpu else list(PRECISIONS)
    result = {}
    for name in names:
        printed = train(options, name, "data-bin", f"{flags} {PRECISIONS[name]}")
        last = curve(printed, "valid")[-1]
        result[name] = {
            "valid_loss": float(last["valid_loss"]),
            "sigma_min": float(last["valid_sigma_min"]),
            "updates_per_second": float(curve(printed, "train")[-1]["train_ups"]),
        }
    language, split = read_language("corpus"), read_split("corpus", "test")
    reference = toy_outputs(options, "fp32", "fp32")
    for name in names:
        own = toy_outputs(options, name, name)
        result[name]["valid_translations"] = score(language, split.sources, own, split.references).valid
        if name not in ("fp32", "amp"):  # there is no decoding in AMP
            pairs = list(zip(toy_outputs(options, "fp32", name), reference))
            result[name]["same_output_as_fp32_for_one_checkpoint"] = sum(a == b for a, b in pairs) / len(pairs)
        print(f"  {name}: {result[name]}", flush=True)
    return result


def toy_outputs(options: argparse.Namespace, trained: str, decoded: str) -> list[str]:
    """Translations of the test set by the checkpoint of one precision, decoded in another."""
    flags = f"{PRECISIONS[decoded].replace('--amp', '')} --iter-decode-max-iter 20"
    return read_hypotheses(
        generate(options, f"{trained} in {decoded}", "data-bin", [trained], flags) / "generate-test.txt"
    )


# -- a real corpus --------------------------------------------------------------------------------------------------


def corpus(options: argparse.Namespace) -> dict[str, Any]:
    """Train all of SYSTEMS, alike in size, for `--minutes` each; the report of each way to decode."""
    prepare(options)
    flags = f"{ADAM} --required-batch-size-multiple 1 --lr 7e-4 --lr-scheduler inverse_sqrt --warmup-updates 2000"
    flags += f" --max-tokens 12000 --stop-time-hours {options.minutes / 60:.4f} {'' if options.cpu else '--bf16'}"
    flags += " --save-interval 20 --validate-interval 20"
    result: dict[str, Any] = {}
    for name, system in SYSTEMS.items():
        printed = train(options, name, "real-bin", f"{system} {flags}")
        result[name] = {"updates": curve(printed, "train")[-1]["train_num_updates"]}
    references = shlex.quote(str(options.raw / f"test.{options.target}"))
    scored = f"--tokenizer moses -s {options.source} -t {options.target} --raw-reference {references}"
    for name, (systems, how) in DECODINGS.items():
        folder = generate(options, name, "real-bin", systems.split(":"), f"{how} {scored}")
        result[name] = reporting.read(folder / "generate-test.json")
        print(f"  {name}: {result[name]['scores']['sacrebleu']}", flush=True)
    return result


def prepare(options: argparse.Namespace) -> None:
    """Moses tokens, BPE of 8,000 merges a side learnt on the training data, data-bin."""
    sides, raw = (options.source, options.target), shlex.quote(str(options.raw))
    moses = f"python3 {shlex.quote(str(ROOT / 'scripts/text/moses.py'))} $side <{raw}/$split.$side >tok/$split.$side"
    command = f"mkdir tok\nfor side in {' '.join(sides)}; do for split in train valid test; do {moses}; done; done"
    chain.run(chain.step("tokenise", [options.raw], "tok", command))
    chain.binarise(sides, "tok", 8000, "real-bin", "--joined-dictionary --workers 4")


if __name__ == "__main__":
    raise SystemExit(main())
