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

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# Models this small are fastest on one thread each.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

[ "$config" != finetune.yaml ] || run python -m finetune.toy "$work/toy"
run soup finetune "$config"

# A judge for the two benchmarks that need one: a rule on loopback, no model. It stays for as long as this script does.
printf '\n$ python -m finetune.toy.judge --port-file %s &\n' "$work/judge.port"
rm -f "$work/judge.url" # an earlier run's
python -m finetune.toy.judge --port-file "$work/judge.port" >"$work/judge.url" &
judge_process=$!
trap 'kill "$judge_process" 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
until [ -s "$work/judge.url" ]; do
    kill -0 "$judge_process" || exit 1
    sleep 0.1
done
judge="--judge-url $(cat "$work/judge.url") --judge-model toy-rule-judge"
eval="--eval opencompass --split 0.5 --workers 2 $judge"

printf '\n$ export LMUData=%s/toy/LMUData\n' "$work"
export LMUData="$work/toy/LMUData"
run soup check --pool "$work/ckpts/" --base "$work/base/"
run soup greedy --pool "$work/ckpts/" $eval -o "$work/out/"
run soup maximum --pool "$work/ckpts/" $eval -o "$work/soups/maximum/"
run soup average --pool "$work/ckpts/" $eval -o "$work/soups/average/"
run soup eval "$work/base/" $eval --run-dir "$work/ckpts.soup/"
run soup report "$work/ckpts.soup/"
run python ask.py "$work/out/"
