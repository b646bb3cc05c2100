#!/usr/bin/env bash
# The workflow on a real Slurm of one node (make test-slurm): starts it, tests, stops it always.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap '"$here/stop.sh" "$dir"; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$here/start.sh" "$dir"
case $? in
  0) ;;
  77)
    echo "**** SKIPPED: the workflow was NOT tested on Slurm ****" >&2
    exit 0
    ;;
  *) exit 1 ;;
esac
pytest -rs "$here/cluster.py" "$@"
