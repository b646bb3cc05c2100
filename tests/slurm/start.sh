#!/usr/bin/env bash
# start.sh FOLDER: a one-node Slurm with two pretended GPUs, its state in FOLDER; stop.sh stops it.
# Installs Debian's packages where it may. Exit status 77: it cannot be had here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
host=$(hostname -s)

cannot() {
  echo "cannot start a Slurm here: $1" >&2
  exit 77
}

[ "$(id -u)" = 0 ] || cannot "needs root"
if [ -e /etc/slurm/slurm.conf ] && ! grep -q "^# ftd's pretended Slurm" /etc/slurm/slurm.conf; then
  cannot "/etc/slurm/slurm.conf is there already and not ours"
fi
if [ -e /etc/slurm/slurm.conf ]; then # a killed run's: its folder is in the first line
  left=$(sed -n "1s/^# ftd's pretended Slurm in \(.*\): .*/\1/p" /etc/slurm/slurm.conf)
  "$here/stop.sh" "$left"
fi
for program in sbatch slurmctld slurmd munged; do
  command -v $program > /dev/null && continue
  command -v apt-get > /dev/null || cannot "no $program and no apt-get"
  export DEBIAN_FRONTEND=noninteractive
  (apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge) \
    > "$dir/apt.log" 2>&1 || cannot "apt-get install slurm-wlm munge failed: $(tail -n 1 "$dir/apt.log")"
  break
done

# In Debian's place: the plugin's job steps drop SLURM_CONF from their environment.
mkdir -p /etc/slurm "$dir/state" "$dir/spool"
for file in slurm.conf gres.conf; do
  sed -e "s|@DIR@|$dir|g" -e "s|@HOST@|$host|g" "$here/$file" > "/etc/slurm/$file"
done

# munged wants folders and a key of its own user; Debian's package made the key.
if ! munge -n 2> /dev/null | unmunge > /dev/null 2>&1; then
  mkdir -p /run/munge "$dir/munge"
  chown munge:munge /run/munge "$dir/munge"
  chmod 755 /run/munge "$dir"
  setpriv --reuid munge --regid munge --clear-groups munged --socket=/run/munge/munge.socket.2 \
    --key-file=/etc/munge/munge.key --pid-file="$dir/munge/munged.pid" \
    --log-file="$dir/munge/munged.log" --seed-file="$dir/munge/munged.seed"
fi
slurmctld
slurmd -N "$host"
for _ in $(seq 60); do
  [ "$(sinfo -h -o %T 2> /dev/null)" = idle ] && exit 0
  sleep 0.5
done
cat "$dir"/slurm*.log >&2
echo "the pretended Slurm does not start" >&2
exit 1
