import type { Clock } from '../base/clock.ts';
import { DaemonError, type ErrorCode } from '../base/errors.ts';
import { type Digest, digestOf } from '../oci/digest.ts';
import { MAX_MANIFEST_BYTES } from '../oci/manifest.ts';
import { DOCKER_HUB } from '../oci/reference.ts';
import type { RegistryConfig } from './config.ts';
import type { CredentialAnswer } from './credentials/credential.ts';
import { Credentials } from './credentials/credentials.ts';
import type { RunProgram } from './ground/run-program.ts';
import { type Endpoint, endpointUrl } from './places/endpoint.ts';
import { type Endpoints, endpointsOf } from './places/host-directories.ts';
import { HostStanding } from '../piece/host-standing.ts';
import type { Origin } from './origins.ts';
import { Standing, type Wanted } from './standing.ts';
import type { Limits } from './wire/exchange.ts';
import { Pools } from './wire/pools.ts';
import { type RangeRead, readRange, type RangeWish } from './wire/ranged-read.ts';
import { RegistryRequests, type Served } from './wire/registry-requests.ts';

/** Deadlines of a manifest, in ms. */
const MANIFEST_LIMITS: Limits = { headers_ms: 10_000, stall_ms: 5_000, total_ms: 30_000 };
/** Deadlines of a range, in ms. Whoever pulls has stricter ones of its own; these end what nobody watches. */
const RANGE_LIMITS = { headers_ms: 10_000, stall_ms: 10_000 };
/** Slowest rate that a range may have as a whole, in bytes per ms (64 KiB/s), after a grace of `RANGE_GRACE_MS`. */
const RANGE_MIN_RATE = 64;
const RANGE_GRACE_MS = 30_000;

const MANIFEST_TYPES = [
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.v2+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
].join(', ');

/** Which failure tells most where every endpoint failed: one that may pass, then one that credentials mend. "Not found" only when all say so. */
const MOST_TELLING: readonly ErrorCode[] = [
  'unavailable',
  'deadline_exceeded',
  'permission_denied',
];

/** Registries whose standing is kept; the one that was forgotten longest goes first. */
const MAX_STANDINGS = 64;
/** A registry that gave wrong bytes is distrusted for that blob alone, so nothing ever bans its host. */
const NO_BAN = { ban_ms: 0 };

/** An endpoint that was asked, or need not be, and failed. */
export type FailedEndpoint = { readonly endpoint: Endpoint; readonly error: DaemonError };

/** A manifest whose digest agrees with what was asked for. */
export type ManifestRead = {
  readonly bytes: Buffer;
  readonly digest: Digest;
  readonly media_type: string;
  readonly served: Served;
};

type Options = {
  readonly signal: AbortSignal;
  /** Hears of every endpoint that failed before another one answered, and when none did. */
  readonly onFailure?: (failed: FailedEndpoint) => void;
};

/**
 * Reads manifests and parts of blobs from registries, as containerd would find them: endpoints in the order of `hosts.toml`, credentials
 * where they are asked for. Bytes of blobs are unverified. Dispose it to end its connections.
 */
export class RegistryClient implements AsyncDisposable {
  readonly #config: RegistryConfig;
  readonly #credentials: Credentials;
  readonly #pools: Pools;
  readonly #requests: RegistryRequests;
  readonly #standing: Standing;
  readonly #clock: Clock;
  readonly #hosts = new Map<string, HostStanding>();

