import type { Clock } from '../base/clock.ts';
import { DaemonError, type ErrorCode } from '../base/errors.ts';
import type { Digest } from '../oci/digest.ts';
import { chooseEntry, type Platform, parseIndex, renderPlatform } from '../oci/image-index.ts';
import { parseManifest } from '../oci/manifest.ts';
import { type Endpoint, endpointUrl, isMirror } from './places/endpoint.ts';
import type { Origin } from './origins.ts';
import type { FailedEndpoint, ManifestRead, RegistryClient } from './registry-client.ts';
import type { Served } from './wire/registry-requests.ts';

/** Bytes of the layer that are asked for. */
const RANGE_BYTES = 64 * 1024;

/** What is to be checked. */
export type CheckWish = {
  /** Where the image may be, best first. */
  readonly origins: readonly Origin[];
  /** What stands for the image there: a tag, or the digest of its manifest or index. */
  readonly target: string;
  readonly platform: Platform;
};

/** An endpoint as it would be asked. Names of files, headers and credentials; never what is in them. */
export type CheckedEndpoint = {
  readonly url: string;
  readonly registry: string;
  readonly told_by: string;
  readonly mirror: boolean;
  readonly may: readonly ('pull' | 'resolve')[];
  readonly ca: readonly string[];
  readonly client: readonly { readonly cert: string; readonly key: string }[];
  readonly skip_verify: boolean;
  readonly plain_fallback: boolean;
  readonly headers: readonly string[];
  /** In the order in which they are shown when it asks for any. */
  readonly credentials: readonly string[];
  readonly problems: readonly string[];
};

/** Who answered a request. */
type CheckedAnswer = {
  readonly endpoint: string;
  readonly credential: string;
  /** The host that a redirect led to; undefined = none. */
  readonly redirected_to: string | undefined;
  readonly elapsed_ms: number;
};

/** What the check found, for people and, as JSON, for scripts. No secret is in it. */
export type CheckReport = {
  readonly origins: readonly Origin[];
  readonly endpoints: readonly CheckedEndpoint[];
  /** Files that cannot be used and the like, as sentences. */
  readonly problems: readonly string[];
  readonly manifest?: CheckedAnswer & {
    readonly repository: string;
    readonly digest: string;
    readonly media_type: string;
  };
  readonly layer?: { readonly digest: string; readonly size_bytes: number };
  readonly range?: CheckedAnswer & {
    readonly bytes: number;
    /** False: the server ignored `Range`. */
    readonly supported: boolean;
  };
  readonly rate_limit: Readonly<Record<string, string>>;
  /** Endpoints that were asked and failed, in order. */
  readonly failed: readonly {
    readonly endpoint: string;
    readonly code: ErrorCode;
    readonly message: string;
  }[];
  /** Why the check ended before its last step. */
  readonly failure?: { readonly code: ErrorCode; readonly message: string };
};

type Findings = { -readonly [K in keyof CheckReport]: CheckReport[K] };
type Modules = { readonly clock: Clock; readonly client: RegistryClient };

/**
 * Says where an image would be asked for and with which credentials, then does it once: tag, manifest, and the first bytes of the first layer
 * with a `Range` request. What fails is in the report; rejects only when the signal aborts.
 */
export async function checkRegistry(
  modules: Modules,
  wish: CheckWish,
  signal: AbortSignal,
): Promise<CheckReport> {
  const report: Findings = {
    origins: wish.origins,
    ...(await endpointsOf(modules.client, wish.origins)),
    rate_limit: {},
    failed: [],
  };
  try {
    await ask(modules, wish, report, signal);
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof DaemonError)) throw error;
    report.failure = { code: error.code, message: error.message };
  }
  return report;
}

