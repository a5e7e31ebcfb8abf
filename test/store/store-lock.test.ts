import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readlinkSync } from 'node:fs';
import { describe, it } from 'node:test';
import { promisify } from 'node:util';
import { hasCode } from '../../src/base/errors.ts';
import { StoreRoom } from './store-room.ts';

const LOCK = new URL('../../src/store/disk/lock.ts', import.meta.url).href;
const IS_ROOT = process.getuid?.() === 0;

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
    const program = `
      const { StoreLock } = await import(${JSON.stringify(LOCK)});
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

  it('refuses a daemon in a network and a process namespace of its own, as a container has them', {
    skip: !IS_ROOT && 'namespaces want root',
  }, async (t) => {
    const room = await StoreRoom.make(t);
    const directory = JSON.stringify(room.config.state_directory);
    const program = `
      import { readlinkSync } from 'node:fs';
      const { StoreLock } = await import(${JSON.stringify(LOCK)});
      const told = { pid: process.pid, network: readlinkSync('/proc/self/ns/net') };
      try { StoreLock.take(${directory}); }
      catch ({ code, message }) { Object.assign(told, { code, message }); }
      console.log(JSON.stringify(told));`;
    const apart = async () => {
      const node = [process.execPath, '--disable-warning=ExperimentalWarning'];
      const argv = [
        '--net',
        '--pid',
        '--fork',
        '--',
        ...node,
        '--input-type=module',
        '-e',
        program,
      ];
      const { stdout } = await promisify(execFile)('unshare', argv);
      return JSON.parse(stdout) as Record<'pid' | 'network' | 'code' | 'message', unknown>;
    };
    const first = await room.open();
    const told = await apart();
    assert.notEqual(told.network, readlinkSync('/proc/self/ns/net'));
    assert.deepEqual([told.pid, told.code], [1, 'failed_precondition']);
    assert.match(String(told.message), new RegExp(`daemon \\(pid ${process.pid}\\)`));
    await first[Symbol.asyncDispose]();
    assert.equal((await apart()).code, undefined);
  });
});
