#!/usr/bin/env bash
# Say whether vLLM for processors runs on this machine; if not, why.
case "$(uname -s) $(uname -m)" in
    "Linux x86_64")
        grep -qw avx2 /proc/cpuinfo || { echo "vLLM's wheel for processors needs AVX2, which this one lacks."; exit 1; } ;;
    "Linux aarch64") ;;
    *) echo "vLLM has no wheel for $(uname -s) on $(uname -m)."; exit 1 ;;
esac
