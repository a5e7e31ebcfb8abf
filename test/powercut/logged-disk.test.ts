import assert from 'node:assert/strict';
import { after, before, suite, test } from 'node:test';
import { join } from 'node:path';
import type { LabHost } from '../host/lab/host.ts';
import { LabNetwork } from '../host/lab/netns.ts';
import { residueOf } from '../host/lab/residue.ts';
import { runCommand } from '../host/lab/run-command.ts';
import { LOSSES } from './cut.ts';
import type { Loss } from './cut.ts';
import { LoggedDisk } from './logged-disk.ts';
import type { LogEntry } from './write-log.ts';

suite('a disk whose power is cut', { timeout: 120_000 }, () => {
  const stack = new AsyncDisposableStack();
  let host: LabHost;
  let disk: LoggedDisk;
  let log: readonly LogEntry[];
  const positions: Record<string, number> = {};

  const sh = async (script: string): Promise<string> =>
    (await host.run(['sh', '-euc', script, 'sh', disk.mountpoint])).stdout.trim();

  /** What `ls` and the given files' sizes are after a cut at a position. */
  const after_cut = async (position: number, loss: Loss, script: string): Promise<string> => {
    const entries = log.filter((entry) => entry.data + entry.length <= position).length;
    await disk.plugAfter({ entries, loss, seed: `${position}` });
    const said = await sh(script);
    await disk.unplug();
    return said;
  };

  before(async () => {
    const network = stack.use(await LabNetwork.create());
    host = await network.addHost('disk');
    // No journal commit but those that somebody asks for.
    disk = await LoggedDisk.create(host, {
      mountpoint: join(host.dir, 'mounted'),
      size_bytes: 128 * 1024 * 1024,
      mount_options: ['commit=300'],
    });
    await sh('mkdir "$1/d"; sync "$1/d"');
    await sh('dd if=/dev/urandom of="$1/d/synced" bs=1M count=5 conv=fsync status=none');
    await sh('sha256sum < "$1/d/synced" > "$1/sum"; sync "$1/sum"');
    positions['synced'] = disk.position;
    await sh('mv "$1/d/synced" "$1/d/renamed"');
    // What bbolt does: a write in place and fdatasync, which commits no journal.
    await sh('dd if=/dev/zero of="$1/database" bs=4k count=4 conv=fsync status=none');
    positions['committed'] = disk.position;
    await sh('mv "$1/d/renamed" "$1/d/again"');
    await sh(
      'dd if=/dev/urandom of="$1/database" bs=4k count=1 conv=notrunc,fdatasync status=none',
    );
    positions['fdatasync'] = disk.position;
    await sh('sync "$1/d"');
    positions['directory'] = disk.position;
    await disk.unplug();
    log = disk.entries();
  });

  after(async () => {
    await stack.disposeAsync();
    assert.deepEqual((await residueOf()).directories, []);
    assert.ok(!(await runCommand(['losetup', '--all'])).stdout.includes(host.dir));
  });

  for (const loss of LOSSES) {
    test(`what was synced is whole after a cut that loses ${loss}`, async () => {
      const script = 'test "$(sha256sum < "$1/d/synced")" = "$(cat "$1/sum")" && ls "$1/d"';
      assert.equal(await after_cut(positions['synced']!, loss, script), 'synced');
    });

    test(`a rename is lost though fdatasync of another file came after it: ${loss}`, async () => {
      const said = await after_cut(positions['fdatasync']!, loss, 'ls "$1/d"');
      assert.equal(said, 'renamed');
    });

    test(`a rename is there once its directory was synced: ${loss}`, async () => {
      assert.equal(await after_cut(positions['directory']!, loss, 'ls "$1/d"'), 'again');
    });
  }

  test('a cut between any two writes leaves a file system that mounts, with the file under one of its names', async () => {
    const at = log.findIndex((entry) => entry.data > positions['synced']!);
    assert.ok(at > 0);
    for (const loss of LOSSES)
      for (const step of [1, 2, 3, 5, 8])
        assert.match(
          await after_cut(log[at + step]!.data, loss, 'ls "$1/d"'),
          /^(synced|renamed)$/,
        );
  });
});
