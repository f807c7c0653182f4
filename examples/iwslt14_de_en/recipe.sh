#!/usr/bin/env bash
# IWSLT14 German-English: de-en.tgz to the table. Text is cleaned, split and lowercased as fairseq's
# prepare-iwslt14.sh does, with punctuation normalised besides; all systems read one joined dictionary. The flags of
# the Transformer are those of fairseq's example; those of DINOISER and Difformer their released scripts', but for the
# number of updates (DINOISER's is stated nowhere); those of Diff-Glat are ours.

set -euo pipefail
SOURCE=de TARGET=en TOKENIZER=moses SPLIT_DASHES=false LOWERCASE=true
declare -A titles=([ar]=Transformer [dinoiser]=DINOISER [difformer]=Difformer [diffglat]="Diff-Glat CTC")
SYSTEMS="ar dinoiser difformer diffglat" SETS="raw distilled" GPUS=1 NEEDS_DATA=yes
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/recipe.sh"
. "$example/../in_common.sh"

# -- text ------------------------------------------------------------------------------------------------------------

data_files
step unpack '$DATA/de-en.tgz' raw/de-en 'tar -xzf "$DATA/de-en.tgz" -C raw'

step plain-corpus raw/de-en "$(both text/corpus.plain)" \
    "$(in_both "grep -vE '<(url|talkid|keywords)>' raw/de-en/train.tags.de-en.\$language |
    sed -E 's#</?(title|description)>##g' | python3 \"\$TOOLS/plain.py\" >text/corpus.plain.\$language")"
step plain-test raw/de-en "$(both text/test.plain)" \
    "$(in_both "for part in TED.dev2010 TEDX.dev2012 TED.tst2010 TED.tst2011 TED.tst2012; do
    python3 \"\$TOOLS/plain.py\" --segments raw/de-en/IWSLT14.\$part.de-en.\$language.xml
done >text/test.plain.\$language")"

for name in corpus test; do tokenise $name 2; done
clean corpus kept --longest 175 --ratio 1.5
step split "$(both text/kept.tok)" "$(both text/train.tok) $(both text/valid.tok)" \
    "$(in_both "awk 'NR % 23 != 0' text/kept.tok.\$language >text/train.tok.\$language
    awk 'NR % 23 == 0' text/kept.tok.\$language >text/valid.tok.\$language")"

learn_bpe joint 10000
apply_bpe 1
binarise --joined-dictionary

# -- training --------------------------------------------------------------------------------------------------------

ar=(
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1
    --arch transformer_iwslt_de_en --share-all-embeddings --dropout 0.3
    --weight-decay 1e-4 --warmup-updates 4000
    --whole-batch 4096 --max-tokens 4096 --max-update 60000
    --eval-bleu-args '{"beam": 5}'
)
dinoiser=(
    --criterion diffusion_loss --arch dinoiser_iwslt_de_en
    --weight-decay 0.01 --warmup-updates 4000
    --whole-batch 32768 --max-tokens 8192 --max-update 200000
    --validate-interval 20 --save-interval 20 --eval-bleu-args '{"iter_decode_max_iter": 20}'
)
difformer=(
    --criterion diffusion_loss --arch difformer_iwslt_de_en
    --weight-decay 0.01 --warmup-updates 10000 --clip-norm 1
    --whole-batch 8000 --max-tokens 8000 --max-update 300000
    --validate-interval 5 --save-interval 5 --eval-bleu-args '{"iter_decode_max_iter": 20}'
)
diffglat=(
    --criterion diffusion_loss --arch diffglat_iwslt_de_en_ctc --glance-updates 200000
    --weight-decay 0.01 --warmup-updates 10000 --clip-norm 2
    --whole-batch 8192 --max-tokens 8192 --max-update 200000
    --validate-interval 5 --save-interval 5
)

# -- translations ----------------------------------------------------------------------------------------------------

ar_ways=("beam 5 | --beam 5 --max-tokens 8000")
teaching=(8 --beam 5 --max-tokens 8000) # shards, and flags of the teacher's translations
systems --best 5
table --language "$TARGET" --lowercase