  constructor(
    modules: { readonly clock: Clock; readonly run: RunProgram },
    config: RegistryConfig,
  ) {
    this.#config = config;
    this.#credentials = new Credentials(modules, {
      files: config.credential_files,
      kubelet: {
        config: config.kubelet_provider_config,
        bin_directory: config.kubelet_provider_directory,
      },
    });
    this.#pools = new Pools(modules.clock);
    const { clock } = modules;
    this.#requests = new RegistryRequests({
      clock,
      credentials: this.#credentials,
      pools: this.#pools,
    });
    this.#standing = new Standing(clock);
    this.#clock = clock;
  }

  /** Memory. The standing of a registry, all its endpoints together; a fresh one when it is not known. */
  hostStanding(registry: string): HostStanding {
    const known = this.#hosts.get(registry);
    const standing = known ?? new HostStanding({ clock: this.#clock }, NO_BAN);
    // Moves to the young end of the map.
    this.#hosts.delete(registry);
    this.#hosts.set(registry, standing);
    for (const [oldest] of this.#hosts) {
      if (this.#hosts.size <= MAX_STANDINGS) break;
      this.#hosts.delete(oldest);
    }
    return standing;
  }

  /** Where a registry would be asked, best first. */
  endpoints(registry: string): Promise<Endpoints> {
    return endpointsOf(this.#config.certs_directories, registry);
  }

  /** What an endpoint would be shown if it asked, in order; by name. */
  credentials(endpoint: Endpoint, repository: string): Promise<CredentialAnswer> {
    const registry = endpoint.host === 'registry-1.docker.io' ? DOCKER_HUB : endpoint.host;
    return this.#credentials.find({ registry, repository });
  }

  /** A manifest or index by its digest or tag. */
  async manifest(origin: Origin, tag: string | Digest, options: Options): Promise<ManifestRead> {
    const { repository } = origin;
    const is_digest = tag.includes(':');
    const wanted = { repository, what: `manifests/${tag}` };
    const may = ({ pull, resolve }: Endpoint): boolean => (is_digest ? pull : resolve);
    return this.#first(origin, { wanted, may }, options, async (endpoint) => {
      const request = { ...wanted, headers: { accept: MANIFEST_TYPES }, limits: MANIFEST_LIMITS };
      const served = await this.#requests.open(endpoint, { ...request, signal: options.signal });
      await using answer = served.answer;
      const bytes = await answer.bytes(MAX_MANIFEST_BYTES);
      const digest = digestOf(bytes);
      const told = is_digest ? tag : answer.header('docker-content-digest');
      if (told?.startsWith('sha256:') === true && told !== digest) {
        const server = endpointUrl(endpoint);
        const message = `${server}: the bytes of ${repository}/${wanted.what} have another digest`;
        throw new DaemonError('protocol_error', message, { server });
      }
      return { bytes, digest, media_type: answer.header('content-type') ?? '', served };
    });
  }

  /** A part of a blob, into the caller's memory; half filled when it fails. */
  async range(
    origin: Origin,
    wish: RangeWish & { readonly digest: Digest },
    options: Options,
  ): Promise<RangeRead> {
    const { repository } = origin;
    const wanted = { repository, what: `blobs/${wish.digest}`, offset: wish.offset };
    const total_ms = RANGE_GRACE_MS + wish.into.length / RANGE_MIN_RATE;
    const limits = { ...RANGE_LIMITS, total_ms };
    const may = ({ pull }: Endpoint): boolean => pull;
    return this.#first(origin, { wanted, may }, options, async (endpoint) => {
      const read = await readRange(wish, (range) =>
        this.#requests.open(endpoint, {
          ...{ repository, what: wanted.what, headers: { range }, limits },
          signal: options.signal,
        }),
      );
      const is_whole = wish.into.length === wish.size_bytes;
      if (!read.is_partial && !is_whole) this.#standing.withoutRanges(endpoint, wanted);
      return read;
    });
  }

  /** What an origin gave was wrong: it is not asked for this blob for a while. */
  distrust(origin: Origin, digest: Digest): void {
    this.#standing.distrust(origin, `blobs/${digest}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pools[Symbol.asyncDispose]();
  }

  /** Tries the endpoints in order. Rejects with the caller's reason, or with the most telling failure, whose message has them all. */
  async #first<T>(
    origin: Origin,
    { wanted, may }: { wanted: Wanted; may: (endpoint: Endpoint) => boolean },
    { signal, onFailure }: Options,
    attempt: (endpoint: Endpoint) => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted();
    this.#standing.requireTrust(origin, wanted);
    const { endpoints } = await this.endpoints(origin.registry);
    const failures: DaemonError[] = [];
    for (const endpoint of endpoints.filter(may)) {
      let failure = this.#standing.objection(endpoint, wanted);
      try {
        if (failure === undefined) return await attempt(endpoint);
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof DaemonError)) throw error;
        this.#standing.failed(endpoint, wanted, error);
        failure = error;
      }
      onFailure?.({ endpoint, error: failure });
      failures.push(failure);
    }
    throw mostTelling(failures, origin.registry);
  }
}

function mostTelling(failures: readonly DaemonError[], registry: string): DaemonError {
  const found =
    MOST_TELLING.map((code) => failures.find((f) => f.code === code)).find(
      (f) => f !== undefined,
    ) ??
    failures.find((f) => f.code !== 'not_found') ??
    failures[0];
  if (found === undefined) {
    const message = `no endpoint of ${registry} may be asked for this: see "capabilities" in its hosts.toml`;
    return new DaemonError('failed_precondition', message, { registry });
  }
  if (failures.length === 1) return found;
  const message = [found, ...failures.filter((f) => f !== found)].map((f) => f.message).join('; ');
  return new DaemonError(found.code, message, found.facts);
}
