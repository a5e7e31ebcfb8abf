import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  humanBytes,
  humanDuration,
  humanRate,
  renderStatus,
  safeText,
  table,
} from '../../src/cli/render.ts';
import { exampleStatus } from './command-bench.ts';

test('bytes are told in three figures of the fitting unit', () => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 KiB'],
    [1536, '1.5 KiB'],
    [10 * 1024, '10 KiB'],
    [1024 ** 3, '1.0 GiB'],
    [999.6 * 1024 ** 2, '1000 MiB'],
    [2 ** 53 - 1, '8.0 PiB'],
  ];
  for (const [bytes, text] of cases) assert.equal(humanBytes(bytes), text);
  assert.equal(humanRate(0), '-');
  assert.equal(humanRate(250 * 1024 ** 2), '250 MiB/s');
});

test('durations are told in their two largest units', () => {
  const cases: [number, string][] = [
    [0, '0s'],
    [59.9, '59s'],
    [60, '1m'],
    [3601, '1h'],
    [93_784, '1d 2h'],
  ];
  for (const [seconds, text] of cases) assert.equal(humanDuration(seconds), text);
});

test('columns are as wide as their widest cell', () => {
  assert.deepEqual(table(['A', 'NUMBER'], [['long cell', '1']], ['NUMBER']), [
    'A          NUMBER',
    'long cell       1',
  ]);
});

test('text of other hosts cannot steer the terminal or break the table', () => {
  assert.equal(safeText('a\u001b[31mb\nc\u202e'), 'a?[31mb?c?');
  assert.equal(safeText('x'.repeat(100)).length, 48);
  const status = exampleStatus();
  status.swarm!.peers[0]!.zone = '\u001b]0;pwned\u0007';
  assert.ok(!renderStatus(status, { color: false }).includes('\u001b'));
});

test('a status shows state, peers, reasons of failed addresses, bans, blobs and transfers', () => {
  const text = renderStatus(exampleStatus('degraded'), { color: false });
  assert.match(text, /^layerswarm 0\.1\.0 {2}degraded\n/);
  assert.match(text, /up 1d 2h/);
  assert.match(text, /1 connected of 3 known, 1 with content, 0 served/);
  assert.match(
    text,
    /^…\w+peer +10\.0\.0\.2:7878 +quic +rack-2 +connected +12 +1\.0 GiB +512 B +250 MiB\/s$/m,
  );
  assert.match(text, /^node3:7878 +waiting +wrong_key$/m);
  assert.match(text, /^short +wrong_piece +1m 1s$/m);
  assert.match(text, /12 owned \(3\.0 GiB\), 2 cached \(1\.0 KiB of 10 GiB\), 1 lost or damaged/);
  assert.match(text, /^abababababab +200 B +25% +fetching +2s +…\w+peer 50 B$/m);
});

test('colours come only where they are wanted', () => {
  assert.ok(renderStatus(exampleStatus(), { color: true }).includes('\u001b[32mconnected'));
  assert.ok(!renderStatus(exampleStatus(), { color: false }).includes('\u001b'));
});

test('a daemon without a swarm says so', () => {
  const status = { ...exampleStatus('alone'), swarm: null, transfers: [] };
  assert.match(renderStatus(status, { color: false }), /^swarm {4}off$/m);
});

test('what stands against the daemon shows with the commands that mend it, as they are to be typed', () => {
  const status = exampleStatus('degraded');
  const what = 'The file /k may be read by others';
  const mend = ['chmod 600 /k'];
  status.conditions.push({ cause: 'cluster_key', what, mend, sinceSeconds: 61 });
  const text = renderStatus(status, { color: false });
  assert.match(text, /^cluster_key, for 1m 1s: The file \/k may be read by others$/m);
  assert.match(text, /^ {2}mend: chmod 600 \/k$/m);
  assert.ok(!renderStatus(exampleStatus(), { color: false }).includes('mend'));
});

test('the status says by which call containerd uses the daemon, or why it does not', () => {
  const status = exampleStatus();
  const line = () => /^content .*/m.exec(renderStatus(status, { color: false }))?.[0];
  assert.equal(
    line(),
    'content  containerd uses this daemon: last call 3s ago (Info, namespace k8s.io)',
  );
  status.containerd = { ...status.containerd!, lastCallNamespace: '' };
  assert.match(line() ?? '', /\(Info\)$/);
  status.containerd = { ...status.containerd, calls: 0, reason: 'no call yet' };
  assert.equal(line(), 'content  no call yet');
  status.containerd = { ...status.containerd, state: 'not_wired', reason: 'a file\u001b came' };
  assert.equal(line(), 'content  not in use: a file  came');
});
