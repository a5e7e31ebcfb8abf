if [ -d /run/systemd/system ]; then
  systemctl --system daemon-reload >/dev/null 2>&1 || :
  if [ "$1" -ge 1 ]; then
    # The socket stays: calls of containerd wait in it. containerd itself is never restarted.
    systemctl try-restart layerswarm.service >/dev/null 2>&1 || :
  fi
fi
if [ "$1" -eq 0 ]; then
  # rpm has no purge: state, key and a changed configuration (config.toml.rpmsave) stay.
  rm -rf /var/cache/layerswarm /run/layerswarm
fi
exit 0
