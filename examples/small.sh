# shellcheck shell=bash disable=SC2034
# The small configuration of Multi30k and Tatoeba, for a CPU: every system in 3 + 3 layers of width 128, in batches of
# 2,048 tokens, with the same time on one thread; the average of its last five checkpoints is decoded. So that a result
# can be had again on any machine, `--training-minutes` counts the minutes of the one that `hundredths` was measured on.

SYSTEMS="ar dinoiser difformer diffglat_ctc diffglat_dag diffglat glat_ctc glat nat da_transformer cmlm"
SYSTEMS+=" mdlm mdlm_from_ar rdm_absorb rdm_uniform sundae ddcap"
SYSTEMS+=" cdcd seqdiffuseq diffuseq_v2 sed_from_ar genie plaid"
SYSTEMS+=" lddm_seq lddm_fuji latent_nat_ctc"
SYSTEMS+=" dinoiser_unclipped dinoiser_plain difformer_unscaled difformer_rounding"
SYSTEMS+=" difformer_gap difformer_logit_normal difformer_word_times difformer_v"
SETS="raw distilled" GPUS=0 NEEDS_DATA=yes TOKENIZER=moses SPLIT_DASHES=false LOWERCASE=false
declare -A titles=(
    [ar]=Transformer [dinoiser]=DINOISER [dinoiser_unclipped]="DINOISER, no clipping"
    [dinoiser_plain]="DINOISER, no self-conditioning" [difformer]=Difformer
    [difformer_gap]="Difformer, noisier first pass" [difformer_logit_normal]="Difformer, logit-normal times"
    [difformer_word_times]="Difformer, times of words" [difformer_v]="Difformer, v-weighted loss"
    [difformer_unscaled]="Difformer, no noise factor" [difformer_rounding]="Difformer, rounding" [nat]=NAT [glat]=GLAT
    [glat_ctc]="GLAT + CTC" [cmlm]=CMLM [da_transformer]=DA-Transformer [diffglat]=Diff-Glat
    [diffglat_ctc]="Diff-Glat CTC" [diffglat_dag]="Diff-Glat DAG"
    [mdlm]=MDLM [mdlm_from_ar]="MDLM, from the Transformer"
    [rdm_absorb]="RDM, absorbing" [rdm_uniform]="RDM, uniform" [sundae]=SUNDAE [ddcap]=DDCap
    [cdcd]=CDCD [seqdiffuseq]=SeqDiffuSeq [diffuseq_v2]=DiffuSeq-v2 [sed_from_ar]="SED, vectors of the Transformer"
    [genie]=GENIE [plaid]=Plaid [lddm_seq]="LDDM, SEQ" [lddm_fuji]="LDDM, FUJI" [latent_nat_ctc]="Latent NAT, CTC"
)
declare -A choices=([direction]="de-en en-de" [subset]="test valid") settings=([training-minutes]=90)
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/recipe.sh"

# -- training --------------------------------------------------------------------------------------------------------

