// Whether containerd uses the daemon: what counts as proof, and what does not.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { type ForeignFiles, ForeignFileLook } from '../../src/host/foreign-files.ts';
import { judgeLiveWiring, type Wiring, WiringWatch } from '../../src/host/wiring-watch.ts';
import { FakeClock } from '../fakes/fake-clock.ts';
import { MemoryLogger } from '../fakes/memory-logger.ts';
import { MemoryRegister } from '../fakes/memory-register.ts';

const foreign = (newest_epoch_ms: number): ForeignFiles => ({
  newest_epoch_ms,
  example: '/c/blobs/sha256/ab',
});

for (const [what, last, files, state] of [
  ['neither call nor file', undefined, undefined, 'unknown'],
  ['a call', 5_000, undefined, 'wired'],
  ['a file and no call', undefined, foreign(5_000), 'not_wired'],
  ['a file after the last call', 5_000, foreign(60_000), 'not_wired'],
  ['a call after the file', 60_000, foreign(5_000), 'wired'],
  ['a file within the slack of a call', 5_000, foreign(6_500), 'wired'],
] as const) {
  test(`${what}: ${state}`, () => {
    const call = last === undefined ? undefined : { at_epoch_ms: last };
    assert.equal(judgeLiveWiring(call, files).state, state);
  });
}

test('the sentence names a file', () => {
  const { reason } = judgeLiveWiring(undefined, foreign(1));
  assert.match(reason, /^a file came .*\/c\/blobs\/sha256\/ab/);
});

/** A watch over made-up calls and files. */
function watching() {
  const world: {
    last: { at_epoch_ms: number } | undefined;
    files: ForeignFiles | Error | undefined;
  } = {
    last: undefined,
    files: undefined,
  };
  let call: () => void = () => undefined;
  const clock = new FakeClock();
  const register = new MemoryRegister();
  const logger = new MemoryLogger();
  const heard: string[] = [];
  const watch = new WiringWatch(
    {
      ...{ clock, register, logger },
      calls: {
        get last() {
          return world.last;
        },
        onCall: (listener) => {
          call = listener;
          return () => (call = () => undefined);
        },
      },
      files: {
        look: async () => {
          if (world.files instanceof Error) throw world.files;
          return world.files;
        },
      },
    },
    ({ state }: Wiring) => heard.push(state),
  );
  const stop = new AbortController();
  const running = watch.run(stop.signal).catch(() => undefined);
  return { world, clock, watch, heard, logger, register, running, stop, called: () => call() };
}

test('each change is told once, and a call is believed at once', async () => {
  const { world, clock, watch, heard, logger, running, stop, called } = watching();
  await clock.advance(1);
  assert.equal(watch.wiring.state, 'unknown');
  world.files = foreign(10_000);
  await clock.advance(6_000);
  assert.deepEqual(heard, ['not_wired']);
  assert.deepEqual(logger.lines, []);
  world.last = { at_epoch_ms: 20_000 };
  called();
  assert.deepEqual([watch.wiring.state, heard], ['wired', ['not_wired', 'wired']]);
  await clock.advance(6_000);
  assert.deepEqual(heard, ['not_wired', 'wired']);
  stop.abort();
  await running;
});

test('a directory that cannot be read changes nothing', async () => {
  const { world, clock, watch, heard, running, stop, called } = watching();
  world.last = { at_epoch_ms: 1 };
  called();
  world.files = new Error('EIO');
  await clock.advance(10_000);
  assert.deepEqual([watch.wiring.state, heard], ['wired', ['wired']]);
  stop.abort();
  await running;
});

const HEX = ['a', 'b', 'c', 'd'].map((c) => c.repeat(64)) as [string, string, string, string];
const START_MS = 1_000_000_000_000;

function room(t: TestContext, own: { blobs?: string[]; ingests?: string[] } = {}) {
  const directory = mkdtempSync(join(tmpdir(), 'layerswarm-foreign-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  mkdirSync(join(directory, 'blobs/sha256'), { recursive: true });
  mkdirSync(join(directory, 'ingest'));
  const blobs = new Set(own.blobs ?? []);
  let asked = 0;
  const look = new ForeignFileLook(
    {
      own: {
        hasBlob: (digest) => {
          asked += 1;
          return blobs.has(digest.slice('sha256:'.length));
        },
        ingestDirectories: () => new Set(own.ingests ?? []),
      },
    },
    { content_directory: directory, since_epoch_ms: START_MS },
  );
  const blob = (hex: string) => writeFileSync(join(directory, 'blobs/sha256', hex), 'x');
  return { directory, look, blob, blobs, asked: () => asked };
}

test('a blob that we do not know counts at the second look', async (t) => {
  const { look, blob } = room(t);
  blob(HEX[0]);
  assert.equal(await look.look(), undefined);
  const found = await look.look();
  assert.ok(found?.example.endsWith(HEX[0]) && found.newest_epoch_ms > START_MS);
});

test('a blob of ours between its rename and its entry does not count', async (t) => {
  const { look, blob, blobs } = room(t);
  blob(HEX[0]);
  await look.look();
  blobs.add(HEX[0]);
  assert.equal(await look.look(), undefined);
});

test('ingests of others count, and neither our own nor names that are none', async (t) => {
  const { directory, look } = room(t, { ingests: [HEX[1]] });
  for (const name of [HEX[0], HEX[1], 'tmp']) mkdirSync(join(directory, 'ingest', name));
  writeFileSync(join(directory, 'blobs/sha256/readme'), '');
  await look.look();
  const found = await look.look();
  assert.ok(found?.example.endsWith(`ingest/${HEX[0]}`));
});

test('what lay there before the daemon started is not looked at again', async (t) => {
  const { directory, look, blob, asked } = room(t, { blobs: [HEX[0]] });
  blob(HEX[0]);
  await look.look();
  const before = asked();
  await look.look();
  assert.equal(asked(), before, 'a directory that has not changed is not read');
  // Only the change time counts, and it cannot be set back.
  utimesSync(join(directory, 'blobs/sha256', HEX[0]), 1, 1);
  assert.equal(await look.look(), undefined);
});

test('without the directories there is nothing', async (t) => {
  const { directory, look } = room(t);
  rmSync(directory, { recursive: true });
  assert.equal(await look.look(), undefined);
});

test('the newest foreign file is told, however many came before', async (t) => {
  const { look, blob } = room(t);
  blob(HEX[0]);
  await look.look();
  const first = await look.look();
  blob(HEX[1]);
  await look.look();
  const second = await look.look();
  assert.ok(second !== undefined && first !== undefined);
  assert.ok(second.example.endsWith(HEX[1]));
  assert.ok(second.newest_epoch_ms > first.newest_epoch_ms);
});
