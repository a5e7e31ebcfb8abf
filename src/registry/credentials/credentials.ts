import type { Clock } from '../../base/clock.ts';
import { DaemonError } from '../../base/errors.ts';
import { ExpiringMap } from '../ground/expiring-map.ts';
import type { RunProgram } from '../ground/run-program.ts';
import { readSmallFile } from '../ground/small-file.ts';
import { ANONYMOUS, type CredentialAnswer, NO_CREDENTIALS } from './credential.ts';
import { askProgram } from './credential-program.ts';
import { credentialsOf, parseDockerConfig, programCalls } from './docker-config.ts';
import type { ImagePlace } from './image-pattern.ts';
import {
  areKubeletPlaces,
  askKubeletProviders,
  type KubeletProviderPlaces,
} from './kubelet-providers.ts';

/** How long an answer is kept, in ms: files are edited and passwords renewed, and nobody restarts a daemon for that. */
const KEPT_MS = 60_000;
/** Most images whose credentials are kept. */
const KEPT_MAX = 256;
/** Most credentials that one registry is shown for one image: some lock an account after a few wrong ones. */
const SHOWN_MAX = 4;

/** Where credentials are looked for, in this order: the files, then the kubelet's programs. */
export type CredentialPlaces = {
  readonly files: readonly string[];
  /** Switched on by naming both. */
  readonly kubelet: KubeletProviderPlaces;
};

/**
 * Finds what a registry may be shown for an image. Answers are kept for a moment, one search per image goes on at a time, and every answer
 * ends with `anonymous`. Never rejects for a file or program that cannot be used: that is among the problems.
 */
export class Credentials {
  readonly #modules: { readonly clock: Clock; readonly run: RunProgram };
  readonly #places: CredentialPlaces;
  readonly #kept: ExpiringMap<CredentialAnswer>;
  readonly #asking = new Map<string, Promise<CredentialAnswer>>();

  constructor(
    modules: { readonly clock: Clock; readonly run: RunProgram },
    places: CredentialPlaces,
  ) {
    this.#modules = modules;
    this.#places = places;
    this.#kept = new ExpiringMap(modules.clock, KEPT_MAX);
  }

  /** Best first. A search that has begun goes on for the others who wait for it; every step of it has a deadline. */
  async find(image: ImagePlace): Promise<CredentialAnswer> {
    const key = `${image.registry}/${image.repository}`;
    const kept = this.#kept.get(key);
    if (kept !== undefined) return kept;
    const asking =
      this.#asking.get(key) ?? this.#search(image, key).finally(() => this.#asking.delete(key));
    this.#asking.set(key, asking);
    return asking;
  }

  async #search(image: ImagePlace, key: string): Promise<CredentialAnswer> {
    const signal = new AbortController().signal;
    const answers: CredentialAnswer[] = [];
    for (const file of this.#places.files) {
      answers.push(await told(file, () => this.#ofFile(file, image, signal)));
    }
    const { kubelet } = this.#places;
    if (areKubeletPlaces(kubelet)) {
      const { run } = this.#modules;
      const ask = () => askKubeletProviders(run, kubelet, image, signal);
      answers.push(await told(kubelet.config, ask));
    }
    const found = answers.flatMap(({ credentials }) => credentials).slice(0, SHOWN_MAX);
    const answer = {
      credentials: [...found, ANONYMOUS],
      problems: answers.flatMap(({ problems }) => problems),
    };
    const lasting = answers.map(({ lasts_ms }) => lasts_ms ?? KEPT_MS);
    this.#kept.set(key, answer, Math.min(KEPT_MS, ...lasting));
    return answer;
  }

  async #ofFile(file: string, image: ImagePlace, signal: AbortSignal): Promise<CredentialAnswer> {
    const text = await readSmallFile(file);
    if (text === undefined) return NO_CREDENTIALS;
    const config = parseDockerConfig(text, file);
    const asked = await Promise.all(
      programCalls(config, image).map((call) => askProgram(this.#modules.run, call, signal)),
    );
    return {
      credentials: [
        ...asked.flatMap(({ credentials }) => credentials),
        ...credentialsOf(config, image),
      ],
      problems: asked.flatMap(({ problems }) => problems),
    };
  }
}

/** A place that cannot be used has nothing to give and says why. */
async function told(name: string, ask: () => Promise<CredentialAnswer>): Promise<CredentialAnswer> {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof DaemonError) || error.code === 'cancelled') throw error;
    return { credentials: [], problems: [{ name, why: error.message }] };
  }
}
