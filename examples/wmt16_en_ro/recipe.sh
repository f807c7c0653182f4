#!/usr/bin/env bash
# WMT16 English-Romanian: Europarl v8 and SETIMES2; newsdev2016 is the validation set, newstest2016 the test set.
# Romanian is spelt with commas below s and t throughout, in the reference too (older texts have cedillas). DINOISER's
# flags are its released script's, but for the updates, which are stated nowhere; there is none of Difformer for this
# pair; all else is our choice.

set -euo pipefail
SOURCE=en TARGET=ro TOKENIZER=moses SPLIT_DASHES=true LOWERCASE=false
declare -A titles=([ar]=Transformer [dinoiser]=DINOISER [difformer]=Difformer [diffglat]="Diff-Glat CTC")
SYSTEMS="ar dinoiser difformer diffglat" SETS="raw distilled" GPUS=8 NEEDS_DATA=yes
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/recipe.sh"
. "$example/../in_common.sh"

# -- text ------------------------------------------------------------------------------------------------------------

data_files
unpack() { # NAME ARCHIVE FILE ...: these files of an archive
    step "unpack-$1" "\$DATA/$2" "$(printf 'raw/%s ' "${@:3}")" "tar -xzf \"\$DATA/$2\" -C raw ${*:3}"
}
unpack europarl training-parallel-ep-v8.tgz $(both training-parallel-ep-v8/europarl-v8.ro-en)
unpack valid dev.tgz dev/newsdev2016-enro-src.en.sgm dev/newsdev2016-enro-ref.ro.sgm
unpack test test.tgz test/newstest2016-enro-src.en.sgm test/newstest2016-enro-ref.ro.sgm
step unpack-setimes '$DATA/en-ro.txt.zip' raw/setimes 'python3 -m zipfile -e "$DATA/en-ro.txt.zip" raw/setimes'

plain() { # NAME "FLAGS" "INPUTS" "ENGLISH" "ROMANIAN": raw files, one after the other, as text/NAME.plain
    step "plain-$1" "$3" "$(both "text/$1.plain")" "python3 \"\$TOOLS/plain.py\" $2 $4 >text/$1.plain.en
python3 \"\$TOOLS/plain.py\" --romanian $2 $5 >text/$1.plain.ro"
}
europarl=raw/training-parallel-ep-v8/europarl-v8.ro-en setimes=raw/setimes/SETIMES.en-ro
newsdev=raw/dev/newsdev2016-enro newstest=raw/test/newstest2016-enro
plain corpus "" "$(both $europarl) raw/setimes" "$europarl.en $setimes.en" "$europarl.ro $setimes.ro"
plain valid --segments "$newsdev-src.en.sgm $newsdev-ref.ro.sgm" $newsdev-src.en.sgm $newsdev-ref.ro.sgm
plain test --segments "$newstest-src.en.sgm $newstest-ref.ro.sgm" $newstest-src.en.sgm $newstest-ref.ro.sgm

for name in corpus valid test; do tokenise $name 8; done
clean corpus train --longest 250 --ratio 1.5

learn_bpe joint 40000
apply_bpe 8
binarise --joined-dictionary --workers 8

# -- training --------------------------------------------------------------------------------------------------------

ar=(
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
    --arch transformer_wmt_en_de --share-all-embeddings --dropout 0.3
    --warmup-updates 4000
    --whole-batch 32768 --max-tokens 8192 --max-update 50000
    --eval-bleu-args '{"beam": 5}'
)
dinoiser=(
    --criterion diffusion_loss --arch dinoiser_wmt16_en_ro
    --weight-decay 0.01 --warmup-updates 4000
    --whole-batch 131072 --max-tokens 8192 --max-update 80000
    --validate-interval 50 --save-interval 10 --eval-bleu-args '{"iter_decode_max_iter": 20}'
)
difformer=(
    --criterion diffusion_loss --arch difformer_wmt16_en_ro
    --weight-decay 0.01 --warmup-updates 10000 --clip-norm 1
    --whole-batch 32768 --max-tokens 8192 --max-update 120000
    --validate-interval 10 --save-interval 10 --eval-bleu-args '{"iter_decode_max_iter": 20}'
)
diffglat=(
    --criterion diffusion_loss --arch diffglat_wmt16_en_ro_ctc --glance-updates 120000
    --weight-decay 0.01 --warmup-updates 10000 --clip-norm 2
    --whole-batch 32768 --max-tokens 8192 --max-update 120000
    --validate-interval 10 --save-interval 10
)

# -- translations ----------------------------------------------------------------------------------------------------

ar_ways=("beam 5 | --beam 5 --max-tokens 8000")
teaching=(16 --beam 5 --max-tokens 8000) # shards, and flags of the teacher's translations
systems --best 5
table --language "$TARGET"
