#!/bin/sh
# The command layerswarm, on the Node that came with it.
# Options meant for another Node of this machine may be unknown to this one.
unset NODE_OPTIONS
exec /usr/lib/layerswarm/node --disable-warning=ExperimentalWarning /usr/lib/layerswarm/main.js "$@"
