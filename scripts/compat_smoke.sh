#!/usr/bin/env bash
# usage: compat_smoke.sh BIN
# Runs every command once with the fairseq of BIN (.venv-3.10/bin: stock 0.12.2): preprocess, train and generate, with
# fairseq's own autoregressive transformer (the usual teacher) and with our models, in a few updates each.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$(cd "${1:?usage: compat_smoke.sh BIN}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1 PYTHONPATH=$PWD
say() { printf '== %s\n' "$*"; }

quietly() { # a step's output matters only when it fails
    "$@" >"$work/log" 2>&1 || { cat "$work/log"; echo "compat: failed: $*" >&2; exit 1; }
}

hypotheses() { # FILE: one hypothesis for each of the 10 test sentences, whatever its words
    [ "$(grep -c '^H-' "$1")" -eq 10 ] || { cat "$1"; echo "compat: expected 10 hypotheses" >&2; exit 1; }
}

say "import and doctor"
"$bin/python" -c 'import fairseq_diffusion; fairseq_diffusion.load()'
"$bin/python" -m fairseq_diffusion.cli.main doctor

say "preprocess"
"$bin/python" - "$work" <<'PYTHON'
import pathlib, random, sys

random.seed(1)
for split, size in (("train", 50), ("valid", 10), ("test", 10)):
    lines = [[random.choice("abcdefgh") for _ in range(random.randint(3, 9))] for _ in range(size)]
    for language, order in (("de", 1), ("en", -1)):
        text = "".join(" ".join(line[::order]) + "\n" for line in lines)
        pathlib.Path(sys.argv[1], f"{split}.{language}").write_text(text)
PYTHON
quietly "$bin/fairseq-preprocess" --source-lang de --target-lang en --joined-dictionary --destdir "$work/data" \
    --trainpref "$work/train" --validpref "$work/valid" --testpref "$work/test"

train=("$bin/fairseq-train" "$work/data" --user-dir fairseq_diffusion --optimizer adam --lr 5e-4 --max-tokens 512
    --max-update 4 --cpu)
generate=("$bin/fairseq-generate" "$work/data" --user-dir fairseq_diffusion --gen-subset test --cpu)

# Post-norm, as transformer_iwslt_de_en is: the case of 0.12.2's encoder fast path.
say "autoregressive transformer: train, resume, generate"
ar=("${train[@]}" --task translation --arch transformer --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16
    --decoder-embed-dim 16 --encoder-attention-heads 2 --decoder-attention-heads 2 --save-dir "$work/ar")
quietly "${ar[@]}"
quietly "${ar[@]}" --max-update 6
"${generate[@]}" --task translation --path "$work/ar/checkpoint_last.pt" --beam 2 >"$work/ar.out" 2>"$work/log" ||
    { cat "$work/log"; exit 1; }
hypotheses "$work/ar.out"

say "diffusion: train with averaged weights, resume, generate with either"
diffusion=("${train[@]}" --task diffusion_translation --criterion diffusion_loss --arch dinoiser_toy --store-ema
    --save-dir "$work/diffusion")
quietly "${diffusion[@]}"
quietly "${diffusion[@]}" --max-update 6
for weights in "" --use-ema; do
    # shellcheck disable=SC2086  # no argument when empty
    "${generate[@]}" --task diffusion_translation --path "$work/diffusion/checkpoint_last.pt" \
        --iter-decode-max-iter 3 $weights >"$work/diffusion.out" 2>"$work/log" || { cat "$work/log"; exit 1; }
    hypotheses "$work/diffusion.out"
done

say "diffusion of tokens from the transformer's weights: train, resume without them"
tokens=("${train[@]}" --task diffusion_translation --criterion diffusion_loss --arch mdlm_toy --hidden 16 --inner 2048
    --heads 2 --encoder-layers 1 --decoder-layers 1 --activation relu --scale-embeddings --no-encoder-norm --no-entry-norm
    --save-dir "$work/tokens" --finetune-from-model)
quietly "${tokens[@]}" "$work/ar/checkpoint_last.pt"
quietly "${tokens[@]}" "$work/gone.pt" --max-update 6

say "the fused Adam continues from fairseq's, and trains in bf16"
quietly "${diffusion[@]}" --optimizer fused_adam --max-update 8
quietly "${diffusion[@]}" --optimizer fused_adam --bf16 --ema-fp32 --save-dir "$work/bf16"

say "one pass: train, resume, generate along a graph"
graph=("${train[@]}" --task diffusion_translation --criterion diffusion_loss --arch diffglat_toy_dag
    --save-dir "$work/graph")
quietly "${graph[@]}"
quietly "${graph[@]}" --max-update 6
for search in "sample --noise-beam 2" beam; do
    "${generate[@]}" --task diffusion_translation --path "$work/graph/checkpoint_last.pt:$work/ar/checkpoint_last.pt" \
        --iter-decode-with-external-reranker --path-search $search >"$work/graph.out" 2>"$work/log" ||
        { cat "$work/log"; exit 1; }
    hypotheses "$work/graph.out"
done

say "the transformer rescores, and the report says so"
"${generate[@]}" --task diffusion_translation --path "$work/diffusion/checkpoint_last.pt:$work/ar/checkpoint_last.pt" \
    --iter-decode-with-external-reranker --iter-decode-max-iter 3 --noise-beam 3 >"$work/rescored.out" 2>"$work/log" ||
    { cat "$work/log"; exit 1; }
hypotheses "$work/rescored.out"
grep -q '^| AR rescoring *yes' "$work/rescored.out" || { cat "$work/rescored.out"; exit 1; }

say "distil, score, and translate from Python"
quietly "$bin/python" -m fairseq_diffusion.cli.main distill "$work/data" --path "$work/ar/checkpoint_last.pt" \
    --output "$work/distilled" -- --cpu --beam 2 --max-len-b 9
"$bin/python" -m fairseq_diffusion.cli.main score --hyp "$work/diffusion.out" --hyp "$work/graph.out" --ref "$work/test.en"
"$bin/python" - "$work" <<'PYTHON'
import sys

from fairseq_diffusion import load

model = load(f"{sys.argv[1]}/diffusion/checkpoint_last.pt")
assert len(model.translate(["a b c", "d e"], steps=3, noise_beam=2, select="mbr")) == 2
PYTHON

say "stored checkpoints: the same words, scores and losses as ever"
quietly "$bin/python" -m pytest -q -p no:cacheprovider tests/test_stored.py

say "compat: all steps passed"
