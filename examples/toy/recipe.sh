#!/usr/bin/env bash
# The toy language, from raw text to the table and the picture: a Transformer (baseline, teacher and rescorer),
# DINOISER, Difformer and Diff-Glat, on the real and on the distilled training set. Needs no data and no GPU, and
# takes an hour or so on two cores; make it small with --size, --updates, --ar-updates, --systems and --sets.

set -euo pipefail
SOURCE=xx TARGET=yy TOKENIZER=none SPLIT_DASHES=false LOWERCASE=false
declare -A titles=([ar]=Transformer [dinoiser]=DINOISER [difformer]=Difformer [diffglat]=Diff-Glat)
SYSTEMS="ar dinoiser difformer diffglat" SETS="raw distilled" GPUS=0 NEEDS_DATA=
declare -A settings=([size]=50000 [test-size]=200 [updates]=2400 [ar-updates]=1000 [seed]=1)
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/recipe.sh"

# -- text: generated, so there is nothing to clean or to tokenise ----------------------------------------------------

step corpus "" "text/toy $(both text/train.tok) $(both text/valid.tok) $(both text/test.tok)" \
    "fairseq-diffusion toy generate --out text/toy --nouns 30 --verbs 15 --adjectives 10 --adverbs 6 \\
    --size ${settings[size]} --test-size ${settings[test-size]} --seed ${settings[seed]}
for split in train valid test; do $(in_both 'cp text/toy/$split.$language text/$split.tok.$language'); done"
references="text/toy/test.formal.yy text/toy/test.informal.yy" # every sentence has one valid translation or two

learn_bpe separate 1000 # the two languages have no word in common
apply_bpe 1
binarise

# -- training --------------------------------------------------------------------------------------------------------

schedule() { # UPDATES: the learning rate rises for an eighth of them, then falls to 0; five checkpoints are kept
    echo --max-update "$1" --total-num-update "$1" --warmup-updates $((($1 + 7) / 8)) \
        --save-interval-updates $((($1 + 19) / 20)) --keep-interval-updates 5 --no-epoch-checkpoints
}

common=(
    # optimiser
    --optimizer adam --adam-betas '(0.9, 0.98)' --lr 2e-3 --lr-scheduler polynomial_decay
    # batch
    --whole-batch 64 --batch-size 64
    # log
    --seed "${settings[seed]}" --log-format json --log-interval 20 --no-progress-bar
)

ar=(
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
    --arch transformer --encoder-layers 3 --decoder-layers 3
    --encoder-embed-dim 128 --encoder-ffn-embed-dim 256 --encoder-attention-heads 4
    --decoder-embed-dim 128 --decoder-ffn-embed-dim 256 --decoder-attention-heads 4
    --share-decoder-input-output-embed --dropout 0
    $(schedule "${settings[ar-updates]}")
)
dinoiser=(--criterion diffusion_loss --arch dinoiser_toy $(schedule "${settings[updates]}"))
difformer=(--criterion diffusion_loss --arch difformer_toy $(schedule "${settings[updates]}"))
diffglat=(
    --criterion diffusion_loss --arch diffglat_toy --blocks 6 --glance-updates "${settings[updates]}"
    $(schedule "${settings[updates]}")
)

# -- translations: the name of each way in the table | flags of fairseq-generate -------------------------------------

ar_ways=("beam 5 | --beam 5 --batch-size 50")
dinoiser_ways=(
    "5 steps | --iter-decode-max-iter 5 --batch-size 50"
    "10 steps | --iter-decode-max-iter 10 --batch-size 50"
    "20 steps | --iter-decode-max-iter 20 --batch-size 50"
)
difformer_ways=(
    "5 steps | --iter-decode-max-iter 5 --batch-size 50"
    "10 steps | --iter-decode-max-iter 10 --batch-size 50"
    "20 steps | --iter-decode-max-iter 20 --batch-size 50"
)
diffglat_ways=("1 pass | --batch-size 50")

# -- all of it -------------------------------------------------------------------------------------------------------

teaching=(2 --beam 5 --batch-size 200) # shards, and flags of the teacher's translations
systems --last 5 --update-based
table
