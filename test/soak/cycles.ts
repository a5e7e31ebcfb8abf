// One cycle of a soak: what is done to a host, chosen by a seed, and what must be true after it.
import assert from 'node:assert/strict';
import { SeededRandom } from '../fixtures/seeded-random.ts';
import { layerBytes } from '../fixtures/image.ts';
import { assertImageReadable } from '../host/lab/content-oracle.ts';
import { untilTrue } from '../host/wait.ts';
import type { PushedImage } from '../packaging/install-bench.ts';
import type { SoakBench } from './soak-bench.ts';
import type { SoakedHost } from './soaked-host.ts';

/** Pulls and removals make the life of a host, kills its exceptions; a daemon must live long enough to show a leak. */
const WEIGHTS = {
  pull: 34,
  'image rm': 26,
  cancel: 24,
  'kill of containerd': 10,
  'kill of the daemon': 6,
} as const;

export type Action = keyof typeof WEIGHTS;

/** The random life of two hosts: the same for the same seed. */
export class Cycles {
  readonly #bench: SoakBench;
  readonly #random: SeededRandom;
  readonly #present = new Map<SoakedHost, Set<string>>();
  readonly #done = new Map<Action, number>();

  constructor(bench: SoakBench, seed: string) {
    this.#bench = bench;
    this.#random = new SeededRandom(seed);
    for (const host of bench.hosts) this.#present.set(host, new Set());
  }

  /** How often each action was done. */
  get counts(): ReadonlyMap<Action, number> {
    return this.#done;
  }

  /** Images that containerd of the host has said are there. */
  imagesOf(host: SoakedHost): readonly PushedImage[] {
    const refs = this.#present.get(host)!;
    return this.#bench.images.filter(({ ref }) => refs.has(ref));
  }

  /** Does something; no image that was there is gone after it, unless it was removed. Resolves to what was done. */
  async next(): Promise<string> {
    const action = this.#draw();
    const { a, b } = this.#bench;
    const host = action === 'kill of the daemon' || this.#random.below(2) === 1 ? b : a;
    const pushed = this.#bench.images[this.#random.below(this.#bench.images.length)]!;
    const fraction = (1 + this.#random.below(8)) / 10;
    this.#done.set(action, (this.#done.get(action) ?? 0) + 1);
    if (action === 'pull') await this.pull(host, pushed);
    else if (action === 'image rm') await this.#remove(host, pushed);
    else await this.#interrupt(action, { host, pushed, fraction });
    return `${action} of ${pushed.ref.split('/').at(-1)} on ${host.name}`;
  }

  /** Pulls the image, whatever is there already, and reads every byte of it. */
  async pull(host: SoakedHost, { image, ref }: PushedImage): Promise<void> {
    await host.suite.pull(ref);
    await assertImageReadable(host, image);
    this.#present.get(host)!.add(ref);
    await this.#nothingLost(host);
  }

  async #remove(host: SoakedHost, { ref }: PushedImage): Promise<void> {
    const present = this.#present.get(host)!;
    if (present.delete(ref)) await host.suite.removeImage(ref);
    await host.suite.endLeases();
    await this.#nothingLost(host);
  }

  /** A pull that something happens to in its middle; then the image is pulled again, or left to the host as it is. */
  async #interrupt(
    action: Action,
    given: { readonly host: SoakedHost; readonly pushed: PushedImage; readonly fraction: number },
  ): Promise<void> {
    const { host, pushed, fraction } = given;
    await this.#remove(host, pushed);
    const cut = new AbortController();
    const state = { over: false };
    const before = await host.unfinishedBytes();
    const pull = host.suite
      .pull(pushed.ref, { signal: cut.signal })
      // It may well be cut off; what must be true then is asserted below.
      .catch(() => undefined)
      .finally(() => (state.over = true));
    const wanted = Math.min(fraction * layerBytes(pushed.image), 4_000_000 * fraction);
    await untilTrue('the middle of a pull', async () => {
      return state.over || (await host.unfinishedBytes()) - before >= wanted;
    });
    if (action === 'kill of the daemon') await host.killDaemon();
    if (action === 'kill of containerd') await host.killContainerd();
    if (action === 'cancel') cut.abort();
    await pull;
    await this.#nothingLost(host);
    if (action === 'kill of the daemon') await host.suite.storeAnswers();
    if (action !== 'cancel') await this.pull(host, pushed);
  }

  async #nothingLost(host: SoakedHost): Promise<void> {
    const now = await host.suite.images();
    const present = this.#present.get(host)!;
    const lost = [...present].filter((ref) => !now.includes(ref));
    assert.deepEqual(lost, [], `images ${host.name} lost`);
    for (const ref of now) present.add(ref);
  }

  #draw(): Action {
    const all = Object.entries(WEIGHTS) as [Action, number][];
    let left = this.#random.below(all.reduce((sum, [, weight]) => sum + weight, 0));
    for (const [action, weight] of all) {
      if (left < weight) return action;
      left -= weight;
    }
    throw new Error('no action drawn');
  }
}
