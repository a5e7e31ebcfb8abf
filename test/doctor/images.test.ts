// What the image check makes of what it saw, and how an image is followed.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { DaemonError } from '../../src/base/errors.ts';
import { chooseEntries, hostPlatform, parseTree } from '../../src/host/doctor/image-tree.ts';
import {
  blobProblem,
  type ImageRow,
  ImageWalk,
  NO_RECORD,
} from '../../src/host/doctor/image-walk.ts';
import { type ImagesFacts, judgeImages } from '../../src/host/doctor/images.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { problemOf, type Verdict } from './doctor-bench.ts';

type Looked = Extract<ImagesFacts, { kind: 'looked' }>;
const D = `sha256:${'ab'.repeat(32)}`;
const image = (over: Partial<Looked['images'][number]> = {}): Looked['images'][number] => ({
  namespace: 'default',
  name: 'reg/app:v1',
  target: D,
  status: 'complete (7/7)',
  problems: [],
  discarded: 0,
  is_foreign: false,
  ...over,
});
const looked = (images: Looked['images'], over: Partial<Looked> = {}): Looked => ({
  kind: 'looked',
  is_wired: true,
  images_total: images.length,
  blobs: 7,
  images,
  ...over,
});
const missing = { role: 'layer', digest: D, problem: 'its file is gone' };

const imageRows: readonly (Verdict & { facts: ImagesFacts })[] = [
  { id: 'all readable', facts: looked([image()]), level: 'ok', says: /images: 1, blobs: 7/ },
  { id: 'no image', facts: looked([]), level: 'ok', says: /images: 0/ },
  { id: 'no containerd', facts: { kind: 'no-containerd' }, level: 'note', says: /no containerd/ },
  {
    id: 'no list',
    facts: { kind: 'no-list', why: 'hm' },
    level: 'fail',
    says: /hm/,
    mend: 'wiring',
  },
  {
    id: 'no daemon',
    facts: { kind: 'no-daemon' },
    level: 'fail',
    says: /no image can be read/,
    mend: 'restart layerswarm',
  },
  {
    id: 'a blob is missing',
    facts: looked([image({ problems: [missing] })]),
    level: 'fail',
    says: new RegExp(`reg/app:v1.*${D}`),
    mend: `layerswarm repair ${D}`,
  },
  {
    id: 'a blob of kubelet is missing',
    facts: looked([image({ namespace: 'k8s.io', problems: [missing] })]),
    level: 'fail',
    says: /k8s\.io/,
    mend: 'crictl pull reg/app:v1',
  },
  {
    id: 'a name for a shell',
    facts: looked([image({ name: "a';b", problems: [missing] })]),
    level: 'fail',
    says: /a';b/,
    mend: `'a'\\'';b'`,
  },
  {
    id: 'containerd alone says so',
    facts: looked([image({ status: 'error' })]),
    level: 'fail',
    says: /containerd says "error"/,
    mend: 'pull',
  },
  {
    id: 'layers were discarded',
    facts: looked([image({ status: 'incomplete (2/7)', discarded: 5 })]),
    level: 'note',
    says: /5 layers are not kept/,
    mend: 'discard_unpacked_layers',
  },
  {
    id: 'pulled for another platform',
    facts: looked([image({ status: 'unavailable (0/0)', is_foreign: true })]),
    level: 'ok',
    says: /images: 1/,
  },
  {
    id: 'more than can be looked at',
    facts: looked([image()], { images_total: 9 }),
    level: 'note',
    says: /1 of 9/,
  },
  {
    id: 'not wired',
    facts: looked([image()], { is_wired: false }),
    level: 'note',
    says: /own verdict/,
    mend: 'wiring',
  },
];
for (const row of imageRows) {
  test(`images: ${row.id}`, () => assert.equal(problemOf(judgeImages(row.facts), row), undefined));
}

test('images: twenty broken ones are named, the others counted', () => {
  const many = Array.from({ length: 25 }, (_, i) => image({ name: `i${i}`, problems: [missing] }));
  const finding = judgeImages(looked(many));
  assert.equal(finding.details.length, 20);
  assert.ok(finding.details.some((detail) => detail.includes('5 further')));
});

const problems = [
  [undefined, 5, { kind: 'there', size_bytes: 5 }, 5],
  [undefined, -1, { kind: 'there', size_bytes: 5 }, 5],
  [/does not have/, 5, { kind: 'missing' }, 5],
  [/data_loss/, 5, { kind: 'unreadable', why: 'data_loss' }, 5],
  [/4 bytes in place of 5/, 5, { kind: 'there', size_bytes: 4 }, 4],
  [/file is gone/, 5, { kind: 'there', size_bytes: 5 }, 'missing'],
  [/file has 4 bytes/, 5, { kind: 'there', size_bytes: 5 }, 4],
  [/EACCES/, 5, { kind: 'there', size_bytes: 5 }, 'unreadable: EACCES'],
] as const;
for (const [says, size, probe, disk] of problems) {
  test(`a blob of ${size} bytes, ${JSON.stringify(probe)}, on disk ${disk}: ${String(says)}`, () => {
    const problem = blobProblem(size, probe, disk);
    if (says === undefined) assert.equal(problem, undefined);
    else assert.match(problem ?? '', says);
  });
}

