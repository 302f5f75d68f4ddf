# shellcheck shell=bash
# What the launchers do on a host, as scripts for its shell. Everything lies under ~/c2s: tree (this repository), venv, data,
# buckets (mounted), and run with pid, exit and the logs.

host_setup() { # host_setup EXTRAS; the images' own Python is too old, so uv brings one
    cat <<END
set -eu
mkdir -p ~/c2s/tree ~/c2s/data ~/c2s/run
tar -xzf ~/c2s_tree.tar.gz -C ~/c2s/tree
ln -sfn ../data ~/c2s/tree/data
export PATH="\$HOME/.local/bin:\$PATH"
command -v uv >/dev/null || python3 -m pip install --user --quiet uv
[ -x ~/c2s/venv/bin/python ] || uv venv --quiet --python 3.12 ~/c2s/venv
uv pip install --quiet --python ~/c2s/venv/bin/python -e ~/c2s/tree[$1]
command -v gcsfuse >/dev/null || {
    key=/usr/share/keyrings/cloud.google.asc
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee \$key >/dev/null
    echo "deb [signed-by=\$key] https://packages.cloud.google.com/apt gcsfuse-\$(lsb_release -cs) main" |
        sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get update -qq
    sudo apt-get install -qq -y gcsfuse >/dev/null
}
echo "c2s: set up on \$(hostname)"
END
}

host_copy() { # host_copy gs://bucket/folder
    printf 'gcloud storage rsync --recursive %q ~/c2s/data/%q\n' "$1" "$(basename "$1")"
}

host_mount() { # host_mount BUCKET: as ~/c2s/buckets/BUCKET; renaming folders has to be allowed, checkpoints need it
    cat <<END
mkdir -p ~/c2s/buckets/$1
mountpoint -q ~/c2s/buckets/$1 || gcsfuse --implicit-dirs --rename-dir-limit=1000000 $1 ~/c2s/buckets/$1
END
}

host_run() { # host_run ASSIGNMENTS ARGUMENT...: start training, detached; refuses where it runs already
    cat <<END
set -eu
$(_alive)
if alive; then echo "c2s: already running on \$(hostname), as \$(cat ~/c2s/run/pid); stop it first" >&2; exit 1; fi
cd ~/c2s/tree
rm -f ../run/pid ../run/exit
log=\$(date -u +%Y%m%dT%H%M%SZ).log
ln -sfn "\$log" ../run/log
$1
setsid nohup bash -c 'echo \$\$ > ../run/wrapper; "\$@" & echo \$! > ../run/pid; wait \$!; echo \$? > ../run/exit' c2s \
    ../venv/bin/python -m c2s_jax.train $(printf '%q ' "${@:2}") > "../run/\$log" 2>&1 < /dev/null &
for _ in 1 2 3 4 5 6 7 8 9 10; do [ -s ../run/pid ] && break; sleep 0.2; done
echo "c2s: started on \$(hostname) as \$(cat ../run/pid)"
END
}

host_stop() { # SIGTERM, on which training saves a checkpoint; SIGKILL after two minutes
    cat <<END
cd ~/c2s/run
$(_alive)
if alive; then kill -TERM "\$(cat pid)"; fi
for _ in \$(seq 120); do alive || exit 0; sleep 1; done
kill -KILL "\$(cat pid)"
END
}

host_status() { # one line: c2s-run: HOST: running, none, or "exit N"
    cat <<END
$(_alive)
say() { echo "c2s-run: \$(hostname): \$1"; }
cd ~/c2s/run 2>/dev/null || { say none; exit 0; }
if alive; then say running
elif [ -s exit ]; then say "exit \$(cat exit)"
elif [ -e pid ]; then say 'exit unknown'
else say none; fi
END
}

host_logs() { # host_logs LINES FOLLOW
    printf 'tail -n %q %s ~/c2s/run/log\n' "$1" "${2:+-F}"
}

_alive() { # the recorded process, unless its number is another's by now
    cat <<'END'
alive() { p=$(cat ~/c2s/run/pid 2>/dev/null) && grep -qa c2s_jax "/proc/$p/cmdline" 2>/dev/null; }
END
}