rescore="--iter-decode-with-external-reranker" five="--iter-decode-with-beam 5"
size=(--hidden 128 --inner 512 --heads 4 --encoder-layers 3 --decoder-layers 3 --dropout 0.1)
common=(
    --optimizer adam --adam-betas '(0.9, 0.98)' --lr 1e-3 --lr-scheduler inverse_sqrt --warmup-updates 500
    --clip-norm 1 --whole-batch 2048 --max-tokens 2048
    --keep-interval-updates 10 --no-epoch-checkpoints --validate-interval 1000
    --seed 1 --log-format json --log-interval 100 --no-progress-bar
)
# An update's time on one thread of an Intel Xeon of the fourth generation, torch 2.13.0, in hundredths of a second
# (systems that diffuse tokens: of an AMD EPYC, scaled as the Transformer's is; those on a canvas: seconds of that one's
# processor, where MDLM takes 35; with latents: as MDLM, times what they take longer in one run).
declare -A hundredths=(
    [ar]=45 [dinoiser]=60 [dinoiser_unclipped]=60 [dinoiser_plain]=36 [difformer]=50 [difformer_unscaled]=50
    [difformer_rounding]=50 [difformer_gap]=50 [difformer_logit_normal]=50 [difformer_word_times]=50 [difformer_v]=50
    [nat]=36 [glat]=45 [glat_ctc]=95 [cmlm]=38 [da_transformer]=160 [diffglat]=60
    [diffglat_ctc]=125 [diffglat_dag]=230 [mdlm]=36 [mdlm_from_ar]=36 [rdm_absorb]=39 [rdm_uniform]=39 [sundae]=100
    [ddcap]=39 [cdcd]=63 [seqdiffuseq]=102 [diffuseq_v2]=122 [sed_from_ar]=76 [genie]=93 [plaid]=87
    [lddm_seq]=66 [lddm_fuji]=61 [latent_nat_ctc]=118
)
updates() { echo $((${settings[training-minutes]} * 6000 / ${hundredths[$1]})); } # SYSTEM: as many as take that long
until_then() { # SYSTEM: flags; forty times a checkpoint
    echo --max-update "$(updates "$1")" --save-interval-updates $((($(updates "$1") + 39) / 40))
}
ours() { echo --criterion diffusion_loss --arch "$2" "${size[@]}" "$(until_then "$1")"; } # SYSTEM ARCHITECTURE
staged() { echo "$(ours "$@")" --latents-start $(($(updates "$1") / 4)); }
glancing() { echo "$(ours "$@")" --glance-updates "$(updates "$1")"; }
# shellcheck disable=SC2046,SC2207  # flags without spaces
{
    ar=(
        --criterion label_smoothed_cross_entropy --label-smoothing 0.1 --arch transformer --share-all-embeddings
        --encoder-embed-dim 128 --encoder-ffn-embed-dim 512 --encoder-attention-heads 4 --encoder-layers 3
        --decoder-embed-dim 128 --decoder-ffn-embed-dim 512 --decoder-attention-heads 4 --decoder-layers 3 --dropout 0.1
        $(until_then ar)
    )
    dinoiser=($(ours dinoiser dinoiser_iwslt_de_en))
    dinoiser_unclipped=($(ours dinoiser_unclipped dinoiser_iwslt_de_en) --schedule-modifier none)
    dinoiser_plain=($(ours dinoiser_plain dinoiser_iwslt_de_en) --self-conditioning none)
    difformer=($(ours difformer difformer_iwslt_de_en))
    difformer_unscaled=($(ours difformer_unscaled difformer_iwslt_de_en) --schedule-modifier none --noise-factor 1)
    difformer_rounding=($(ours difformer_rounding difformer_iwslt_de_en) --objective mse=1,rounding=1)
    difformer_gap=($(ours difformer_gap difformer_iwslt_de_en) --self-conditioning-gap 0.1)
    difformer_logit_normal=(
        $(ours difformer_logit_normal difformer_iwslt_de_en)
        --time-sampler logit_normal --time-mean 1.5 --time-spread 0.8
    )
    difformer_word_times=($(ours difformer_word_times difformer_iwslt_de_en) --word-time-spread 0.2)
    difformer_v=($(ours difformer_v difformer_iwslt_de_en) --objective v_mse=1,anchor=1)
    nat=($(ours nat nat_iwslt_de_en))
    glat=($(glancing glat glat_iwslt_de_en))
    glat_ctc=($(glancing glat_ctc glat_iwslt_de_en_ctc))
    cmlm=($(ours cmlm cmlm_iwslt_de_en))
    da_transformer=($(glancing da_transformer da_transformer_iwslt_de_en) --upsample 4)
    diffglat=($(glancing diffglat diffglat_iwslt_de_en) --blocks 3)
    diffglat_ctc=($(glancing diffglat_ctc diffglat_iwslt_de_en_ctc) --blocks 3)
    diffglat_dag=($(glancing diffglat_dag diffglat_iwslt_de_en_dag) --blocks 3 --upsample 4)
    mdlm=($(ours mdlm mdlm_iwslt_de_en))
    mdlm_from_ar=(
        $(ours mdlm_from_ar mdlm_iwslt_de_en) --finetune-from-model "$teacher"
        --activation relu --scale-embeddings --no-encoder-norm --no-entry-norm
    )
    rdm_uniform=($(ours rdm_uniform rdm_iwslt_de_en_uniform))
    rdm_absorb=($(ours rdm_absorb rdm_iwslt_de_en_absorb))
    sundae=($(ours sundae sundae_iwslt_de_en))
    ddcap=($(ours ddcap ddcap_iwslt_de_en))
    canvas=(--canvas-positions 10 --canvas-scale 1) # room for most targets at the cost of twice their length
    cdcd=($(ours cdcd cdcd_iwslt_de_en) "${canvas[@]}")
    seqdiffuseq=($(ours seqdiffuseq seqdiffuseq_iwslt_de_en) "${canvas[@]}" --schedule-update 500)
    diffuseq_v2=(
        $(ours diffuseq_v2 diffuseq_v2_iwslt_de_en) "${canvas[@]}" --encoder-layers 0 --decoder-layers 6
    )
    sed_from_ar=($(ours sed_from_ar sed_iwslt_de_en) "${canvas[@]}" --finetune-from-model "$teacher")
    genie=($(ours genie genie_iwslt_de_en) "${canvas[@]}")
    plaid=($(ours plaid plaid_iwslt_de_en) "${canvas[@]}")
    lddm_seq=($(staged lddm_seq lddm_seq_iwslt_de_en))
    lddm_fuji=($(staged lddm_fuji lddm_fuji_iwslt_de_en))
    latent_nat_ctc=($(staged latent_nat_ctc latent_nat_iwslt_de_en_ctc))
}

