import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hasCode } from '../../src/base/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { ContentDoor, aCall, someBytes, withCode } from './content-door.ts';

const MIB = 1024 * 1024;
const sha512 = `sha512:${'ab'.repeat(64)}`;
const absent = digestOf(Buffer.from('absent'));

test('Info gives size, nanosecond times and labels, and the blob is owned from then on', async () => {
  const door = new ContentDoor();
  const digest = door.store.put(someBytes(300), 'published');
  await door.store.update(digest, { a: 'b' }, 'replace');
  const stored = door.store.info(digest);
  assert.ok(stored);
  const { info } = (await door.unary('Info', { digest })) as { info: Record<string, unknown> };
  assert.deepEqual([info['digest'], info['size'], info['labels']], [digest, 300, { a: 'b' }]);
  const created = info['createdAt'] as { seconds: number; nanos: number };
  assert.equal(BigInt(created.seconds) * 1_000_000_000n + BigInt(created.nanos), stored.created_ns);
  assert.equal(door.store.blobs.get(digest)?.state, 'owned');
});

test('Info of a blob that is not here says so in containerd’s words', async () => {
  const door = new ContentDoor();
  const asked = door.unary('Info', { digest: absent });
  await assert.rejects(asked, withCode('not_found', new RegExp(`^content ${absent}: not found$`)));
  await assert.rejects(door.unary('Info', { digest: sha512 }), withCode('not_found'));
});

const digestMethods = ['Info', 'Update', 'Delete', 'Read'];
for (const name of digestMethods) {
  for (const digest of [
    '',
    'sha256:ABC',
    'md5:d41d8cd98f00b204e9800998ecf8427e',
    '../../etc/passwd',
  ]) {
    test(`${name} refuses the digest ${JSON.stringify(digest)}`, async () => {
      const door = new ContentDoor();
      const asked =
        name === 'Read'
          ? door.stream(name, { digest })
          : door.unary(name, name === 'Update' ? { info: { digest } } : { digest });
      await assert.rejects(asked, withCode('invalid_argument', /failed validation/));
    });
  }
}

test('Update without a blob in it is refused', async () => {
  await assert.rejects(new ContentDoor().unary('Update', {}), withCode('invalid_argument'));
});

const masks: { id: string; paths: string[]; expected: Record<string, string> }[] = [
  { id: 'no mask', paths: [], expected: { b: '2', 'x.y': '9' } },
  { id: 'labels', paths: ['labels'], expected: { b: '2', 'x.y': '9' } },
  { id: 'labels and one of them', paths: ['labels.b', 'labels'], expected: { b: '2', 'x.y': '9' } },
  { id: 'one label', paths: ['labels.b'], expected: { a: '1', c: '3', b: '2' } },
  {
    id: 'a label whose key has a dot',
    paths: ['labels.x.y'],
    expected: { a: '1', c: '3', 'x.y': '9' },
  },
  { id: 'a label it has no value for', paths: ['labels.a'], expected: { c: '3' } },
];
for (const { id, paths, expected } of masks) {
  test(`Update with a mask of ${id} changes just that`, async () => {
    const door = new ContentDoor();
    const digest = door.store.put(someBytes(3));
    await door.store.update(digest, { a: '1', c: '3' }, 'replace');
    const info = { digest, labels: { b: '2', 'x.y': '9' } };
    const answer = await door.unary('Update', { info, updateMask: { paths } });
    assert.deepEqual((answer['info'] as Record<string, unknown>)['labels'], expected);
    assert.deepEqual(door.store.info(digest)?.labels, expected);
  });
}

for (const path of ['size', 'digest', 'created_at', 'labelsx', '']) {
  test(`Update of ${JSON.stringify(path)} is refused`, async () => {
    const door = new ContentDoor();
    const digest = door.store.put(someBytes(3));
    const asked = door.unary('Update', { info: { digest }, updateMask: { paths: [path] } });
    await assert.rejects(asked, withCode('invalid_argument', /^cannot update/));
  });
}

test('Update of a blob that is not here is not found', async () => {
  const asked = new ContentDoor().unary('Update', { info: { digest: absent } });
  await assert.rejects(asked, withCode('not_found'));
});

