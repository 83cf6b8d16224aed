#!/bin/sh
# The whole study on toy data: sh study.sh [run.yaml]. Stopped and started again, it goes on.
set -eu
cd "$(dirname "$0")"
mkdir -p work/study
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

# A judge for the two benchmarks that need one: a rule on loopback, no model. It stays for as long as this script does.
rm -f work/study/judge.url # an earlier run's
python -m finetune.toy.judge --port-file work/study/judge.port >work/study/judge.url &
judge_process=$!
trap 'kill "$judge_process" 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
until [ -s work/study/judge.url ]; do
    kill -0 "$judge_process" || exit 1
    sleep 0.1
done
soup study "${1:-run.yaml}" --judge-url "$(cat work/study/judge.url)"
