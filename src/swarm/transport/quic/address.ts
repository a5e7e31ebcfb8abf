import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { DaemonError } from '../../../base/errors.ts';
import { hostInterfaces } from '../../ground/interfaces.ts';

/** An address of the form `/ip4|ip6/…/udp/…/quic-v1[/p2p/…]`, taken apart. */
export type QuicAddress = {
  readonly family: 4 | 6;
  readonly ip: string;
  readonly port: number;
  /** The peer id that the address demands, in text form. */
  readonly peer: string | undefined;
};

/** The parts of `ma`, or undefined when it is no QUIC address with a literal IP (names are resolved by the caller). */
export function quicAddress(ma: Multiaddr): QuicAddress | undefined {
  const [ip, udp, quic, p2p, ...rest] = ma.getComponents();
  if (ip?.value === undefined || udp?.value === undefined || rest.length > 0) return undefined;
  if ((ip.name !== 'ip4' && ip.name !== 'ip6') || udp.name !== 'udp') return undefined;
  if (quic?.name !== 'quic-v1' || (p2p !== undefined && p2p.name !== 'p2p')) return undefined;
  return {
    family: ip.name === 'ip4' ? 4 : 6,
    ip: ip.value,
    port: Number(udp.value),
    peer: p2p?.value,
  };
}

/** As `quicAddress`; throws `invalid_argument` instead of returning undefined. */
export function requireQuicAddress(ma: Multiaddr): QuicAddress {
  const address = quicAddress(ma);
  if (address !== undefined) return address;
  throw new DaemonError(
    'invalid_argument',
    `${ma.toString()} is not a QUIC address; write it as /ip4/<address>/udp/<port>/quic-v1`,
  );
}

/** Where a socket bound to `ip` can be reached: the wildcard address stands for every interface's address. */
export function reachableAddresses(family: 4 | 6, ip: string, port: number): Multiaddr[] {
  const wildcard = ip === '0.0.0.0' || ip === '::';
  const ips = wildcard ? interfaceAddresses(family) : [ip];
  return ips.map((each) => multiaddr(`/ip${family}/${each}/udp/${port}/quic-v1`));
}

function interfaceAddresses(family: 4 | 6): string[] {
  return Object.values(hostInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter((address) => address.family === `IPv${family}`)
    .map((address) => address.address);
}
