#include common.sh

drop_compiled_code
if [ "$1" -eq 1 ] && wired; then
  # Otherwise "layerswarm setup" enables them: before containerd uses the daemon it should not work in containerd's directory.
  systemctl --no-reload enable layerswarm.socket layerswarm.service >/dev/null 2>&1 || :
fi
if systemd_runs; then
  apply_sysctl
  systemctl --system daemon-reload >/dev/null 2>&1 || :
  if [ "$1" -eq 1 ] && wired; then
    systemctl start layerswarm.socket layerswarm.service >/dev/null 2>&1 || :
  fi
fi
[ "$1" -ne 1 ] || say_what_next
exit 0