ar_ways=("beam 5 | --beam 5 --batch-size 64" "greedy | --beam 1 --batch-size 64")
nat_ways=(
    "1 pass | --batch-size 64"
    "5 lengths, joint | $five --selection joint --batch-size 64"
    "5 lengths, rescored | $five $rescore --batch-size 64"
)
glat_ways=("${nat_ways[@]}") diffglat_ways=("${nat_ways[@]}")
cmlm_ways=("10 passes, 5 lengths, joint | --passes 10 $five --selection joint --batch-size 64")
glat_ctc_ways=(
    "1 pass | --batch-size 64"
    "1 pass, blank penalty 1 | --blank-penalty 1 --batch-size 64"
    "beam 5 | --path-search beam --beam 5 --batch-size 64"
    "beam 5, rescored | --path-search beam --beam 5 $rescore --batch-size 64"
)
diffglat_ctc_ways=( # the penalty was chosen on valid
    "1 pass, nothing revealed | --keep-schedule none --batch-size 64"
    "1 pass, nothing revealed, blank penalty 1.5 | --keep-schedule none --blank-penalty 1.5 --batch-size 64"
    "1 pass, words revealed | --keep-schedule linear --batch-size 64"
    "beam 5, nothing revealed | --keep-schedule none --path-search beam --beam 5 --batch-size 64"
    "beam 5, nothing revealed, rescored | --keep-schedule none --path-search beam --beam 5 $rescore --batch-size 64"
)
da_transformer_ways=(
    "lookahead | --batch-size 64"
    "beam 5 | --path-search beam --beam 5 --batch-size 64"
    "5 samples, rescored | --path-search sample --noise-beam 5 --temperature 0.8 $rescore --batch-size 64"
)
diffglat_dag_ways=("${da_transformer_ways[@]}")
dinoiser_ways=()
for steps in 2 5 10 20; do
    dinoiser_ways+=("$steps steps | --iter-decode-max-iter $steps --batch-size 64")
