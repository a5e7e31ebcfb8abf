#include common.sh

drop_compiled_code
if [ "$1" -eq 1 ]; then
  # Enabled when the distribution's presets say so; Fedora's and RHEL's leave units of others disabled.
  systemctl --no-reload preset layerswarm.socket layerswarm.service >/dev/null 2>&1 || :
fi
if systemd_runs; then
  apply_sysctl
  systemctl --system daemon-reload >/dev/null 2>&1 || :
  if [ "$1" -eq 1 ] && { [ -e "$KEY" ] || wired; }; then
    systemctl start layerswarm.socket layerswarm.service >/dev/null 2>&1 || :
  fi
fi
[ "$1" -ne 1 ] || say_what_next
exit 0
