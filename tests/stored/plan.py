"""Which models are stored, how they were trained, and how they are decoded: flags as users type them."""

from __future__ import annotations

# -- training ---------------------------------------------------------------------------------------------------------

SIZE = (
    "--hidden 16 --inner 32 --heads 2 --encoder-layers 1 --decoder-layers 1 --dropout 0 --length-classes 32 "
    "--max-source-positions 30 --max-target-positions 30"
)
UPDATES = "--optimizer adam --lr 1e-2 --lr-scheduler inverse_sqrt --warmup-updates 50 --clip-norm 1 --batch-size 32"
LOSS = "--criterion diffusion_loss --max-update 400"
DENOISER = f"{LOSS} --latent-dim 8 --embedding-init-std 0.1"
BLOCKS = f"{LOSS} --glance-updates 400"
TEACHER = "tests/stored/checkpoints/dinoiser.pt"

TRAINING = {
    "dinoiser": f"--arch dinoiser_toy {DENOISER}",
    "averaged": f"--arch dinoiser_toy {DENOISER} --share-embeddings --schedule-modifier clip_plus_one --store-ema "
    "--ema-decay 0.99",
    "difformer": f"--arch difformer_toy {DENOISER} --share-embeddings --label-smoothing 0.1 --latent-dim 16 "
    "--noise-factor 2 --max-update 900",
    "velocity": f"--arch dinoiser_toy {DENOISER} --prediction v --schedule cosine --schedule-modifier none --pre-norm "
    "--sampler ddim --time-sampler stratified --loss-normaliser tokens",
    "guided": f"--arch dinoiser_toy {DENOISER} --source-drop 0.2 --self-conditioning coin",
    "student": f"--arch dinoiser_toy {DENOISER} --criterion progressive_distillation --student-steps 2 "
    f"--teacher {TEACHER} --finetune-from-model {TEACHER} --freeze encoder,embeddings --sampler ddim --grid time "
    "--lr 1e-3 --max-update 200",
    "nat": f"--arch nat_toy {BLOCKS}",
    "glat": f"--arch glat_toy {BLOCKS} --share-embeddings --label-smoothing 0.1",
    "dslp": f"--arch dslp_toy {BLOCKS} --decoder-layers 2 --blocks 2 --block-weights increasing",
    "cmlm": f"--arch cmlm_toy {BLOCKS} --passes 4",
    "diffglat": f"--arch diffglat_toy {BLOCKS} --decoder-layers 3 --blocks 3",
    "diffglat_gated": f"--arch diffglat_toy {BLOCKS} --decoder-layers 2 --blocks 2 --fuse gated --keep-schedule cosine "
    "--glance-count schedule --length-target absolute",
    "diffglat_ctc": f"--arch diffglat_toy_ctc {BLOCKS} --decoder-layers 2 --blocks 2",
    "diffglat_dag": f"--arch diffglat_toy_dag {BLOCKS} --decoder-layers 2 --blocks 2 --upsample 4",
    "da_transformer": f"--arch da_transformer_toy {BLOCKS} --share-embeddings --upsample 4 --max-update 120",
}

# -- decoding ---------------------------------------------------------------------------------------------------------

SIX = "--iter-decode-max-iter 6 --noise-beam 2 --nbest 2"
SAMPLERS = {name: f"{SIX} --sampler {name}" for name in ("ddim", "ddpm", "cedi", "fixed_t", "dpmpp_2m")}
LENGTHS = "--iter-decode-with-beam 3 --nbest 3"
CANDIDATES = f"{LENGTHS} --noise-beam 2 --iter-decode-max-iter 4"
JOINT, OFFSETS = "--selection joint", "--selection joint --length-beam offsets"
SELECTIONS = ("joint", "mbr", "mbr_two_level", "score:4,mbr:2,joint", "mbr --mbr-utility chrf")
WEIGHING = [*(f"{CANDIDATES} --selection {how}" for how in SELECTIONS), f"{CANDIDATES} {OFFSETS}"]

DECODING = {
    "dinoiser": [
        "",
        *(f"{sampler} --grid time" for sampler in SAMPLERS.values()),
        f"{SIX} --seed 7 --oracle-length",
        f"{SIX} --grid respaced --early-stop 0.5",
        f"{SIX} --told-start 0.9 --told-end 0.5",
        f"{SIX} --sampler fixed_t --told-start 0.8 --final-time 0.2",
        f"{SIX} --sampler ddim --eta 0.5",
        f"{SIX} --sampler ddpm --eta 0.3 --temperature 0.7",
        f"{SIX} --clamp",
        f"{SIX} --stop-stable 2",
        f"{SIX} --prune-after 2,4 --noise-beam 4",
        f"{SIX} --prune-after 3 --stop-stable 2 --noise-beam 4 --sampler ddpm",
        *WEIGHING,
        f"{CANDIDATES} --selection mbr --mbr-units words",
    ],
    "averaged": [
        "",
        "--use-ema",
        *(f"{SAMPLERS[name]} --grid log_snr --use-ema" for name in ("ddpm", "cedi", "dpmpp_2m")),
    ],
    "difformer": [
        "",
        "--iter-decode-max-iter 20 --noise-beam 3 --nbest 3 --selection mbr",
        *(SAMPLERS[name] for name in ("ddim", "ddpm", "dpmpp_2m")),
        f"{SIX} --grid time --early-stop 0",
        f"{SIX} --decode-noise-factor 2 --temperature 0.8",
        f"{SIX} --clamp",
        f"{CANDIDATES} {JOINT}",
        f"{CANDIDATES} {JOINT} --length-beam top_k",
    ],
    "velocity": [
        *(f"{SAMPLERS[name]} --grid sigma" for name in ("ddim", "fixed_t", "dpmpp_2m")),
        f"{CANDIDATES} --clamp {JOINT}",
    ],
    "guided": [
        *(f"{SIX} {how}" for how in ("", "--guidance 0", "--guidance 2", "--guidance 4 --clamp")),
        f"{SIX} --guidance 2 --sampler ddpm --prune-after 3",
    ],
    "student": [f"--iter-decode-max-iter {steps} --noise-beam 3 --nbest 3" for steps in (1, 2, 4)],
    "nat": ["", f"{LENGTHS} --selection mbr_two_level", f"{LENGTHS} {OFFSETS}", "--oracle-length", "--drop-repeats"],
    "glat": ["", f"{LENGTHS} {JOINT}"],
    "dslp": ["", "--exit-block 1", f"{LENGTHS} {OFFSETS} --passes 2"],
    "cmlm": ["", "--passes 1", f"{LENGTHS} {JOINT} --passes 10"],
    "diffglat": ["", "--exit-block 1", "--passes 3", f"{LENGTHS} {JOINT}"],
    "diffglat_gated": ["", "--exit-block 1 --passes 2"],
    "diffglat_ctc": ["", "--exit-block 1", "--passes 2"],
    "diffglat_dag": [
        "--path-search lookahead --lookahead-weight 0.3 --drop-repeats",
        "--path-search joint_viterbi --lenpen 1.5",
        "--path-search sample --noise-beam 4 --nbest 3 --temperature 0.5 --vertex-tokens 2 --selection mbr",
        "--path-search beam --beam 3 --nbest 3 --lenpen 1.5 --vertex-tokens 2",
        "--path-search beam --nbest 3 --passes 2",
        "--exit-block 1",
    ],
    "da_transformer": [
        *(f"--path-search {search}" for search in ("greedy", "lookahead", "viterbi", "joint_viterbi")),
        "--path-search sample --noise-beam 4 --nbest 4",
        "--path-search beam --nbest 5",
    ],
}
