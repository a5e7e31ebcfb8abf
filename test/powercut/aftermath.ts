// What a host finds when the power is back: both daemons start on the disk as the cut left it, and everything is looked at.
import { join } from 'node:path';
import { assertImageReadable, readEveryBlob } from '../host/lab/content-oracle.ts';
import type { Pushed } from '../host/pull-bench.ts';
import { untilTrue } from '../host/wait.ts';
import type { Cut } from './cut.ts';
import { fetchImage } from './recording.ts';
import type { Recording, Told } from './recording.ts';

/** What was found after one cut; every list is empty when nothing was lost. */
export interface Aftermath {
  readonly cut: Cut;
  /** Why a daemon did not start, or could not be asked. */
  readonly down: readonly string[];
  /** Blobs in containerd's database that are missing or wrong. */
  readonly lost: readonly string[];
  /** Files under `blobs/` whose bytes are not what their name says. */
  readonly wrong: readonly string[];
  /** Images a client was told it has and containerd does not know. */
  readonly forgotten: readonly string[];
  /** Images that another pull does not make whole. */
  readonly unhealed: readonly string[];
}

/** Brings the host of a recording up after `cut`, looks, pulls all `images` again, and takes it down. */
export async function aftermathOf(
  recording: Recording,
  cut: Cut,
  images: readonly Pushed[],
): Promise<Aftermath> {
  const { node, disk } = recording;
  const found = {
    down: [] as string[],
    lost: [] as string[],
    wrong: [] as string[],
    forgotten: [] as string[],
    unhealed: [] as string[],
  };
  await disk.plugAfter(cut);
  try {
    await node.daemon.restart();
    await node.containerd.start();
    await storeAnswers(recording);
    found.lost.push(...(await lostBlobs(recording)));
    found.wrong.push(...(await wrongFiles(recording)));
    found.forgotten.push(...(await forgottenImages(recording, cut)));
    const heals = images.map(async (pushed) => {
      const why = await heal(recording, pushed);
      if (why !== undefined) found.unhealed.push(`${pushed.ref}: ${why}`);
    });
    await Promise.all(heals);
    // Namespaces nobody pulled into again are only right when nothing was lost.
    const after = found.lost.length > 0 ? [] : await lostBlobs(recording);
    found.unhealed.push(...after, ...(await wrongFiles(recording)));
  } catch (error) {
    found.down.push((error as Error).message);
  }
  await node.containerd.stop(0);
  if (node.daemon.running) await node.daemon.crash();
  await disk.unplug();
  return { cut, ...found };
}

/** The images that clients had been told they have when `position` of the log was reached, and had not begun to give back. */
export function promisedAt(told: readonly Told[], position: number): readonly Told[] {
  const latest = new Map<string, Told>();
  for (const entry of told) {
    const key = `${entry.namespace} ${entry.ref}`;
    // What is given back later may be gone as soon as that begins; what is told later is not promised yet.
    if (entry.position <= position) latest.set(key, entry);
  }
  return [...latest.values()].filter((entry) => entry.has);
}

/** Waits until containerd has its content store: on a busy machine its first connection fails, and it waits up to 3 s for the next. */
async function storeAnswers({ node }: Recording): Promise<void> {
  await untilTrue('a content store behind containerd', async () => {
    await node.containerd.ctr(['content', 'active']);
    return true;
  });
}

async function lostBlobs({ node }: Recording): Promise<readonly string[]> {
  const broken = await readEveryBlob(node.containerd);
  return broken.map(({ namespace, digest, why }) => `${namespace} ${digest}: ${why}`);
}

async function wrongFiles({ node }: Recording): Promise<readonly string[]> {
  const script =
    'cd "$1" 2>/dev/null && for f in *; do test -e "$f" && echo "$f  $f"; done | sha256sum --check --quiet 2>/dev/null; true';
  const blobs = join(node.content_dir, 'blobs/sha256');
  const { stdout } = await node.host.run(['sh', '-c', script, 'sh', blobs]);
  return stdout.split('\n').filter((line) => line !== '');
}

async function forgottenImages(
  { node, disk, told }: Recording,
  cut: Cut,
): Promise<readonly string[]> {
  const last = disk.entries()[cut.entries - 1];
  const promised = promisedAt(told, last === undefined ? 0 : last.data + last.length);
  const known = new Set<string>();
  for (const namespace of new Set(promised.map((entry) => entry.namespace))) {
    const { stdout } = await node.containerd.ctr(['image', 'ls', '--quiet'], { namespace });
    for (const ref of stdout.split('\n')) known.add(`${namespace} ${ref}`);
  }
  return promised.map(({ namespace, ref }) => `${namespace} ${ref}`).filter((k) => !known.has(k));
}

async function heal({ node }: Recording, { ref, image }: Pushed): Promise<string | undefined> {
  try {
    await fetchImage(node, ref);
    await assertImageReadable(node, image);
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}
