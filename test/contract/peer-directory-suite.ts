import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { type Digest, digestOf } from '../../src/oci/digest.ts';
import type { PeerId } from '../../src/swarm/ground/peer-id.ts';
import type { PeerDirectory } from '../../src/swarm/peer-directory.ts';

/** One host's view. */
type DirectoryHost = { readonly id: PeerId; readonly directory: PeerDirectory };

/** Hosts that see each other, at first with nothing announced. `leave` takes the last one away. */
export type Directories = AsyncDisposable & {
  readonly hosts: readonly DirectoryHost[];
  leave(): Promise<void>;
  /** Resolves when the condition holds; news may take their time. */
  eventually(condition: () => boolean): Promise<void>;
};

const digest = digestOf(Buffer.from('a layer'));
const other = digestOf(Buffer.from('another layer'));

/** What every PeerDirectory promises. `open` makes so many hosts. */
export function peerDirectorySuite(
  name: string,
  open: (t: TestContext, hosts: number) => Promise<Directories>,
): void {
  const found = (host: DirectoryHost, blob: Digest = digest) =>
    [...host.directory.find(blob)].sort();

  describe(`${name} as a PeerDirectory`, () => {
    it('what a host announces is found by the others under its id, and by nobody before', async (t) => {
      await using d = await open(t, 3);
      const [a, b, c] = d.hosts as [DirectoryHost, DirectoryHost, DirectoryHost];
      assert.deepEqual([found(b), found(c)], [[], []]);
      a.directory.announce(digest);
      await d.eventually(() => found(b).length > 0 && found(c).length > 0);
      assert.deepEqual([found(b), found(c)], [[a.id], [a.id]]);
      assert.deepEqual(found(b, other), []);
    });

    it('a host never finds itself', async (t) => {
      await using d = await open(t, 2);
      const [a, b] = d.hosts as [DirectoryHost, DirectoryHost];
      for (const host of [a, b]) host.directory.announce(digest);
      await d.eventually(() => found(a).length > 0 && found(b).length > 0);
      assert.deepEqual([found(a), found(b)], [[b.id], [a.id]]);
    });

    it('several holders of a blob are all found', async (t) => {
      await using d = await open(t, 3);
      const [a, b, c] = d.hosts as [DirectoryHost, DirectoryHost, DirectoryHost];
      for (const host of [a, b]) host.directory.announce(digest);
      await d.eventually(() => found(c).length > 1);
      assert.deepEqual(found(c), [a.id, b.id].sort());
    });

    it('what is withdrawn is found no longer, and the rest stays', async (t) => {
      await using d = await open(t, 2);
      const [a, b] = d.hosts as [DirectoryHost, DirectoryHost];
      for (const each of [digest, other]) a.directory.announce(each);
      await d.eventually(() => found(b).length > 0 && found(b, other).length > 0);
      a.directory.withdraw(digest);
      await d.eventually(() => found(b).length === 0);
      assert.deepEqual(found(b, other), [a.id]);
    });

    it('announcing twice or withdrawing what was never announced changes nothing', async (t) => {
      await using d = await open(t, 2);
      const [a, b] = d.hosts as [DirectoryHost, DirectoryHost];
      a.directory.withdraw(other);
      for (let i = 0; i < 2; i++) a.directory.announce(digest);
      await d.eventually(() => found(b).length > 0);
      assert.deepEqual([found(b), found(b, other)], [[a.id], []]);
      a.directory.withdraw(digest);
      await d.eventually(() => found(b).length === 0);
    });

    it('of many changes in a row the last one counts', async (t) => {
      await using d = await open(t, 2);
      const [a, b] = d.hosts as [DirectoryHost, DirectoryHost];
      for (let i = 0; i < 100; i++) {
        a.directory.announce(digest);
        a.directory.withdraw(digest);
      }
      a.directory.announce(other);
      await d.eventually(() => found(b, other).length > 0);
      assert.deepEqual(found(b), []);
    });

    it('a host that leaves is found no longer', async (t) => {
      await using d = await open(t, 3);
      const [a, b, last] = d.hosts as [DirectoryHost, DirectoryHost, DirectoryHost];
      for (const host of [a, last]) host.directory.announce(digest);
      await d.eventually(() => found(b).length > 1);
      await d.leave();
      await d.eventually(() => found(b).length < 2);
      assert.deepEqual(found(b), [a.id]);
    });
  });
}
