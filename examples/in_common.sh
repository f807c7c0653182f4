# shellcheck shell=bash disable=SC2034
# What the recipes of Multi30k, Tatoeba, IWSLT14, WMT14 and WMT16 have in common: the flags of every training, and the
# ways in which each diffusion system's translations are made (its name in the table | flags of fairseq-generate).

common=(
    # optimiser
    --optimizer adam --adam-betas '(0.9, 0.98)' --lr 5e-4 --lr-scheduler inverse_sqrt
    # what is kept: the five best by BLEU on the validation set, and the last, to resume from
    --eval-bleu --eval-bleu-detok moses --eval-bleu-remove-bpe
    --best-checkpoint-metric bleu --maximize-best-checkpoint-metric --keep-best-checkpoints 5 --no-epoch-checkpoints
    # log
    --seed 1 --log-format json --log-interval 100 --no-progress-bar
)

ar_ways=("beam 5 | --beam 5 --max-tokens 8000")
dinoiser_ways=(
    "5 steps | --iter-decode-max-iter 5 --batch-size 128"
    "10 steps | --iter-decode-max-iter 10 --batch-size 128"
    "20 steps | --iter-decode-max-iter 20 --batch-size 128"
    "5 x 10, 20 steps | --iter-decode-max-iter 20 --iter-decode-with-beam 5 --noise-beam 10 --selection mbr_two_level --batch-size 16"
)
difformer_ways=(
    "5 steps | --iter-decode-max-iter 5 --batch-size 128"
    "10 steps | --iter-decode-max-iter 10 --batch-size 128"
    "20 steps | --iter-decode-max-iter 20 --batch-size 128"
    "7 x 3 rescored, 20 steps | --iter-decode-max-iter 20 --iter-decode-with-beam 7 --noise-beam 3 --iter-decode-with-external-reranker --batch-size 32"
)
diffglat_ways=(
    "1 pass | --batch-size 128"
    "3 passes | --passes 3 --batch-size 128"
)
