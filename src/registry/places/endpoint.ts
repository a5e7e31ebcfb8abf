import { BlockList, isIP } from 'node:net';
import { DOCKER_HUB, hostnameOf } from '../../oci/reference.ts';
import type { Secret } from '../ground/secret.ts';

/** One place that can be asked for an image of a registry, and how. */
export type Endpoint = {
  /** The registry it stands for, as images name it; a mirror has another `host`. */
  readonly registry: string;
  readonly scheme: 'http' | 'https';
  /** `host` or `host:port`. */
  readonly host: string;
  /** What stands before `/<repository>/blobs/…`; `/v2` unless a file says otherwise. */
  readonly path: string;
  /** May be asked for blobs, and for manifests by digest. */
  readonly pull: boolean;
  /** May be asked what a tag means. */
  readonly resolve: boolean;
  /** Files of certificates that are trusted beside the system's. */
  readonly ca: readonly string[];
  readonly client: readonly ClientPair[];
  readonly skip_verify: boolean;
  /** HTTPS is tried first, and plain HTTP when the other side does not speak TLS. */
  readonly plain_fallback: boolean;
  readonly headers: readonly { readonly name: string; readonly value: Secret }[];
  /** Longest time to connect; undefined = ours. */
  readonly dial_timeout_ms: number | undefined;
  /** The file that says so, or the rule. */
  readonly told_by: string;
};

/** Files of a certificate and its key, which may be one file. */
export type ClientPair = { readonly cert: string; readonly key: string };

/** What a file may say of an endpoint; the rest follows from it. */
export type EndpointSettings = Pick<
  Endpoint,
  'registry' | 'host' | 'path' | 'pull' | 'resolve' | 'ca' | 'client' | 'headers' | 'told_by'
> & {
  readonly scheme: 'http' | 'https';
  /** Undefined = the file does not say. */
  readonly skip_verify: boolean | undefined;
  readonly dial_timeout_ms: number | undefined;
};

/** What an endpoint has when nothing is said of it. */
export const PLAIN_SETTINGS = {
  path: '/v2',
  pull: true,
  resolve: true,
  ca: [],
  client: [],
  headers: [],
  skip_verify: undefined,
  dial_timeout_ms: undefined,
} as const;

/**
 * Makes an endpoint by containerd's rule: one that is called `http` and has settings of TLS is asked over TLS first, unless its port is 80,
 * and in plain when the other side does not speak TLS.
 */
export function endpointOf(settings: EndpointSettings): Endpoint {
  const { ca, client, skip_verify, scheme, host } = settings;
  const has_tls = ca.length > 0 || client.length > 0 || skip_verify !== undefined;
  const plain_fallback = scheme === 'http' && has_tls && portOf(host) !== '80';
  return {
    ...settings,
    scheme: plain_fallback ? 'https' : scheme,
    plain_fallback,
    skip_verify: skip_verify === true,
  };
}

/**
 * Where a registry is when no file says otherwise: HTTPS on its port, Docker Hub at its own address. On loopback certificates are not
 * verified, and a port other than 443 may speak plain HTTP (containerd's rules).
 */
export function defaultEndpoint(
  registry: string,
  told_by: string,
  tls: Partial<Pick<EndpointSettings, 'ca' | 'client' | 'skip_verify'>> = {},
): Endpoint {
  const settings = { ...PLAIN_SETTINGS, ...tls, registry, told_by };
  if (registry === DOCKER_HUB) {
    return endpointOf({ ...settings, scheme: 'https', host: 'registry-1.docker.io' });
  }
  if (!isLoopback(hostnameOf(registry))) {
    return endpointOf({ ...settings, scheme: 'https', host: registry });
  }
  const port = portOf(registry);
  const scheme = port === '' || port === '443' ? 'https' : 'http';
  const skip_verify = port === '80' ? settings.skip_verify : true;
  return endpointOf({ ...settings, scheme, host: registry, skip_verify });
}

/** `https://host/path`: what is shown of an endpoint. */
export function endpointUrl({ scheme, host, path }: Endpoint): string {
  return `${scheme}://${host}${path}`;
}

/** True when requests to it must say for whom they are (`?ns=`): it is not the registry itself. */
export function isMirror({ registry, host }: Endpoint): boolean {
  return registry !== host && !(registry === DOCKER_HUB && host === 'registry-1.docker.io');
}

/** True for `localhost` and addresses of the loopback interface. */
export function isLoopback(hostname: string): boolean {
  if (hostname === 'localhost') return true;
  const family = isIP(hostname);
  return family !== 0 && LOOPBACK.check(hostname, family === 6 ? 'ipv6' : 'ipv4');
}

const LOOPBACK = new BlockList();
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4');
LOOPBACK.addAddress('::1', 'ipv6');

function portOf(host: string): string {
  return /:(\d+)$/.exec(host)?.[1] ?? '';
}
