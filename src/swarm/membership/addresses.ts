import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { DaemonError } from '../../base/errors.ts';
import { hostInterfaces, type Interfaces } from '../ground/interfaces.ts';
import type { PeerId } from '../ground/peer-id.ts';
import { MAX_RESOLVED_ADDRESSES } from '../ground/limits.ts';

/** A host to try: addresses of one machine, best transport first. */
export type DialTarget = { readonly key: string; readonly addresses: readonly Multiaddr[] };

/** A parsed bootstrap entry. */
export type BootstrapEntry =
  | { readonly kind: 'host'; readonly text: string; readonly host: string; readonly port: number }
  | { readonly kind: 'multiaddr'; readonly text: string; readonly address: Multiaddr };

/** The transports this host can dial. */
export type Transports = { readonly quic: boolean; readonly tcp: boolean };

/** Resolves a name to its addresses; the machine's resolver unless a test says otherwise. */
export type Resolve = (host: string) => Promise<readonly string[]>;

/** Asks the machine's resolver for every address of a name. */
export const resolveHost: Resolve = async (host) =>
  (await lookup(host, { all: true })).map((found) => found.address);

/** `host:port`, `[v6]:port` or a multiaddr. `config_invalid`. */
export function parseBootstrap(text: string): BootstrapEntry {
  if (text.startsWith('/')) {
    try {
      return { kind: 'multiaddr', text, address: multiaddr(text) };
    } catch (cause) {
      throw new DaemonError(
        'config_invalid',
        `The bootstrap address "${text}" is not a multiaddr.`,
        {},
        { cause },
      );
    }
  }
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port === 0 || port > 65_535) {
    throw new DaemonError(
      'config_invalid',
      `The bootstrap address "${text}" is neither host:port nor a multiaddr.`,
    );
  }
  return { kind: 'host', text, host, port };
}

/** The machines behind an entry now. A name is resolved at each call, because its addresses change. */
export async function expandBootstrap(
  entry: BootstrapEntry,
  transports: Transports,
  resolve: Resolve,
): Promise<readonly DialTarget[]> {
  if (entry.kind === 'multiaddr') return [{ key: entry.text, addresses: [entry.address] }];
  const ips = isIP(entry.host) === 0 ? await resolve(entry.host) : [entry.host];
  return [...new Set(ips)].slice(0, MAX_RESOLVED_ADDRESSES).map((ip) => ({
    key: isIP(ip) === 6 ? `[${ip}]:${entry.port}` : `${ip}:${entry.port}`,
    addresses: addressesOf(ip, entry.port, transports),
  }));
}

/** QUIC first, then TCP, on the same port. */
function addressesOf(ip: string, port: number, transports: Transports): Multiaddr[] {
  const base = `/ip${isIP(ip)}/${ip}`;
  return [
    ...(transports.quic ? [multiaddr(`${base}/udp/${port}/quic-v1`)] : []),
    ...(transports.tcp ? [multiaddr(`${base}/tcp/${port}`)] : []),
  ];
}

/** `ip/transport/port`, the part of an address that names an endpoint whatever stands behind it. */
export function endpointOf(address: Multiaddr): string {
  const [host, port] = address.getComponents();
  return `${host?.value ?? ''}/${port?.name ?? ''}/${port?.value ?? ''}`;
}

/** True when the address leads over QUIC. */
export function transportOf(address: Multiaddr): 'quic' | 'tcp' {
  return address.getComponents().some((c) => c.name === 'quic-v1') ? 'quic' : 'tcp';
}

/** The peer that the address names, if any. */
export function peerOf(address: Multiaddr): PeerId | undefined {
  return address.getComponents().findLast((c) => c.name === 'p2p')?.value as PeerId | undefined;
}

/** The same address, whoever stands there. */
export function withoutPeer(address: Multiaddr): Multiaddr {
  return multiaddr(address.getComponents().filter((c) => c.name !== 'p2p'));
}

/** Learnt own addresses that are kept; a host has a handful. */
const MAX_LEARNT = 256;

/**
 * Every endpoint that leads back to this host: all interface addresses with the listening ports, and those that a
 * handshake showed to be ours (a load balancer, a name that holds all hosts). They are never dialled.
 */
export class OwnAddresses {
  readonly #listening: () => readonly Multiaddr[];
  readonly #interfaces: () => Interfaces;
  readonly #learnt = new Set<string>();

  constructor(modules: {
    listening: () => readonly Multiaddr[];
    interfaces?: () => Interfaces;
  }) {
    this.#listening = modules.listening;
    this.#interfaces = modules.interfaces ?? hostInterfaces;
  }

  /** Endpoints as they are now: interfaces come and go. Ask once per round, not once per address. */
  current(): ReadonlySet<string> {
    const own = new Set(this.#learnt);
    const ips = Object.values(this.#interfaces()).flatMap((list) =>
      (list ?? []).map((i) => i.address),
    );
    for (const address of this.#listening()) {
      own.add(endpointOf(address));
      const [host, port] = address.getComponents();
      const isWildcard = host?.value === '0.0.0.0' || host?.value === '::';
      // libp2p reports wildcards expanded, but the list of interfaces may have grown since.
      const isAny = isWildcard || ips.includes(host?.value ?? '');
      if (isAny) for (const ip of ips) own.add(`${ip}/${port?.name ?? ''}/${port?.value ?? ''}`);
    }
    return own;
  }

  learn(address: Multiaddr): void {
    if (this.#learnt.size < MAX_LEARNT) this.#learnt.add(endpointOf(address));
  }
}
