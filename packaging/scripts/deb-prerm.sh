#!/bin/sh
set -e
#include common.sh

# At an upgrade the old daemon serves on until postinst restarts it: all of its code is loaded.
if [ "$1" = remove ]; then
  refuse_while_wired
  if systemd_runs; then
    deb-systemd-invoke stop layerswarm.service layerswarm.socket >/dev/null || true
  fi
fi
exit 0
