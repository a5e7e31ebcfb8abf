// What the check of lost blobs makes of what the daemon knows, and of what it reads.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { blobsCheck, type BlobsFacts, judgeBlobs } from '../../src/host/doctor/blobs.ts';
import type { DoctorContext } from '../../src/host/doctor/context.ts';
import { doctorModules, healthyView, judgeTable } from './doctor-bench.ts';

const D = (c: string): string => `sha256:${c.repeat(64)}`;
const looked = (over: Partial<Extract<BlobsFacts, { kind: 'looked' }>> = {}): BlobsFacts => ({
  kind: 'looked',
  lost: [],
  lost_total: 0,
  read: undefined,
  wrong: [],
  ...over,
});

judgeTable<BlobsFacts>('blobs', judgeBlobs, [
  { id: 'none lost', facts: looked(), level: 'ok', says: /misses no blob/ },
  { id: 'all read', facts: looked({ read: 9 }), level: 'ok', says: /last byte \(9\)/ },
  {
    id: 'no daemon',
    facts: { kind: 'no-daemon' },
    level: 'note',
    says: /no daemon/,
    mend: 'socket',
  },
  {
    id: 'one lost',
    facts: looked({ lost: [D('a')], lost_total: 1 }),
    level: 'fail',
    says: /a{64} is gone or wrong/,
    mend: `layerswarm repair ${D('a')}`,
  },
  {
    id: 'one read and wrong',
    facts: looked({ read: 1, wrong: [{ digest: D('b'), state: 'lost' }] }),
    level: 'fail',
    says: /b{64} is wrong on disk/,
    mend: `layerswarm repair ${D('b')}`,
  },
  {
    id: 'one that containerd believes to have and nobody has',
    facts: looked({ read: 1, wrong: [{ digest: D('c'), state: 'absent' }] }),
    level: 'fail',
    says: /c{64} is gone from disk/,
    mend: `layerswarm repair ${D('c')}`,
  },
]);

test('twenty are named, the others counted', () => {
  const lost = Array.from({ length: 22 }, (_, i) => `sha256:${String(i).padStart(64, '0')}`);
  const finding = judgeBlobs(looked({ lost, lost_total: 1500 }));
  assert.equal(finding.details.length, 20);
  assert.ok(finding.details.some((detail) => detail.startsWith('1480 further')));
});

test('without --read-all nothing is read', async () => {
  const view = healthyView({ blobs: { lostCount: 1, lost: [{ digest: D('a') }] } });
  const context: DoctorContext = {
    ...doctorModules(),
    daemon: async () => ({ kind: 'answers', view, elapsed_ms: 1 }),
    containerd: () => Promise.reject(new Error('not asked')),
  };
  const facts = await blobsCheck.gather(context, new AbortController().signal);
  assert.deepEqual(facts, looked({ lost: [D('a')], lost_total: 1 }));
});