done
dinoiser_ways+=(
    "20 steps, repeats dropped | --iter-decode-max-iter 20 --drop-repeats --batch-size 64"
    "5 lengths, joint, 20 steps | --iter-decode-max-iter 20 $five --selection joint --batch-size 64"
    "5 x 5, MBR, 20 steps | --iter-decode-max-iter 20 $five --noise-beam 5 --selection joint:15,mbr --batch-size 64"
    "5 x 5, rescored, 20 steps | --iter-decode-max-iter 20 $five --noise-beam 5 $rescore --batch-size 64"
)
difformer_ways=("${dinoiser_ways[@]}")
dinoiser_ways+=("DDIM, 20 steps | --sampler ddim --iter-decode-max-iter 20 --batch-size 64")
token_ways() { # NAME FLAGS: ways of one sampler of a system that diffuses tokens, as NAME, and FLAGS of it
    local name=$1 flags="$2 --batch-size 64 --iter-decode-max-iter" steps
    for steps in 4 10 20; do printf '%s\n' "$name$steps steps, repeats dropped | $flags $steps --drop-repeats"; done
    printf '%s\n' "${name}20 steps | $flags 20" \
        "${name}5 lengths, joint, 10 steps, repeats dropped | $flags 10 $five --selection joint --drop-repeats" \
        "${name}5 lengths, rescored, 10 steps, repeats dropped | $flags 10 $five $rescore --drop-repeats"
}
mapfile -t mdlm_ways < <(token_ways "surest first, " "--sampler confidence")
mdlm_ways+=("drawn, 20 steps | --sampler ancestral --iter-decode-max-iter 20 --batch-size 64")
mdlm_from_ar_ways=("${mdlm_ways[@]}")
mapfile -t rdm_absorb_ways < <(token_ways "" "")
rdm_uniform_ways=("${rdm_absorb_ways[@]}")
mapfile -t sundae_ways < <(token_ways "" "")
mapfile -t ddcap_ways < <(token_ways "" "--guidance 1.06")
canvas_ways() { # FLAGS: ways of a system on a canvas, with FLAGS of its sampler
    local flags="$1 --batch-size 64 --iter-decode-max-iter" steps
    for steps in 2 5 10 20; do printf '%s\n' "$steps steps | $flags $steps"; done
    printf '%s\n' "20 steps, repeats dropped | $flags 20 --drop-repeats" \
        "5 noises, MBR, 20 steps | $flags 20 --noise-beam 5 --selection mbr" \
        "5 noises, rescored, 20 steps | $flags 20 --noise-beam 5 $rescore"
}
mapfile -t cdcd_ways < <(canvas_ways "--temperature 0.8")
cdcd_ways+=("guidance 2, 10 steps | --temperature 0.8 --guidance 2 --iter-decode-max-iter 10 --batch-size 64")
mapfile -t seqdiffuseq_ways < <(canvas_ways "")
mapfile -t diffuseq_v2_ways < <(canvas_ways "")
mapfile -t sed_from_ar_ways < <(canvas_ways "")
sed_from_ar_ways+=("guidance 2.5, 10 steps | --guidance 2.5 --iter-decode-max-iter 10 --batch-size 64")
mapfile -t genie_ways < <(canvas_ways "--clamp")
mapfile -t plaid_ways < <(canvas_ways "--temperature 0.9")
mapfile -t lddm_fuji_ways < <(token_ways "surest first, " "--sampler confidence")
lddm_seq_ways=()
for latents in 2 10; do
    for steps in 1 2 4 10; do
        flags="--sampler confidence --latents-steps $latents --iter-decode-max-iter $steps --drop-repeats --batch-size 64"
        lddm_seq_ways+=("$latents + $steps steps, repeats dropped | $flags")
    done
done
lddm_seq_ways+=(
    "no latents, 10 steps, repeats dropped | ${flags/-steps 10/-steps 0}"
    "5 latents, rescored, 10 + 10 steps, repeats dropped | $flags --noise-beam 5 $rescore"
)
latent_nat_ctc_ways=(
    "10 + 1 | --latents-steps 10 --batch-size 64"
    "50 + 1, guidance 2 | --latents-steps 50 --latents-guidance 2 --batch-size 64"
    "no latents | --latents-steps 0 --batch-size 64"
    "5 latents, rescored, 10 + 1 | --latents-steps 10 --noise-beam 5 $rescore --batch-size 64"
)
one=("5 steps | --iter-decode-max-iter 5 --batch-size 64" "20 steps | --iter-decode-max-iter 20 --batch-size 64")
dinoiser_unclipped_ways=("${one[@]}") dinoiser_plain_ways=("${one[@]}")
parts=("2 steps | --iter-decode-max-iter 2 --batch-size 64" "${one[@]}")
difformer_gap_ways=("${parts[@]}") difformer_logit_normal_ways=("${parts[@]}")
difformer_word_times_ways=("${parts[@]}") difformer_v_ways=("${parts[@]}")
difformer_unscaled_ways=("${one[@]}") difformer_rounding_ways=("${one[@]}")
teaching=(2 --beam 5 --batch-size 64) # shards, and flags of the teacher's translations
averaged=(--last 5 --update-based)
