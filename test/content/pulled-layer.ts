import { digestOf } from '../../src/oci/digest.ts';
import { PIECE_BYTES } from '../../src/piece/layout.ts';
import { settle } from '../fakes/fake-clock.ts';
import { ContentDoor, someBytes } from './content-door.ts';

/** A layer of two pieces that the pull tests fetch. */
export const layer = someBytes(PIECE_BYTES + 1000);
export const digest = digestOf(layer);
export const ref = `k8s.io/1/layer-${digest}`;
export const total = layer.length;

/** A door on which the layer can be pulled, with `bytes` of it in the ingest already. */
export async function doorWith(bytes = 0): Promise<ContentDoor> {
  const door = new ContentDoor();
  if (bytes > 0) {
    const earlier = door.writer();
    await earlier.open(ref, total);
    await earlier.write(0, layer.subarray(0, bytes));
    await earlier.close();
  }
  door.pull.known.add(digest);
  return door;
}

export async function completes(door: ContentDoor, index = 0): Promise<void> {
  if (door.store.info(digest) === undefined) door.store.put(layer, 'published');
  door.pull.ticket(index).settle({ kind: 'complete' });
  await settle(1);
}

export async function givesPrefix(
  door: ContentDoor,
  bytes: Buffer = layer,
  sole = true,
): Promise<void> {
  const staged = await door.staged(digest, bytes, 1);
  door.pull.ticket().settle({ kind: 'prefix', staged, sole });
}
