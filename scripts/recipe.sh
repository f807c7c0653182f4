# shellcheck shell=bash
# What all recipes share: examples/*/recipe.sh set the variables below, then source this with the user's arguments.
#   SOURCE TARGET       languages, unless the user chooses a `direction` (see choices); TOKENIZER (moses, none), SPLIT_DASHES and LOWERCASE (true, false): how text is prepared
#   titles              of the systems, in the table; SYSTEMS is their order, the teacher first: ar
#   SYSTEMS SETS GPUS   what is trained, on which data, on how many GPUs, where the user does not say otherwise
#   settings            numbers of the recipe's own, each of which the user may set by --NAME N (may be left out)
#   choices             words of the recipe's own, the default first, likewise by --NAME WORD; then `choice` has them. A `subset` is what is decoded and scored, test where there is no such choice
#   NEEDS_DATA          "yes", or "" for a recipe that makes its data itself
# All paths are relative to --out; only "$DATA", "$USER_DIR" and "$TOOLS", which are exported, lie elsewhere.

die() { echo "recipe: $*" >&2; exit 2; }

[ "${BASH_VERSINFO[0]}" -ge 5 ] || [[ $BASH_VERSION == 4.4* ]] || die "bash $BASH_VERSION is too old; 4.4 is needed"
unset CDPATH # with it, cd may print
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
example=$(cd "$(dirname "$0")" && pwd)
all_systems=$SYSTEMS all_sets=$SETS
declare -A settings choices choice

usage() {
    sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
    cat <<END_OF_USAGE
usage: bash $0 ${NEEDS_DATA:+--data DIR }--out DIR [options]
  --dry-run             print every command, in order, and write nothing
  --systems "A B"       of: $all_systems
  --sets "A B"          of: $all_sets
  --gpus N              0 is the CPU (default: $GPUS); the batch stays what the recipe says
  --minutes N           stop after so many; the same command then goes on (default: no limit)
  --precision P         fp32, fp16 or bf16, in training and for the teacher's translations (default: fp32)
  --redo STEP           make this step again, and what depends on it; may be given several times
END_OF_USAGE
    local name
    for name in "${!choices[@]}"; do printf '  --%-18s  of: %s (default: the first)\n' "$name WORD" "${choices[$name]}"; done
    for name in "${!settings[@]}"; do printf '  --%-18s  (default: %s)\n' "$name N" "${settings[$name]}"; done
}

# -- the user's arguments --------------------------------------------------------------------------------------------

chosen() { # FLAG "WORDS" "CHOICES": refuse a word that is no choice
    local word
    for word in $2; do [[ " $3 " == *" $word "* ]] || die "$1 $word is none of: $3"; done
}

