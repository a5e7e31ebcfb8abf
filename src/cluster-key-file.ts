import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import type { Clock } from './base/clock.ts';
import { errnoOf } from './base/errors.ts';
import { type SwarmCondition, noKey, swarmCondition } from './swarm-conditions.ts';
import type { SwarmConfig } from './swarm/config.ts';
import { readPrivateFile } from './swarm/ground/private-file.ts';

/** How often the file is looked at, in ms. */
const POLL_MS = 2_000;

/** A hash of what the file holds, or why it holds nothing of use. */
type KeyContent = { readonly digest: string } | { readonly why: SwarmCondition };

/** The cluster key file as the roof sees it: whether it is there, and whether it is still what the swarm began with. */
export class ClusterKeyFile {
  readonly #clock: Clock;
  readonly #config: Pick<SwarmConfig, 'cluster_key_file' | 'port'>;

  constructor(clock: Clock, config: Pick<SwarmConfig, 'cluster_key_file' | 'port'>) {
    this.#clock = clock;
    this.#config = config;
  }

  /** What changes when somebody mends the file, or why it cannot be looked at. Never rejects. */
  async state(): Promise<string> {
    try {
      const s = await stat(this.#config.cluster_key_file, { bigint: true });
      return [s.dev, s.ino, s.size, s.mode, s.uid, s.mtimeNs, s.ctimeNs].join(' ');
    } catch (error) {
      return errnoOf(error) ?? 'unreadable';
    }
  }

  /** Resolves when the file is no longer what it was, after `longest_ms` (but not before it was looked at again), or with the signal. */
  async change(was: string, signal: AbortSignal, longest_ms = Infinity): Promise<void> {
    const until_ms = this.#clock.now_ms() + longest_ms;
    do await this.#clock.sleep(POLL_MS, { signal }).catch(() => undefined);
    while (!signal.aborted && this.#clock.now_ms() < until_ms && (await this.state()) === was);
  }

  /** What the file holds now; never rejects. */
  async content(): Promise<KeyContent> {
    const { cluster_key_file: path } = this.#config;
    try {
      const bytes = await readPrivateFile(path);
      if (bytes === undefined) return { why: noKey(path) };
      return { digest: createHash('sha256').update(bytes).digest('base64') };
    } catch (error) {
      return { why: await swarmCondition(error, this.#config) };
    }
  }

  /**
   * While a swarm runs: says what stands between the file and what it held when the swarm began, and undefined when nothing does any more. A
   * file that was only written anew with the same content is no change. Resolves with the signal; never rejects.
   */
  async watch(
    before: KeyContent,
    signal: AbortSignal,
    tell: (condition: SwarmCondition | undefined) => void,
  ): Promise<void> {
    let began = before;
    // None: what happened while the swarm was starting is looked at too.
    let state = '';
    for (;;) {
      await this.change(state, signal);
      state = await this.state();
      const now = await this.content();
      if (signal.aborted) return;
      if ('why' in now) {
        if (now.why.cause === 'cluster_key') tell(goesOn(now.why));
        // No descriptor was free: looked at again.
        else state = '';
      } else if ('why' in began) began = now;
      else tell(now.digest === began.digest ? undefined : this.#rotated());
    }
  }

  #rotated(): SwarmCondition {
    const what = `the cluster key file ${this.#config.cluster_key_file} has changed, and the swarm goes on with what it held before`;
    return { cause: 'cluster_key', what, mend: ['systemctl restart layerswarm'] };
  }
}

function goesOn({ what, mend, ...condition }: SwarmCondition): SwarmCondition {
  const told = what.replace(/: this host is in no swarm$/, '');
  return { ...condition, what: `${told}; the swarm goes on without the file until it ends`, mend };
}
