import { DaemonError } from '../base/errors.ts';
import { type Digest, isDigest } from './digest.ts';

/** Longest name of an image we read; the distribution spec bounds the repository alone to 255. */
const MAX_REFERENCE_LENGTH = 1024;
const MAX_REPOSITORY_LENGTH = 255;

/** What is meant when a name has no registry in it. */
export const DOCKER_HUB = 'docker.io';

/** An image's name, taken apart and made whole: registry and tag stand there even where the text left them out. */
export type ImageReference = {
  /** `host` or `host:port` as the name has it; `docker.io` for short names. */
  readonly registry: string;
  /** `library/debian`. */
  readonly repository: string;
  /** Undefined only where a digest stands alone. */
  readonly tag: string | undefined;
  readonly digest: Digest | undefined;
};

const DOMAIN = /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?$/;
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*$/;
const TAG = /^\w[\w.-]{0,127}$/;

/**
 * Reads an image's name as docker, nerdctl and the kubelet write it (grammar of distribution/reference): `debian` is
 * `docker.io/library/debian:latest`. `invalid_argument` for everything else.
 */
export function parseReference(text: string): ImageReference {
  const bad = (why: string): DaemonError =>
    new DaemonError(
      'invalid_argument',
      `"${text.slice(0, 160)}" is no name of an image (${why}); expected [HOST[:PORT]/]REPOSITORY[:TAG][@DIGEST]`,
    );
  if (text.length > MAX_REFERENCE_LENGTH) throw bad('it is too long');
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !isDigest(digest)) throw bad('what follows the @ is no digest');
  const named = at < 0 ? text : text.slice(0, at);
  const colon = named.lastIndexOf(':');
  const tag = colon > named.lastIndexOf('/') ? named.slice(colon + 1) : undefined;
  if (tag !== undefined && !TAG.test(tag)) throw bad('what follows the last colon is no tag');
  const path = tag === undefined ? named : named.slice(0, colon);
  const { registry, repository } = splitRegistry(path);
  if (!isRegistryHost(registry)) throw bad('its first part is no host');
  if (!isRepository(repository)) throw bad('its repository is not lower case, or malformed');
  return {
    registry,
    repository,
    tag: tag ?? (digest === undefined ? 'latest' : undefined),
    digest,
  };
}

/** The name in full, as containerd's images are called. */
export function renderReference({ registry, repository, tag, digest }: ImageReference): string {
  const tagged = tag === undefined ? '' : `:${tag}`;
  return `${registry}/${repository}${tagged}${digest === undefined ? '' : `@${digest}`}`;
}

/** True for `host` or `host:port` (an IPv6 address in brackets): nothing that could be a path, a query or a second host. */
export function isRegistryHost(text: string): boolean {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^:[\]]+)(?::(\d{1,5}))?$/.exec(text);
  const host = match?.[1];
  if (host === undefined || text.length > 260 || Number(match?.[2] ?? 1) > 65_535) return false;
  // The URL parser knows IPv6 addresses, and this room has no business with sockets.
  if (host.startsWith('[')) return URL.canParse(`http://${host}/`);
  return host.split('.').every((label) => DOMAIN.test(label));
}

/** True for a repository's path, such as `library/debian`. */
export function isRepository(text: string): boolean {
  return (
    text.length <= MAX_REPOSITORY_LENGTH && text.split('/').every((part) => COMPONENT.test(part))
  );
}

/** The host of `host:port`, without the brackets of an IPv6 address. */
export function hostnameOf(registry: string): string {
  return registry.replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
}

function splitRegistry(path: string): Pick<ImageReference, 'registry' | 'repository'> {
  const slash = path.indexOf('/');
  const first = slash < 0 ? '' : path.slice(0, slash);
  // A first part is a host when no repository of the Hub could begin with it.
  const is_host = /[.:A-Z]/.test(first) || first === 'localhost';
  const registry = is_host ? first : DOCKER_HUB;
  const repository = is_host ? path.slice(slash + 1) : path;
  const hub = registry === DOCKER_HUB || registry === 'index.docker.io';
  if (!hub) return { registry, repository };
  return {
    registry: DOCKER_HUB,
    repository: repository.includes('/') ? repository : `library/${repository}`,
  };
}
