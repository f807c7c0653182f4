# shellcheck shell=bash
# From gzipped files, one a language and set, to a data-bin with one joined dictionary. `files` names the sets' files,
# training, validation and test, without .LANGUAGE.gz; `merges` is the number of BPE operations.

data_files
plain() { # NAME FILE: the user's FILE, gzipped or not, as text/NAME.plain
    local gz=.gz
    [ ! -e "$DATA/$2.$SOURCE" ] || gz=
    step "plain-$1" "\$DATA/$2.$SOURCE$gz \$DATA/$2.$TARGET$gz" "$(both "text/$1.plain")" \
        "$(in_both "python3 \"\$TOOLS/plain.py\" \"\$DATA/$2.\$language$gz\" >text/$1.plain.\$language")"
}
plain corpus "${files[0]}"
plain valid "${files[1]}"
plain test "${files[2]}"

for name in corpus valid test; do tokenise $name 2; done
clean corpus train --longest 175 --ratio 9

learn_bpe joint "$merges"
apply_bpe 1
binarise --joined-dictionary
