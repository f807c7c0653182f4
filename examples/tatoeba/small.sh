#!/usr/bin/env bash
# Tatoeba, German and English, true case: 160,000 short sentences, every system small enough for a CPU. `--minutes` runs
# it in pieces, and `--systems` two processes side by side, each in a folder of its own.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../small.sh"
files=(train valid test) merges=8000
. "$example/../gzipped.sh"
systems "${averaged[@]}"
table --language "$TARGET"