async function ask(
  { clock, client }: Modules,
  { origins, target, platform }: CheckWish,
  report: Findings,
  signal: AbortSignal,
): Promise<void> {
  const options = { signal, onFailure: (failed: FailedEndpoint) => note(report, failed) };
  const begun_ms = clock.now_ms();
  const { origin, read } = await firstManifest(client, origins, target, options);
  const { digest, media_type } = read;
  report.rate_limit = { ...report.rate_limit, ...read.served.rate_limit };
  const elapsed_ms = clock.now_ms() - begun_ms;
  report.manifest = {
    ...answerOf(read.served, elapsed_ms),
    ...{ repository: origin.repository, digest, media_type },
  };
  const layer = await firstLayer(client, origin, read, platform, options);
  report.layer = layer;
  const into = Buffer.alloc(Math.min(RANGE_BYTES, layer.size_bytes));
  const asked_ms = clock.now_ms();
  const range = await client.range(origin, { ...layer, offset: 0, into }, options);
  report.rate_limit = { ...report.rate_limit, ...range.served.rate_limit };
  report.range = {
    ...answerOf(range.served, clock.now_ms() - asked_ms),
    bytes: into.length,
    supported: range.is_partial,
  };
}

type Options = Parameters<RegistryClient['manifest']>[2];

/** The first origin that has the image; the failure of the last one when none has. */
async function firstManifest(
  client: RegistryClient,
  origins: readonly Origin[],
  target: string,
  options: Options,
): Promise<{ readonly origin: Origin; readonly read: ManifestRead }> {
  let failure: unknown = new DaemonError('not_found', 'nothing says where this image comes from');
  for (const origin of origins) {
    try {
      return { origin, read: await client.manifest(origin, target, options) };
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof DaemonError)) throw error;
      failure = error;
    }
  }
  throw failure;
}

async function firstLayer(
  client: RegistryClient,
  origin: Origin,
  { bytes }: ManifestRead,
  platform: Platform,
  options: Options,
): Promise<{ readonly digest: Digest; readonly size_bytes: number }> {
  let manifest = parseManifest(bytes);
  if (manifest.kind === 'index') {
    const entry = chooseEntry(parseIndex(bytes), platform);
    if (entry === undefined) {
      const message = `the image has nothing for ${renderPlatform(platform)}; name another with --platform`;
      throw new DaemonError('not_found', message);
    }
    manifest = parseManifest((await client.manifest(origin, entry.digest, options)).bytes);
  }
  const layer =
    manifest.kind === 'image' ? manifest.blobs.find(({ role }) => role === 'layer') : undefined;
  if (layer !== undefined) return { digest: layer.digest, size_bytes: layer.size_bytes };
  throw new DaemonError('not_found', 'the image has no layer that a registry hands out');
}

async function endpointsOf(
  client: RegistryClient,
  origins: readonly Origin[],
): Promise<{ endpoints: CheckedEndpoint[]; problems: string[] }> {
  const endpoints: CheckedEndpoint[] = [];
  const problems: string[] = [];
  const seen = new Set<string>();
  for (const { registry, repository } of origins) {
    // Several repositories of one registry have the same endpoints; credentials may differ, the first one's are shown.
    if (seen.has(registry)) continue;
    seen.add(registry);
    const found = await client.endpoints(registry);
    problems.push(...found.problems);
    for (const endpoint of found.endpoints) {
      const { credentials, problems: lacking } = await client.credentials(endpoint, repository);
      endpoints.push({
        ...shownEndpoint(endpoint),
        credentials: credentials.map(({ name }) => name),
        problems: lacking.map(({ name, why }) => `${name}: ${why}`),
      });
    }
  }
  return { endpoints, problems };
}

function shownEndpoint(endpoint: Endpoint): Omit<CheckedEndpoint, 'credentials' | 'problems'> {
  const { registry, told_by, pull, resolve, ca, client, skip_verify, plain_fallback } = endpoint;
  return {
    url: endpointUrl(endpoint),
    ...{ registry, told_by, ca, client, skip_verify, plain_fallback },
    mirror: isMirror(endpoint),
    may: [...(pull ? (['pull'] as const) : []), ...(resolve ? (['resolve'] as const) : [])],
    headers: [...new Set(endpoint.headers.map(({ name }) => name))],
  };
}

function answerOf(served: Served, elapsed_ms: number): CheckedAnswer {
  const { endpoint, credential, served_by } = served;
  const home = new URL(endpointUrl(endpoint)).origin;
  return {
    endpoint: endpointUrl(endpoint),
    credential,
    redirected_to: served_by === home ? undefined : served_by,
    elapsed_ms: Math.round(elapsed_ms),
  };
}

function note(report: Findings, { endpoint, error }: FailedEndpoint): void {
  const { code, message } = error;
  report.failed = [...report.failed, { endpoint: endpointUrl(endpoint), code, message }];
}
