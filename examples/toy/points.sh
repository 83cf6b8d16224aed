#!/bin/sh
# POINTS' whole road on toy data, from raw captions to a soup. Repeated, every step finds its work done.
#
#     sh examples/toy/points.sh         in examples/toy/work/points
#     sh examples/toy/points.sh DIR     in a folder of its own, where other settings may lie already
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-$here/work/points}
mkdir -p "$work"
cd "$work"
for settings in vlm pretrain pool; do
    [ -f $settings.yaml ] || cp "$here/points/$settings.yaml" .
done

run() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# Models this small are fastest on one thread each.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

[ -f toy/toy.json ] || run python -m finetune.toy.road toy
run soup finetune vlm.yaml

# What a language model does in CapFusion, a rule does here, on loopback. It stays for as long as this script does.
printf '\n$ python -m finetune.toy.fuser --port-file fuser.port &\n'
rm -f fuser.url # an earlier run's
python -m finetune.toy.fuser --port-file fuser.port >fuser.url &
fuser_process=$!
trap 'kill "$fuser_process" 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
until [ -s fuser.url ]; do
    kill -0 "$fuser_process" || exit 1
    sleep 0.1
done
run soup data capfuse toy/raw -o fused.jsonl --captioner vlm/base --fuser "$(cat fuser.url)" --fuser-model toy-rule-fuser
run soup data filter fused.jsonl -o kept.jsonl --model vlm/base --keep 0.4 --workers 2
run python -m finetune.toy.captions toy/raw fused.jsonl kept.jsonl
run soup finetune pretrain.yaml

printf '\n$ export LMUData=toy/LMUData\n'
export LMUData=toy/LMUData
written=parentheses:100
seen="mmstar,hallusionbench,TempCompass_MCQ_8frame,grounding:toy/boxes.jsonl@$written"
asked="$seen,grounding:toy/points.jsonl@$written,grounding:toy/screenspot@$written"
some="--split 0.5 --workers 2"

# A set is kept if it makes these better beyond chance. Pointing and interfaces are scored in parts, of which no single
# question's points are known: the sets that are about them are left to be souped.
run soup select pool.yaml --eval "$seen" $some --accept 'p>0.9'
[ -f pool.selected.study.yaml ] || { printf 'nothing is left to be souped\n' && exit 0; }
run soup finetune pool.selected.yaml
run soup greedy --pool ckpts-selected/ --eval "$asked" $some -o out/
run soup maximum --pool ckpts-selected/ --eval "$asked" $some -o soups/maximum/
run soup average --pool ckpts-selected/ --eval "$asked" $some -o soups/average/
run soup eval vlm/base/ pretrain/base/ ckpts.select/base/ --eval "$asked" $some --run-dir ckpts-selected.soup/
run soup report ckpts-selected.soup/ --html report.html
