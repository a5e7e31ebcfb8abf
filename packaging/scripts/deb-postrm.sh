#!/bin/sh
set -e

if [ "$1" = remove ]; then
  rm -rf /var/cache/layerswarm /run/layerswarm
  # Enabled units without files would be complained about at each boot.
  if command -v deb-systemd-helper >/dev/null; then
    deb-systemd-helper mask layerswarm.socket layerswarm.service >/dev/null || true
  fi
fi

if [ "$1" = purge ]; then
  if command -v deb-systemd-helper >/dev/null; then
    deb-systemd-helper purge layerswarm.socket layerswarm.service >/dev/null || true
    deb-systemd-helper unmask layerswarm.socket layerswarm.service >/dev/null || true
  fi
  # The host's identity, the swarm's key, what setup wrote for the unit, and blobs under construction. Blobs are containerd's and stay.
  rm -rf /var/lib/layerswarm /var/cache/layerswarm /run/layerswarm
  rm -rf /var/lib/containerd/io.containerd.content.v1.content/.layerswarm
  rm -f /etc/layerswarm/cluster.key /etc/systemd/system/layerswarm.service.d/50-layerswarm-setup.conf
  for directory in /etc/systemd/system/layerswarm.service.d /etc/layerswarm; do
    [ ! -d "$directory" ] || rmdir --ignore-fail-on-non-empty "$directory"
  done
fi

if [ -d /run/systemd/system ]; then
  systemctl --system daemon-reload >/dev/null || true
fi
exit 0