test('List gives what containerd owns, a hundred at a time', async () => {
  const door = new ContentDoor();
  for (let i = 0; i < 230; i++) door.store.put(Buffer.from(`blob ${i}`));
  door.store.put(Buffer.from('kept for peers'), 'published');
  const answers = await door.stream('List', {});
  const sizes = answers.map((a) => (a['info'] as unknown[]).length);
  assert.deepEqual(sizes, [100, 100, 30]);
});

test('List of nothing is an empty stream', async () => {
  assert.deepEqual(await new ContentDoor().stream('List', {}), []);
});

test('List keeps what a filter lets pass', async () => {
  const door = new ContentDoor();
  const digest = door.store.put(Buffer.from('one'));
  door.store.put(Buffer.from('two'));
  await door.store.update(digest, { 'containerd.io/gc.root': 'x' }, 'replace');
  for (const filter of [`digest==${digest}`, 'labels."containerd.io/gc.root"==x']) {
    const [answer] = await door.stream('List', { filters: [filter] });
    const found = answer?.['info'] as { digest: string }[];
    assert.deepEqual(
      found.map((i) => i.digest),
      [digest],
    );
  }
  await assert.rejects(door.stream('List', { filters: ['=='] }), withCode('invalid_argument'));
});

test('Delete of a blob makes it vanish from List, and of an absent one succeeds', async () => {
  const door = new ContentDoor();
  const digest = door.store.put(Buffer.from('one'));
  await door.unary('Delete', { digest });
  await door.unary('Delete', { digest: absent });
  assert.deepEqual(await door.stream('List', {}), []);
});

const blob = someBytes(2 * MIB + 500, 3);
const MESSAGE = 16_384;
const ranges = [
  { id: 'all', offset: 0, size: 0, length: blob.length },
  { id: 'a negative size', offset: 0, size: -5, length: blob.length },
  { id: 'a negative offset', offset: -7, size: 10, length: 10 },
  { id: 'a page', offset: 32768, size: 32768, length: 32768 },
  { id: 'past the end', offset: 2 * MIB, size: 9 * MIB, length: 500 },
  { id: 'at the end', offset: blob.length, size: 10, length: 0 },
];
for (const { id, offset, size, length } of ranges) {
  test(`Read of ${id} gives the bytes in messages of up to 16 KiB`, async () => {
    const door = new ContentDoor();
    const digest = door.store.put(blob);
    const answers = await door.stream('Read', { digest, offset, size });
    const start = Math.max(0, offset);
    const chunks = answers.map((a) => a['data'] as Buffer);
    assert.ok(Buffer.concat(chunks).equals(blob.subarray(start, start + length)));
    assert.ok(chunks.every((c) => c.length > 0 && c.length <= MESSAGE));
    // Offsets count from the beginning of the read, as containerd's own server has it.
    let end = 0;
    for (const answer of answers) {
      assert.equal(answer['offset'], end);
      end += (answer['data'] as Buffer).length;
    }
    const immediate = door.immediate({ digest, offset, size });
    assert.equal(immediate !== undefined, length > 0 && length <= MIB);
    if (immediate) assert.deepEqual(immediate.answers, answers);
  });
}

test('an immediate Read hands out the window itself, without a copy', () => {
  const door = new ContentDoor();
  const digest = door.store.put(blob);
  const { parts } = door.immediate({ digest, offset: 100, size: 50 })!;
  assert.equal(parts[0]?.[1]?.buffer, door.store.blobs.get(digest)?.bytes.buffer);
  assert.equal(door.register.value('content_read_bytes_total', { way: 'window' }), 50);
});

test('Read beyond the end is out of range', async () => {
  const door = new ContentDoor();
  const digest = door.store.put(blob);
  const request = { digest, offset: blob.length + 1 };
  const message = new RegExp(`^read past object length ${blob.length} bytes$`);
  await assert.rejects(door.stream('Read', request), withCode('out_of_range', message));
  assert.equal(door.immediate(request), undefined);
});

test('Read of an absent blob is not found', async () => {
  const door = new ContentDoor();
  await assert.rejects(door.stream('Read', { digest: absent }), withCode('not_found'));
  assert.equal(door.immediate({ digest: absent }), undefined);
});

test('Read of an empty blob is an empty stream', async () => {
  const door = new ContentDoor();
  const digest = door.store.put(Buffer.alloc(0));
  assert.deepEqual(await door.stream('Read', { digest }), []);
});

