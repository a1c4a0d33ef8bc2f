#!/usr/bin/env bash
# All that a GPU has to show, in at most 8 minutes on an H100 or H200; results come into OUT as they are found.
#
#   benchmarks/gpu_checks.sh                          # PYTHON=python OUT=outputs/gpu_checks DEVICE=cuda SIZES=full TOTAL=470
#   DEVICE=cpu SIZES=tiny benchmarks/gpu_checks.sh    # tries the script itself, in about 3 minutes on 2 quiet cores
#
# Each part has its own limit in seconds, and its failure does not stop the next; after TOTAL seconds none begins. The tests
# and the whole runs are at the same time, as nothing in them is timed; then what is timed runs alone. OUT/summary.txt says
# how each part ended.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python} OUT=${OUT:-outputs/gpu_checks} DEVICE=${DEVICE:-cuda} SIZES=${SIZES:-full} TOTAL=${TOTAL:-470}
export PYTHONPATH=${PYTHONPATH:-.} PYTHONUNBUFFERED=1
mkdir -p "$OUT"
: >"$OUT/summary.txt"

part() { # NAME LIMIT COMMAND...
  local name=$1 limit=$2 began=$SECONDS code=0 left=$((TOTAL - SECONDS))
  shift 2
  if [ "$left" -le 0 ]; then
    echo "$name: not run, no time was left" | tee -a "$OUT/summary.txt"
    return
  fi
  [ "$limit" -lt "$left" ] || limit=$left
  timeout -k 5 "$limit" "$@" >"$OUT/$name.txt" 2>&1 || code=$?
  echo "$name: exit $code after $((SECONDS - began)) of $limit s" | tee -a "$OUT/summary.txt"
}

if [ "$SIZES" = tiny ]; then
  workloads=(tiny) steps=(--batch 2 --n 1 --forms reference fused+graphs)
  retraining=(--layers 3 --channels 4 --batch 2 --n 1)
else
  workloads=(W1 W2) steps=(--batch 64 256 --n 10)
  retraining=(--layers 20 --channels 36 --batch 96 --n 10)
fi
checks=("$PYTHON" benchmarks/gpu_checks.py --device "$DEVICE" --sizes "$SIZES" --out "$OUT")

part about 30 "${checks[@]}" about
cat "$OUT/about.txt"

part tests_two_steps 150 "$PYTHON" -m pytest -q -m gpu tests/test_gpu.py -k two_steps &
part tests_graphs 150 "$PYTHON" -m pytest -q -m gpu tests/test_gpu.py -k "eager_operations or wait" &
others=$(grep -rl mark.gpu tests --include="*.py")
# shellcheck disable=SC2086
part tests_others 150 "$PYTHON" -m pytest -q -m gpu $others -k "not two_steps and not eager_operations and not wait" &
part runs 150 "${checks[@]}" runs &
wait

part profile 60 "${checks[@]}" profile
# Each in a process of its own: an error of the device ends all that a process can do there.
for workload in "${workloads[@]}"; do
  part "step_time_$workload" 70 "$PYTHON" benchmarks/step_time.py "$workload" "${steps[@]}" --device "$DEVICE" --alone
done
part retrain_time 60 "$PYTHON" benchmarks/retrain_time.py PC_DARTS_cifar "${retraining[@]}" --device "$DEVICE" --alone
part protocol 70 "${checks[@]}" protocol
part protocol_bfloat16 55 "${checks[@]}" protocol bfloat16
cat "$OUT/summary.txt"
! grep -qv "exit 0" "$OUT/summary.txt"
