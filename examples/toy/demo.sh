#!/bin/sh
# The whole line on toy data, through the commands that a user types. Repeated, every step finds its work done.
#
#     make demo                         what `make` runs, with soup on the PATH
#     sh examples/toy/demo.sh DIR       the same in a folder of its own, where seeds.py left a finetune.yaml
set -eu
cd "$(dirname "$0")"
work=${1:-work}
config=$work/finetune.yaml
[ -f "$config" ] || config=finetune.yaml
judge="--eval mmbench,ocrbench --split 0.5"

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# Models this small are fastest on one thread each.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

[ "$config" != finetune.yaml ] || run python -m finetune.toy "$work/toy"
run soup finetune "$config"

printf '\n$ export LMUData=%s/toy/LMUData\n' "$work"
export LMUData="$work/toy/LMUData"
run soup check --pool "$work/ckpts/" --base "$work/base/"
run soup greedy --pool "$work/ckpts/" $judge -o "$work/out/"
run soup maximum --pool "$work/ckpts/" $judge -o "$work/soups/maximum/"
run soup average --pool "$work/ckpts/" $judge -o "$work/soups/average/"
run soup eval "$work/base/" $judge --run "$work/ckpts.soup/"
run soup report "$work/ckpts.soup/"
run python ask.py "$work/out/"
