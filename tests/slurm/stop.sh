#!/usr/bin/env bash
# stop.sh FOLDER: cancel its jobs, stop the daemons that start.sh started, take its files away.
dir=$1

alive() { # a process that no one has waited for (a zombie) is not
  grep -qs '^State:.*[^Z] (' "/proc/$1/status"
}

grep -qsF "# ftd's pretended Slurm in $dir:" /etc/slurm/slurm.conf || exit 0
squeue -h -o %A 2> /dev/null | xargs -r scancel
for _ in $(seq 20); do
  [ -z "$(squeue -h 2> /dev/null)" ] && break
  sleep 0.5
done
for file in "$dir/slurmd.pid" "$dir/slurmctld.pid" "$dir/munge/munged.pid"; do
  [ -s "$file" ] || continue
  pid=$(cat "$file")
  kill "$pid" 2> /dev/null
  for _ in $(seq 20); do
    alive "$pid" || break
    sleep 0.5
  done
  alive "$pid" && kill -9 "$pid"
done
rm -f /etc/slurm/slurm.conf /etc/slurm/gres.conf
