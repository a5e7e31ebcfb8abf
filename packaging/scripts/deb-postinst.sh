#!/bin/sh
set -e
#include common.sh

if [ "$1" = configure ]; then
  drop_compiled_code
  for unit in layerswarm.socket layerswarm.service; do
    # Masked while it was removed.
    deb-systemd-helper unmask "$unit" >/dev/null || true
    # "layerswarm setup" enables them: before containerd uses the daemon it should not work in containerd's directory, a reboot included.
    # Afterwards as the administrator left it.
    if { [ -n "$2" ] || wired; } && deb-systemd-helper --quiet was-enabled "$unit"; then
      deb-systemd-helper enable "$unit" >/dev/null || true
    else
      deb-systemd-helper update-state "$unit" >/dev/null || true
    fi
  done
  if systemd_runs; then
    apply_sysctl
    systemctl --system daemon-reload >/dev/null || true
    if systemctl --quiet is-active layerswarm.service; then
      # The socket stays: calls of containerd wait in it. containerd itself is never restarted.
      deb-systemd-invoke restart layerswarm.service >/dev/null || true
    elif [ -z "$2" ] && wired; then
      # Not at an upgrade: then somebody stopped it.
      deb-systemd-invoke start layerswarm.socket layerswarm.service >/dev/null || true
    fi
  fi
  [ -n "$2" ] || say_what_next
fi

# A removal that was refused or failed: nothing was stopped.
exit 0
