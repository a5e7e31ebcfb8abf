#include common.sh

# 0: the last version goes. Otherwise an upgrade: the old daemon serves on until it is restarted.
if [ "$1" -eq 0 ]; then
  refuse_while_wired
  if systemd_runs; then
    systemctl --no-reload disable --now layerswarm.service layerswarm.socket >/dev/null 2>&1 || :
  else
    systemctl --no-reload disable layerswarm.service layerswarm.socket >/dev/null 2>&1 || :
  fi
fi
exit 0
