#!/usr/bin/env bash
# Multi30k, German and English, true case: 29,000 captions of images, small enough for an afternoon on one GPU. No paper
# gives these systems' settings for it: dropout, batches and updates are our choice, and untested to a number. A smaller
# configuration, for a CPU, is small.sh.

set -euo pipefail
TOKENIZER=moses SPLIT_DASHES=false LOWERCASE=false
declare -A titles=([ar]=Transformer [dinoiser]=DINOISER [difformer]=Difformer [diffglat]="Diff-Glat CTC")
SYSTEMS="ar dinoiser difformer diffglat" SETS="raw distilled" GPUS=1 NEEDS_DATA=yes
declare -A choices=([direction]="de-en en-de" [subset]="test valid")
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/recipe.sh"
. "$example/../in_common.sh"

files=(train val test_2016_flickr) merges=10000
. "$example/../gzipped.sh"

# -- training --------------------------------------------------------------------------------------------------------

ar=(
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
    --arch transformer_iwslt_de_en --share-all-embeddings --dropout 0.3
    --weight-decay 1e-4 --warmup-updates 2000
    --whole-batch 8192 --max-tokens 8192 --max-update 8000
    --eval-bleu-args '{"beam": 5}'
)
dinoiser=(
    --criterion diffusion_loss --arch dinoiser_iwslt_de_en
    --weight-decay 0.01 --warmup-updates 4000
    --whole-batch 16384 --max-tokens 8192 --max-update 30000
    --validate-interval 20 --save-interval 20 --eval-bleu-args '{"iter_decode_max_iter": 20}'
)
difformer=(
    --criterion diffusion_loss --arch difformer_iwslt_de_en
    --weight-decay 0.01 --warmup-updates 4000 --clip-norm 1
    --whole-batch 8192 --max-tokens 8192 --max-update 30000
    --validate-interval 10 --save-interval 10 --eval-bleu-args '{"iter_decode_max_iter": 20}'
)
diffglat=(
    --criterion diffusion_loss --arch diffglat_iwslt_de_en_ctc --glance-updates 30000
    --weight-decay 0.01 --warmup-updates 4000 --clip-norm 2
    --whole-batch 8192 --max-tokens 8192 --max-update 30000
    --validate-interval 10 --save-interval 10
)

# -- translations ----------------------------------------------------------------------------------------------------

ar_ways=("beam 5 | --beam 5 --max-tokens 8000")
teaching=(2 --beam 5 --max-tokens 8000) # shards, and flags of the teacher's translations
systems --best 5
table --language "$TARGET"
