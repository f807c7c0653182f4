#!/usr/bin/env bash
# Multi30k, German and English, true case: 29,000 captions of images, every system small enough for a CPU. `--minutes`
# runs it in pieces, and `--systems` two processes side by side, each in a folder of its own.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../small.sh"
files=(train val test_2016_flickr) merges=4000
. "$example/../gzipped.sh"
systems "${averaged[@]}"
table --language "$TARGET"
