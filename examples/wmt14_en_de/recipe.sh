#!/usr/bin/env bash
# WMT14 English-German: Europarl v7, Common Crawl and News Commentary v9; newstest2013 is the validation set,
# newstest2014 the test set. Tokenised and cleaned much as fairseq's prepare-wmt14en2de.sh --icml17 does (which cuts
# its validation set off the training set, and cleans after BPE). Batches and updates of the Transformer and of
# Diff-Glat are those of the DA-Transformer's recipe; DINOISER's and Difformer's flags their released scripts', but
# for DINOISER's updates, which are stated nowhere.

set -euo pipefail
SOURCE=en TARGET=de TOKENIZER=moses SPLIT_DASHES=true LOWERCASE=false
declare -A titles=([ar]=Transformer [dinoiser]=DINOISER [difformer]=Difformer [diffglat]="Diff-Glat CTC")
SYSTEMS="ar dinoiser difformer diffglat" SETS="raw distilled" GPUS=8 NEEDS_DATA=yes
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/recipe.sh"
. "$example/../in_common.sh"

# -- text ------------------------------------------------------------------------------------------------------------

data_files
unpack() { # NAME ARCHIVE FILE ...: these files of an archive
    step "unpack-$1" "\$DATA/$2" "$(printf 'raw/%s ' "${@:3}")" "tar -xzf \"\$DATA/$2\" -C raw ${*:3}"
}
unpack europarl training-parallel-europarl-v7.tgz $(both training/europarl-v7.de-en)
unpack commoncrawl training-parallel-commoncrawl.tgz $(both commoncrawl.de-en)
unpack news training-parallel-nc-v9.tgz $(both training/news-commentary-v9.de-en)
unpack valid dev.tgz dev/newstest2013-src.en.sgm dev/newstest2013-ref.de.sgm
unpack test test-full.tgz test-full/newstest2014-deen-src.en.sgm test-full/newstest2014-deen-ref.de.sgm

plain() { # NAME "FLAGS" ENGLISH GERMAN: raw files of either language, one after the other, as text/NAME.plain
    step "plain-$1" "$3 $4" "$(both "text/$1.plain")" "python3 \"\$TOOLS/plain.py\" $2 $3 >text/$1.plain.en
python3 \"\$TOOLS/plain.py\" $2 $4 >text/$1.plain.de"
}
corpora="raw/training/europarl-v7.de-en raw/commoncrawl.de-en raw/training/news-commentary-v9.de-en"
plain corpus "" "$(printf '%s.en ' $corpora)" "$(printf '%s.de ' $corpora)"
plain valid --segments raw/dev/newstest2013-src.en.sgm raw/dev/newstest2013-ref.de.sgm
plain test --segments raw/test-full/newstest2014-deen-src.en.sgm raw/test-full/newstest2014-deen-ref.de.sgm

for name in corpus valid test; do tokenise $name 8; done
clean corpus train --longest 250 --ratio 1.5

learn_bpe joint 40000
apply_bpe 8
binarise --joined-dictionary --workers 8

# -- training --------------------------------------------------------------------------------------------------------

ar=(
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
    --arch transformer_wmt_en_de --share-all-embeddings --dropout 0.1
    --warmup-updates 10000
    --whole-batch 65536 --max-tokens 8192 --max-update 300000
    --eval-bleu-args '{"beam": 5, "lenpen": 0.6}'
)
dinoiser=(
    --criterion diffusion_loss --arch dinoiser_wmt_en_de
    --weight-decay 0.01 --warmup-updates 4000
    --whole-batch 131072 --max-tokens 8192 --max-update 500000
    --validate-interval 10 --save-interval 10 --eval-bleu-args '{"iter_decode_max_iter": 20}'
)
difformer=(
    --criterion diffusion_loss --arch difformer_wmt_en_de
    --weight-decay 0.01 --warmup-updates 10000 --clip-norm 1
    --whole-batch 64000 --max-tokens 8000 --max-update 300000
    --validate-interval 5 --save-interval 5 --eval-bleu-args '{"iter_decode_max_iter": 20}'
)
diffglat=(
    --criterion diffusion_loss --arch diffglat_wmt_en_de_ctc --glance-updates 300000
    --weight-decay 0.01 --warmup-updates 10000 --clip-norm 2
    --whole-batch 65536 --max-tokens 8192 --max-update 300000
    --validate-interval 5 --save-interval 5
)

# -- translations ----------------------------------------------------------------------------------------------------

ar_ways=("beam 5 | --beam 5 --lenpen 0.6 --max-tokens 8000")
teaching=(64 --beam 5 --lenpen 0.6 --max-tokens 8000) # shards, and flags of the teacher's translations
systems --best 5
table --language "$TARGET"
