import type { Clock } from '../base/clock.ts';
import { DaemonError } from '../base/errors.ts';
import { ExpiringMap } from './ground/expiring-map.ts';
import { type Endpoint, endpointUrl } from './places/endpoint.ts';
import type { Origin } from './origins.ts';
import { SKIP_MAX_BYTES } from './wire/ranged-read.ts';

/** How long a refusal, a miss or a lie is remembered, in ms: as long as a pull takes, and short enough for whoever mends it. */
const REMEMBERED_MS = 60_000;
/** How long an endpoint that is busy or cannot be reached is left alone when it names no time, in ms. */
const ASIDE_MS = 2_000;
/** How long a server counts as one that ignores `Range`, in ms. */
const WITHOUT_RANGES_MS = 600_000;
/** How long a blob that was wrong is not asked for again, in ms. */
const WRONG_MS = 600_000;
const REMEMBERED_MAX = 2048;

/** What is to be read, as far as endpoints differ in it. */
export type Wanted = {
  readonly repository: string;
  /** `blobs/sha256:…` or `manifests/…`. */
  readonly what: string;
  /** First byte, for a range. */
  readonly offset?: number;
};

/**
 * What endpoints said lately, so that nobody is asked twice for what he has refused: each piece of a private layer would be a request, and
 * a registry that limits rates counts refusals too. Bounded; everything in it ends by itself.
 */
export class Standing {
  readonly #failures: ExpiringMap<DaemonError>;

  constructor(clock: Pick<Clock, 'now_ms'>) {
    this.#failures = new ExpiringMap(clock, REMEMBERED_MAX);
  }

  /** Why the endpoint need not be asked now; undefined = ask it. */
  objection(endpoint: Endpoint, wanted: Wanted): DaemonError | undefined {
    const { host, repository, thing, ranges } = keysOf(endpoint, wanted);
    const far = (wanted.offset ?? 0) > SKIP_MAX_BYTES ? this.#failures.get(ranges) : undefined;
    return (
      this.#failures.get(host) ?? this.#failures.get(repository) ?? this.#failures.get(thing) ?? far
    );
  }

  /** The endpoint failed: remembered for as much as the failure says something about. */
  failed(endpoint: Endpoint, wanted: Wanted, error: DaemonError): void {
    const { host, repository, thing } = keysOf(endpoint, wanted);
    const { retry_after_ms } = error.facts;
    const aside_ms = typeof retry_after_ms === 'number' ? retry_after_ms : ASIDE_MS;
    switch (error.code) {
      case 'unavailable':
      case 'deadline_exceeded':
        this.#failures.set(host, error, aside_ms);
        return;
      case 'permission_denied':
        this.#failures.set(repository, error, REMEMBERED_MS);
        return;
      case 'not_found':
      case 'out_of_range':
      case 'protocol_error':
        this.#failures.set(thing, error, REMEMBERED_MS);
        return;
      case 'unimplemented':
        this.withoutRanges(endpoint, wanted);
        return;
      default:
      // A file that cannot be read, or a certificate: the next request may find it mended.
    }
  }

  /** An origin gave wrong bytes: whichever endpoint it was, it is not asked for them again for a while. */
  distrust({ registry, repository }: Origin, what: string): void {
    const message = `${registry}: it gave wrong bytes of ${repository}/${what}`;
    const error = new DaemonError('protocol_error', message, { registry });
    this.#failures.set(`wrong ${registry} ${repository} ${what}`, error, WRONG_MS);
  }

  /** Throws what `distrust` remembers. */
  requireTrust({ registry, repository }: Origin, { what }: Wanted): void {
    const error = this.#failures.get(`wrong ${registry} ${repository} ${what}`);
    if (error !== undefined) throw error;
  }

  /** The endpoint ignored `Range`: what lies far into a blob is not asked of it for a while. */
  withoutRanges(endpoint: Endpoint, wanted: Wanted): void {
    const message = `${endpointUrl(endpoint)}: it ignores Range`;
    const error = new DaemonError('unimplemented', message, { server: endpointUrl(endpoint) });
    this.#failures.set(keysOf(endpoint, wanted).ranges, error, WITHOUT_RANGES_MS);
  }
}

function keysOf(endpoint: Endpoint, { repository, what }: Wanted) {
  const host = `${endpoint.registry} ${endpointUrl(endpoint)}`;
  return {
    host,
    repository: `${host} ${repository}`,
    thing: `${host} ${repository} ${what}`,
    ranges: `${host} ${repository} ranges`,
  };
}