absolute() { [[ $1 == /* ]] && echo "$1" || echo "$PWD/$1"; }

given=("$@") DATA='' OUT='' dry_run='' redo='' PRECISION=fp32 minutes=''
while (($#)); do
    case $1 in
        --help | -h) usage; exit ;;
        --dry-run) dry_run=yes; shift; continue ;;
    esac
    (($# > 1)) || die "$1 is no flag of this recipe, or lacks its value; see --help"
    case $1 in
        --data) DATA=$(absolute "$2") ;;
        --out) OUT=$(absolute "$2") ;;
        --systems) chosen "$1" "$2" "$all_systems"; SYSTEMS=$2 ;;
        --sets) chosen "$1" "$2" "$all_sets"; SETS=$2 ;;
        --gpus) [[ $2 =~ ^[0-9]+$ ]] || die "--gpus $2 is no number"; GPUS=$((10#$2)) ;;
        --minutes) [[ $2 =~ ^[0-9]+$ ]] && ((10#$2 > 0)) || die "--minutes $2 is no number above 0"; minutes=$((10#$2)) ;;
        --precision) chosen "$1" "$2" "fp32 fp16 bf16"; PRECISION=$2 ;;
        --redo) redo+=" $2" ;;
        --?*) if [ -n "${choices[${1#--}]-}" ]; then
                chosen "$1" "$2" "${choices[${1#--}]}"
                choice[${1#--}]=$2
                shift 2
                continue
            fi
            [ -n "${settings[${1#--}]-}" ] || die "$1 is no flag of this recipe; see --help"
            [[ $2 =~ ^[0-9]+$ ]] || die "$1 $2 is no number"
            settings[${1#--}]=$((10#$2)) ;;
        *) die "$1 is no flag of this recipe; see --help" ;;
    esac
    shift 2
done
for name in "${!choices[@]}"; do : "${choice[$name]:=${choices[$name]%% *}}"; done
[ -z "${choice[direction]-}" ] || SOURCE=${choice[direction]%-*} TARGET=${choice[direction]#*-}
[ -n "$OUT" ] || die "--out is missing: the folder that everything is written to"
[ -z "$NEEDS_DATA" ] || [ -n "$DATA" ] ||
    die "--data is missing: the folder with the files that $example/files.txt lists"
[ "$GPUS" -gt 0 ] || [ "$PRECISION" = fp32 ] || die "--precision $PRECISION needs a GPU"

wanted() { [[ " $SYSTEMS " == *" $1 "* && " $SETS " == *" $2 "* ]]; } # SYSTEM SET

has_teacher() { # the Transformer on the real data is trained: it is wanted, teaches, or another begins with its weights
    wanted ar raw || [[ " $SETS " == *" distilled "* || " $SYSTEMS " == *"_from_ar "* ]]
}

# -- where and with what ---------------------------------------------------------------------------------------------

if ! command -v fairseq-train >/dev/null; then
    [ -x "$scripts/../.venv/bin/fairseq-train" ] ||
        die "there is no fairseq-train; activate its environment, or run make setup"
    PATH=$(cd "$scripts/../.venv/bin" && pwd):$PATH
fi
USER_DIR=$(cd "$scripts/../fairseq_diffusion" && pwd) TOOLS=$scripts/text SCRIPTS=$scripts
export PATH DATA USER_DIR TOOLS SCRIPTS
unset DEADLINE
[ -z "$minutes" ] || export DEADLINE=$(($(date +%s) + 60 * minutes))
folders="raw text data checkpoints models results"
if [ -n "$dry_run" ]; then
    programs=${PATH%%:*}
    printf '%s\n' "export DATA=${DATA@Q} USER_DIR=${USER_DIR@Q} TOOLS=${TOOLS@Q} SCRIPTS=${SCRIPTS@Q} PATH=${programs@Q}:\$PATH" \
        "mkdir -p ${OUT@Q} && cd ${OUT@Q} && mkdir -p $folders"
else
    for name in $redo; do
        bash "$0" "${given[@]}" --dry-run | grep -x "# $name" >/dev/null ||
            die "--redo $name: there is no such step; --dry-run shows them"
    done
    mkdir -p "$OUT" && cd "$OUT"
    exec 9>>.lock
    python3 "$scripts/lock.py" 9
    # shellcheck disable=SC2086
    mkdir -p $folders
fi

data_files() { # check those in the recipe's files.txt, lines of NAME and ADDRESS, against its checksums.txt
    if [ -n "$dry_run" ]; then sed 's/^/#   data: /' "$example/files.txt"; return; fi
    python3 "$TOOLS/check_data.py" "$DATA" "$example/checksums.txt" data.sha256 <"$example/files.txt"
}

step() { # NAME "INPUT ..." "OUTPUT ..." COMMAND [option of step.py ...]
    local name=$1 inputs=$2 outputs=$3 command=$4
    shift 4
    if [ -n "$dry_run" ]; then
        printf '\n# %s\n#   from %s\n#   to %s\n%s\n' "$name" "$inputs" "$outputs" "$command"
        return
    fi
    [[ " $redo " != *" $name "* ]] || set -- "$@" --redo
    # shellcheck disable=SC2086  # the recipes' own names have no spaces
    python3 "$scripts/step.py" "$name" --inputs $inputs --outputs $outputs --command "$command" "$@"
}

# -- text ------------------------------------------------------------------------------------------------------------

both() { echo "$1.$SOURCE $1.$TARGET"; } # PREFIX: its file in either language

in_both() { printf 'for language in %s; do %s; done' "$SOURCE $TARGET" "$1"; } # COMMAND with $language in it

tokenise() { # NAME WORKERS: text/NAME.plain to text/NAME.tok
    local flags="--workers $2"
    ! $SPLIT_DASHES || flags+=" --split-dashes"
    ! $LOWERCASE || flags+=" --lowercase"
    step "tokenise-$1" "$(both "text/$1.plain")" "$(both "text/$1.tok")" \
        "$(in_both "python3 \"\$TOOLS/moses.py\" \$language $flags <text/$1.plain.\$language >text/$1.tok.\$language")"
}

clean() { # FROM TO FLAG ...: text/FROM.tok to text/TO.tok, without pairs that are empty, too long or unlike in length
    step "clean-$2" "$(both "text/$1.tok")" "$(both "text/$2.tok")" \
        "python3 \"\$TOOLS/clean_corpus.py\" $(both "text/$1.tok") $(both "text/$2.tok") ${*:3}"
}

codes() { [ -n "$joint" ] && echo text/bpe.codes || echo "text/bpe.$1.codes"; } # LANGUAGE

learn_bpe() { # joint|separate MERGES: from the training text, once; all else is split by these codes
    joint=${1#separate}
    local described="{\"source\": \"$SOURCE\", \"target\": \"$TARGET\", \"tokenizer\": \"$TOKENIZER\""
    described+=", \"split_dashes\": $SPLIT_DASHES, \"lowercase\": $LOWERCASE, \"bpe\": \"subword_nmt\"}"
    local learn="cat $(both text/train.tok) | subword-nmt learn-bpe -s $2 >text/bpe.codes"
    [ -n "$joint" ] ||
        learn=$(in_both "subword-nmt learn-bpe -s $2 <text/train.tok.\$language >text/bpe.\$language.codes")
    companions="$(printf '%s\n' "$(codes "$SOURCE")" "$(codes "$TARGET")" | uniq | tr '\n' ' ')text/preprocessing.json"
    step learn-bpe "$(both text/train.tok)" "$companions" "$learn
echo '$described' >text/preprocessing.json"
}

apply_bpe() { # WORKERS
    local split
    for split in train valid test; do
        step "apply-bpe-$split" "$(both "text/$split.tok") $companions" "$(both "text/$split.bpe")" \
            "$(in_both "subword-nmt apply-bpe -c $(codes \$language) --num-workers $1 \\
    -i text/$split.tok.\$language -o text/$split.bpe.\$language")"
    done
}

binarise() { # FLAG ...: the data-bin of the raw text; its dictionaries are those of all data made from it
    step binarise "$(both text/train.bpe) $(both text/valid.bpe) $(both text/test.bpe)" data/raw \
        "fairseq-preprocess -s $SOURCE -t $TARGET \\
    --trainpref text/train.bpe --validpref text/valid.bpe --testpref text/test.bpe --destdir data/raw $*
rm -f data/raw/preprocess.log # its times would make equal data differ"
    companions+=" data/raw/dict.$SOURCE.txt data/raw/dict.$TARGET.txt"
}

# -- models ----------------------------------------------------------------------------------------------------------

quoted() { # words as a shell reads them, some in a line
    local word line=''
    for word; do
        [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word=${word@Q}
        if ((${#line} > 90)) && [[ $word == --* ]]; then echo "$line \\"; line="   "; fi
        line+=" $word"
    done
    echo "$line"
}

half() { case $PRECISION in fp32) ;; *) echo "--$PRECISION" ;; esac; }

cpu() { [ "$GPUS" -gt 0 ] || echo --cpu; }

train() { # NAME SET FLAG ...: on data/SET; --whole-batch is over all GPUs, what --max-tokens or --batch-size is on one
    local model=$1-$2 set=$2 flags=() whole='' unit='' most='' ranks=$((GPUS > 1 ? GPUS : 1)) start=fairseq-train
    local last='' stop='' goal='' first=''
    shift 2
    while (($#)); do
        case $1 in
            --whole-batch) whole=$2; shift ;;
            --max-tokens | --batch-size) unit=$1 most=$2; shift ;;
            --finetune-from-model) first=" $2"; flags+=("$1" "$2"); shift ;;
            *) flags+=("$1") ;;
        esac
        shift
    done
    ((ranks <= whole)) || die "--gpus $GPUS is more than a batch of $whole can be shared by"
    ((most * ranks <= whole)) || most=$((whole / ranks))
    local updates=$(((2 * whole + most * ranks) / (2 * most * ranks))) # rounded
    local batch=$((updates * most * ranks))
    ((10 * batch >= 9 * whole && 10 * batch <= 11 * whole)) ||
        die "$model wants batches of $whole, and $updates updates of $unit $most on $ranks GPUs make $batch;" \
            "use other --gpus, or edit $unit in $0"
    local what="fairseq-train data/$set $(quoted "${flags[@]}") --whole-batch $whole $(half)"
    if [ -n "$minutes" ]; then # until the time of this call is over, then 75 unless the training is complete
        last=$(sed -n 's/.*--max-update \([0-9]*\).*/\1/p' <<<"${flags[*]}")
        goal="python3 \"\$SCRIPTS/training_time.py\" checkpoints/$model"
        stop="--stop-time-hours \"\$($goal)\"" goal=$'\n'"$goal --max-update $last"
    fi
    [ "$ranks" = 1 ] || start="torchrun --standalone --nproc_per_node=$ranks \"\$(command -v fairseq-train)\""
    step "train-$model" "data/$set$first" "checkpoints/$model" \
        "$start data/$set --user-dir \"\$USER_DIR\" --task diffusion_translation --save-dir checkpoints/$model \\
   $(quoted "${flags[@]}") \\
    $unit $most --update-freq $updates --distributed-world-size $ranks $(half) $(cpu) $stop$goal" --continues --identity "$what"
}

average() { # NAME SET FLAG ...: models/NAME-SET has all that translating takes: weights, dictionaries, codes
    local model=$1-$2
    step "average-$model" "checkpoints/$model $companions" "models/$model" \
        "mkdir -p models/$model
cp $companions models/$model
fairseq-diffusion average --inputs checkpoints/$model ${*:3} --output models/$model/average.pt"
}

teacher=models/ar-raw/average.pt

distil() { # SHARDS FLAG ...: the teacher's translations of the training set, in so many parts, a part on each GPU
    local what="fairseq-diffusion distill data/raw --path $teacher --output data/distilled --shards $1 --force"
    local flags="-- $(quoted "${@:2}") $(half)"
    step distil "data/raw $teacher" data/distilled "$what --jobs $((GPUS > 1 ? GPUS : 1)) $flags $(cpu)" \
        --continues --identity "$what $flags"
}

subset=${choice[subset]-test} of='' # of: what files about another subset than test begin with
[ "$subset" = test ] || of=$subset-
scored=() results=() references=text/$subset.plain.$TARGET # several for a page that has them

decode() { # TITLE NAME SET FLAG ...: a row of the table; the part of the title before its last comma is the series in the picture
    local name model=$2-$3 path=models/$2-$3/average.pt inputs=models/$2-$3/average.pt
    name=$of$(tr '[:upper:]' '[:lower:]' <<<"$1" | sed 's/[^a-z0-9]\{1,\}/-/g')
    [[ " ${*:4} " != *" --iter-decode-with-external-reranker "* ]] || path+=:$teacher inputs+=" $teacher"
    local what="fairseq-generate data/raw --user-dir \"\$USER_DIR\" --task diffusion_translation --path $path \\
   $(quoted "${@:4}") \\
    --gen-subset $subset --remove-bpe --distributed-world-size 1 --results-path results/$name"
    step "decode-$name" "data/raw $inputs" "results/$name" "$what $(cpu)" --identity "$what"
    scored+=(--hyp "$1=results/$name/generate-$subset.txt") results+=("results/$name")
}

follow() { # SYSTEM SET FLAG of average ...: train, average, and decode in each of the recipe's ways
    local -n trained=$1 ways=$1_ways
    local way
    train "$1" "$2" "${trained[@]}" "${common[@]}"
    average "$@"
    for way in "${ways[@]}"; do
        [[ $way != *--iter-decode-with-external-reranker* ]] || has_teacher || continue
        # shellcheck disable=SC2086  # flags without spaces
        decode "${titles[$1]}, $2, ${way%% | *}" "$1" "$2" ${way#* | }
    done
}

systems() { # FLAG of average ...: all that was chosen, on each set; the teacher before the distilled set
    local system set
    for set in raw distilled; do
        [ $set = raw ] || [[ " $SETS " != *" $set "* ]] || distil "${teaching[@]}"
        for system in $all_systems; do
            if wanted "$system" $set || { [ "$system $set" = "ar raw" ] && has_teacher; }; then follow "$system" $set "$@"; fi
        done
    done
}

table() { # FLAG of fairseq-diffusion score ...
    local table=${of}table name chosen=()
    step "$table" "${results[*]} $references" "$table.txt $table.json $table.md" \
        "fairseq-diffusion score $(quoted "${scored[@]}") \
   $(printf ' --ref %s' $references) $* --json $table.json --markdown $table.md >$table.txt" --remake
    step "${of}picture" "$table.json" "${of}pareto.png" \
        "fairseq-diffusion plot --pareto $table.json --output ${of}pareto.png" --remake
    for name in "${!choice[@]}"; do chosen+=("$name=${choice[$name]}"); done
    step "${of}records" "$table.json" "${of}records" \
        "python3 \"\$SCRIPTS/records.py\" $(basename "$example")/$(basename "$0" .sh) $table.json ${of}records ${chosen[*]}" \
        --remake
    [ -n "$dry_run" ] || cat "$table.txt"
}