test('Read of a blob whose file is too short says so instead of ending early', async () => {
  const door = new ContentDoor();
  const digest = door.store.put(blob);
  door.store.blobs.get(digest)!.bytes = blob.subarray(0, MIB);
  await assert.rejects(door.stream('Read', { digest }), withCode('data_loss'));
  assert.equal(door.immediate({ digest, offset: MIB, size: 10 }), undefined);
});

test('Read ends when the client has gone', async () => {
  const door = new ContentDoor();
  const digest = door.store.put(blob);
  const call = aCall(AbortSignal.abort());
  await assert.rejects(door.stream('Read', { digest }, call), { name: 'AbortError' });
});

test('Read reads the same requests by hand as protobufjs writes', () => {
  const door = new ContentDoor();
  const safe = fc.oneof(fc.maxSafeInteger(), fc.integer({ min: -3, max: 300 }));
  fc.assert(
    fc.property(fc.string({ maxLength: 200 }), safe, safe, (digest, offset, size) => {
      const text = digest.toWellFormed();
      const bytes = encodeRead(text, offset, size);
      assert.deepEqual(door.decode('Read', bytes), { digest: text, offset, size });
    }),
  );
});

for (const name of ['Info', 'Update', 'List', 'Delete', 'Read', 'Status', 'Write', 'Abort']) {
  test(`${name} answers arbitrary bytes with a request or invalid_argument`, () => {
    const door = new ContentDoor();
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        if (name === 'Read') door.immediateOf(bytes);
        try {
          door.decode(name, bytes);
        } catch (error) {
          assert.ok(hasCode(error, 'invalid_argument'), String(error));
        }
      }),
    );
  });
}

test('Status and ListStatuses count what peers have delivered to a waiting ref', async () => {
  const door = new ContentDoor();
  const digest = digestOf(Buffer.from('layer'));
  const ref = `k8s.io/1/layer-${digest}`;
  door.pull.known.add(digest);
  const writer = door.writer();
  await writer.open(ref, 1000);
  const offsets: unknown[] = [];
  for (const progress of [0, 400, 5000]) {
    door.pull.ticket().progress = progress;
    const { status } = (await door.unary('Status', { ref })) as { status: Record<string, unknown> };
    offsets.push(status['offset']);
    const { statuses } = (await door.unary('ListStatuses', {})) as { statuses: unknown[] };
    assert.deepEqual(statuses, [status]);
    assert.deepEqual([status['ref'], status['total'], status['expected']], [ref, 1000, '']);
  }
  assert.deepEqual(offsets, [0, 400, 1000]);
  await writer.reset();
  const { status } = (await door.unary('Status', { ref })) as { status: Record<string, unknown> };
  assert.equal(status['offset'], 0);
});

test('ListStatuses keeps the refs that a filter lets pass', async () => {
  const door = new ContentDoor();
  for (const ref of ['default/1/a', 'default/1/b']) await door.writer().open(ref);
  const { statuses } = (await door.unary('ListStatuses', {
    filters: ['ref~=/a$/', 'ref==none'],
  })) as { statuses: { ref: string }[] };
  assert.deepEqual(
    statuses.map((s) => s.ref),
    ['default/1/a'],
  );
});

test('Status of an unknown ref is not found', async () => {
  const asked = new ContentDoor().unary('Status', { ref: 'no such' });
  await assert.rejects(asked, withCode('not_found', /^could not get status for ref "no such"/));
});

test('Abort of an unknown ref succeeds', async () => {
  await new ContentDoor().unary('Abort', { ref: 'no such' });
});

/** A ReadContentRequest in plain protobuf, written another way than the code under test reads it. */
function encodeRead(digest: string, offset: number, size: number): Buffer {
  const varint = (value: number): number[] => {
    const out: number[] = [];
    let rest = BigInt.asUintN(64, BigInt(value));
    for (; rest > 127n; rest >>= 7n) out.push(Number(rest & 127n) | 128);
    return [...out, Number(rest)];
  };
  const text = Buffer.from(digest);
  return Buffer.from([
    ...[0x0a, ...varint(text.length), ...text],
    ...[0x10, ...varint(offset)],
    ...[0x18, ...varint(size)],
  ]);
}
