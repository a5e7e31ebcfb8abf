// The set-up that host suites share: one lab per suite, its images pushed, its hosts by line, and nothing left afterwards.
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { after, before } from 'node:test';
import { buildImage } from '../fixtures/image.ts';
import type { ImageRecipe } from '../fixtures/image.ts';
import { cacheDir, debianTools } from './lab/debian-packages.ts';
import type { ContainerdLine } from './lab/debian-packages.ts';
import type { Pushed } from './pull-bench.ts';
import { NOTHING_LEFT, SwarmLab, leftBehind } from './swarm-lab.ts';
import type { NodeOptions, SwarmNode } from './swarm-lab.ts';

/** Every kind of blob that an image has, and little to wait for. */
export const LITTLE: ImageRecipe = {
  seed: 'doctor',
  size_bytes: 3_000_000,
  zstd: true,
  index: true,
};

/**
 * Registers hooks of the suite that calls it: a lab is made and given to `build` before its tests and taken down after them, also when `build`
 * failed half way; nothing of it may be left then.
 */
export function suiteLab(build: (lab: SwarmLab) => Promise<void>): void {
  const stack = new AsyncDisposableStack();
  before(async () => build(stack.use(await SwarmLab.create(await debianTools()))));
  after(async () => {
    await stack.disposeAsync();
    assert.deepEqual(await leftBehind(), NOTHING_LEFT);
  });
}

/** Builds an image that can run and pushes it. */
export async function push(
  lab: SwarmLab,
  recipe: ImageRecipe,
  repository = 'app',
): Promise<Pushed> {
  const { busybox } = lab.tools;
  const image = await buildImage({ ...recipe, busybox }, cacheDir());
  return { image, ref: await lab.push(image, repository) };
}

/** A host beside each of the lines, made alike. */
export async function nodeOfEach<Line extends ContainerdLine>(
  lab: SwarmLab,
  lines: readonly Line[],
  options: Omit<NodeOptions, 'line'>,
): Promise<ReadonlyMap<Line, SwarmNode>> {
  const nodes = new Map<Line, SwarmNode>();
  for (const line of lines) {
    const name = `c${line.replace('.', '')}`;
    nodes.set(line, await lab.addNode(name, { ...options, line }));
  }
  return nodes;
}

/** Two hosts, one of which can have an image from the other. */
export interface HolderAndPuller {
  readonly app: Pushed;
  /** Held by nobody. */
  readonly small: Pushed;
  /** Holds `app` without a containerd. */
  readonly a: SwarmNode;
  /** Keeps no cache. */
  readonly b: SwarmNode;
}

/** The hosts of `HolderAndPuller`; `options` are B's. */
export async function holderAndPuller(
  lab: SwarmLab,
  options: NodeOptions,
): Promise<HolderAndPuller> {
  const app = await push(lab, { seed: 'solo', size_bytes: 24_000_000, zstd: true, index: true });
  const small = await push(lab, { seed: 'smoke', size_bytes: 12_000_000, zstd: true }, 'small');
  const a = await lab.addNode('a', { seeds: [app.image] });
  const b = await lab.addNode('b', { ...options, config: { store: ['cache_max_bytes = 0'] } });
  return { app, small, a, b };
}

/** Changes one bit of a file, as a failing disk does. */
export async function turnBit(file: string, at: number): Promise<void> {
  await using handle = await open(file, 'r+');
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, at);
  byte[0] = byte[0]! ^ 1;
  await handle.write(byte, 0, 1, at);
}
