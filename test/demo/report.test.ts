import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseAccessLog } from '../host/lab/registry.ts';
import type { HostPull } from './host-pull.ts';
import { closingOf, complaintsOf, rowOf, tableOf } from './report.ts';
import type { PullRow } from './report.ts';

const LAYER = `/v2/demo/app/blobs/sha256:${'a'.repeat(64)}`;
const LOG = [
  ['10.77.0.2', 'HEAD', '/v2/demo/app/manifests/v1', 900],
  ['10.77.0.2', 'GET', '/v2/demo/app/manifests/v1', 900],
  ['10.77.0.2', 'GET', LAYER, 5000],
  ['10.77.0.3', 'GET', '/v2/demo/app/manifests/v1', 900],
]
  .map(
    ([client, method, path, bytes]) =>
      `${client}:4711 - - [21/Nov/2026:04:00:00 +0000] "${method} ${path} HTTP/1.1" 200 ${bytes} "" "containerd"`,
  )
  .join('\n');

test('the registry column counts what its access log shows for the host', () => {
  const events = parseAccessLog(LOG);
  const layer_gets = events.filter((event) => event.path === LAYER);
  const [a, b] = [pulled('A', '10.77.0.2'), pulled('B', '10.77.0.3')].map((pull) =>
    rowOf(pull, events, layer_gets),
  );
  assert.deepEqual(
    [a, b].map((r) => [r?.bytes_from_registry, r?.registry_layer_gets, r?.registry_layer_bytes]),
    [
      [5900, 1, 5000],
      [900, 0, 0],
    ],
  );
  assert.deepEqual(complaintsOf([a!, b!]), []);
  assert.match(closingOf([a!, b!]), /B asked it for no layer/);
});

test('a layer GET of a later host and a wrong digest are complaints, those of A are not', () => {
  const row = (host: string, more: Partial<PullRow> = {}): PullRow => ({
    host,
    client: 'ctr',
    containerd: '1.7.24',
    seconds: 1.25,
    bytes_from_peers: 0,
    bytes_from_registry: 2048,
    registry_layer_gets: 0,
    registry_layer_bytes: 0,
    digests_ok: true,
    ...more,
  });
  const fetched = { registry_layer_gets: 2, registry_layer_bytes: 2048 };
  const rows = [row('A', fetched), row('B', fetched), row('C', { digests_ok: false })];
  const complaints = complaintsOf(rows);
  assert.deepEqual(
    complaints.map((text) => text[0]),
    ['B', 'C'],
  );
  const lines = tableOf(rows).split('\n');
  assert.equal(lines.length, 4);
  assert.match(lines[3]!, /^C .*WRONG$/);
});

function pulled(label: string, address: string): HostPull {
  return {
    planned: { name: label.toLowerCase(), label, client: 'ctr', line: '1.7' },
    version: '1.7.24',
    address,
    seconds: 2,
    bytes_from_peers: 0,
    wrong_digests: [],
  };
}
