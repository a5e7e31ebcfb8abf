import assert from 'node:assert/strict';
import fs from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { hasCode } from '../../src/base/errors.ts';
import { digestOf } from '../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { content, StoreRoom, writePieces } from './store-room.ts';

/** Flips a bit in the only working copy there is. */
function flip(room: StoreRoom, at: number): void {
  const staging = join(room.config.work_directory, 'staging');
  const [name, ...others] = fs.readdirSync(staging);
  assert.deepEqual(others, []);
  const fd = fs.openSync(join(staging, name!), 'r+');
  const byte = Buffer.alloc(1);
  fs.readSync(fd, byte, 0, 1, at);
  byte[0]! ^= 1;
  fs.writeSync(fd, byte, 0, 1, at);
  fs.closeSync(fd);
}

describe('a working copy whose bytes change on our own disk', () => {
  const bytes = content(4 * PIECE_BYTES);
  const digest = digestOf(bytes);

  it('is not published, says which piece it is when it is read again, and is whole with that one fetched anew', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    await using staged = await store.stage(digest, bytes.length);
    await writePieces(staged, bytes, [2]);
    flip(room, 2 * PIECE_BYTES + 77);
    await writePieces(staged, bytes, [0, 1, 3]);
    await assert.rejects(staged.publish(), (error) => hasCode(error, 'data_loss'));
    assert.deepEqual(await staged.reread(), [2]);
    assert.deepEqual(
      [staged.has(2), staged.has(3), staged.prefix_bytes],
      [false, true, 2 * PIECE_BYTES],
    );
    await writePieces(staged, bytes, [2]);
    assert.equal((await staged.publish()).size_bytes, bytes.length);
  });

  it('finds a piece that was damaged after it was hashed as well', async (t) => {
    const room = await StoreRoom.make(t);
    await using store = await room.open();
    await using staged = await store.stage(digest, bytes.length);
    await writePieces(staged, bytes);
    flip(room, PIECE_BYTES);
    assert.deepEqual(await staged.reread(), [1]);
    assert.equal(staged.prefix_bytes, PIECE_BYTES);
  });
});
