import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { hasCode } from '../../src/base/errors.ts';
import { StoreRoom } from './store-room.ts';

describe('a store that another daemon has open', () => {
  it('refuses and names the holder, by either directory, and opens when the other has closed', async (t) => {
    const room = await StoreRoom.make(t);
    const elsewhere = await StoreRoom.make(t);
    const first = await room.open();
    const refused = (error: unknown): boolean =>
      hasCode(error, 'failed_precondition') && error.message.includes(`pid ${process.pid}`);
    await assert.rejects(room.open(), refused);
    const { content_directory, work_directory, state_directory } = room.config;
    await assert.rejects(elsewhere.open({ content_directory, work_directory }), refused);
    await assert.rejects(elsewhere.open({ state_directory }), refused);
    await first[Symbol.asyncDispose]();
    await (await room.open())[Symbol.asyncDispose]();
    await (await elsewhere.open())[Symbol.asyncDispose]();
  });

  it('opens at once after the other was killed', async (t) => {
    const room = await StoreRoom.make(t);
    await (await room.open())[Symbol.asyncDispose]();
    const module = new URL('../../src/store/disk/lock.ts', import.meta.url).href;
    const program = `
      const { StoreLock } = await import(${JSON.stringify(module)});
      globalThis.held = StoreLock.take(${JSON.stringify(room.config.state_directory)});
      setInterval(() => {}, 1000);
      console.log('taken');`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.after(() => child.kill('SIGKILL'));
    await once(child.stdout, 'data');
    await assert.rejects(
      room.open(),
      (error) =>
        hasCode(error, 'failed_precondition') && error.message.includes(`pid ${child.pid ?? 0}`),
    );
    child.kill('SIGKILL');
    await once(child, 'exit');
    await (await room.open())[Symbol.asyncDispose]();
  });
});
