DROP_IN=/etc/containerd/conf.d/50-layerswarm.toml
MAIN=/etc/containerd/config.toml
KEY=/etc/layerswarm/cluster.key

systemd_runs() {
  [ -d /run/systemd/system ]
}

# Upper bounds of socket buffers. All files of the administrator are read, so that theirs win. Fails in containers, where it may.
apply_sysctl() {
  for program in /usr/lib/systemd/systemd-sysctl /lib/systemd/systemd-sysctl; do
    [ -x "$program" ] || continue
    "$program" --prefix=/net/core/rmem_max --prefix=/net/core/wmem_max >/dev/null 2>&1 || true
    return 0
  done
}

# Compiled code of another version is never used again.
drop_compiled_code() {
  rm -rf /var/cache/layerswarm/v8
}

# True when containerd on this host uses the daemon as its content store.
wired() {
  [ -e "$DROP_IN" ] && return 0
  # Wired by hand, in the main file.
  grep -Eqs '^[[:space:]]*\[proxy_plugins\.["'\'']?layerswarm' "$MAIN" && return 0
  # Wired in another way that setup knows of. Only "1" means wired: a broken installation must stay removable.
  if command -v layerswarm >/dev/null; then
    status=0
    timeout 20 layerswarm teardown --check >/dev/null 2>&1 || status=$?
    [ "$status" -eq 1 ] && return 0
  fi
  return 1
}

refuse_while_wired() {
  wired || return 0
  cat >&2 <<TEXT
layerswarm: containerd on this host uses layerswarm as its content store. Without it containerd could
neither pull images nor create containers, so the package stays. First run
    layerswarm teardown --restart-containerd
(or "layerswarm teardown" and restart containerd yourself), then remove the package again.
TEXT
  exit 1
}

say_what_next() {
  if [ -e "$KEY" ]; then
    echo "layerswarm: installed, not started. Next, wire containerd to it: layerswarm setup (try --dry-run first)."
  else
    cat <<TEXT
layerswarm: installed, not started. Next, wire containerd to it, which also enables and starts it:
    layerswarm setup --cluster-key FILE    (FILE: the swarm's key; without it setup makes a new one)
See layerswarm(1).
TEXT
  fi
}