test('an image is followed from its index to the layers that containerd has a record of', async (t) => {
  const content_directory = mkdtempSync(join(tmpdir(), 'layerswarm-doctor-'));
  t.after(() => rmSync(content_directory, { recursive: true }));
  mkdirSync(join(content_directory, 'blobs/sha256'), { recursive: true });
  const blobs = new Map<string, Uint8Array>();
  const put = (content: string | object) => {
    const bytes = Buffer.from(typeof content === 'string' ? content : JSON.stringify(content));
    const digest = digestOf(bytes);
    blobs.set(digest, bytes);
    writeFileSync(join(content_directory, 'blobs', digest.replace(':', '/')), bytes);
    return { digest, size: bytes.length };
  };
  const [config, kept, gone, discarded] = ['c', 'kept', 'gone', 'discarded'].map(put);
  const manifest = put({ config, layers: [kept, gone, discarded] });
  const foreign = put({ config, layers: [] });
  const [os = '', architecture = ''] = hostPlatform().split('/');
  const other = { ...foreign, platform: { os: 'plan9', architecture } };
  const index = put({ manifests: [{ ...manifest, platform: { os, architecture } }, other] });
  rmSync(join(content_directory, 'blobs', gone!.digest.replace(':', '/')));
  const known = new Set([...blobs.keys()].filter((digest) => digest !== discarded!.digest));
  const door = {
    probe: async (digest: string) => {
      const size_bytes = blobs.get(digest)?.length;
      return size_bytes === undefined
        ? ({ kind: 'missing' } as const)
        : ({ kind: 'there', size_bytes } as const);
    },
    read: async (digest: string) => {
      const bytes = blobs.get(digest);
      if (bytes === undefined) throw new DaemonError('not_found', digest);
      return bytes;
    },
    [Symbol.dispose]: () => undefined,
  };
  const walk = new ImageWalk({ door }, { content_directory });
  const row: ImageRow = {
    namespace: 'n',
    name: 'i',
    target: index.digest,
    status: 'complete (1/1)',
  };
  const walked = await walk.walk(row, known, new AbortController().signal);
  const expected = {
    role: 'layer',
    digest: gone!.digest,
    problem: 'its file is gone from the content directory',
  };
  assert.deepEqual(walked.problems, [expected]);
  assert.equal(walked.discarded, 1);
  assert.equal(walked.is_foreign, false);
  // Index, manifest, config, kept and gone; neither the discarded layer nor the other platform.
  assert.equal(walk.blobs, 5);
});

test('of an index the entries for this host count, or, where containerd has none of them, those it has', () => {
  const entry = (digest: string, platform: string) =>
    ({ role: 'manifest', digest, size_bytes: 1, platform }) as const;
  const entries = [
    entry('a', 'linux/amd64'),
    entry('b', 'linux/arm64'),
    entry('c', 'unknown/unknown'),
  ];
  const pick = (...known: string[]) =>
    chooseEntries(entries, 'linux/amd64', (d) => known.includes(d)).map((e) => e.digest);
  assert.deepEqual(pick('a', 'b', 'c'), ['a']);
  assert.deepEqual(pick('b'), ['b']);
  assert.deepEqual(pick(), []);
  assert.equal(hostPlatform('x64'), 'linux/amd64');
  assert.equal(hostPlatform('arm64'), 'linux/arm64');
});

test('whatever a manifest holds, reading it gives blobs with digests and never throws', () => {
  fc.assert(
    fc.property(fc.oneof(fc.json(), fc.string()), (text) => {
      const node = parseTree(Buffer.from(text));
      assert.ok(['index', 'manifest', 'other'].includes(node.kind));
    }),
  );
  assert.equal(
    parseTree(Buffer.from('{"layers":[{"digest":"../../etc","size":1}]}')).kind,
    'manifest',
  );
  assert.deepEqual(parseTree(Buffer.from('{"layers":[{"digest":"../../etc","size":1}]}')), {
    kind: 'manifest',
    blobs: [],
  });
});

test('images: what containerd has no record of needs a pull and no repair', () => {
  const problem = { role: 'config', digest: D, problem: NO_RECORD };
  const { mend } = judgeImages(looked([image({ problems: [problem] })]));
  assert.deepEqual(mend, ['ctr -n default images pull reg/app:v1']);
});
