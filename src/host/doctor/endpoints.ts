import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, isIP } from 'node:net';
import type { Clock } from '../../base/clock.ts';
import { errnoOf } from '../../base/errors.ts';

/** Host, transport and port of an address. */
export type Endpoint = {
  readonly host: string;
  readonly transport: 'udp' | 'tcp';
  readonly port: number;
};

/** What came of knocking at an endpoint: `answers`, or `timeout`, or the system's error code. */
export type Knock = string;

/** The endpoint of a multiaddr with an IP address or a name, such as `/ip4/10.0.0.1/udp/7878/quic-v1/p2p/…`. */
export function endpointOf(multiaddr: string): Endpoint | undefined {
  const found = /^\/(?:ip4|ip6|dns|dns4|dns6)\/([^/]+)\/(udp|tcp)\/(\d{1,5})(?:\/|$)/.exec(
    multiaddr,
  );
  const [, host, transport, port] = found ?? [];
  if (host === undefined || (transport !== 'udp' && transport !== 'tcp')) return undefined;
  return { host, transport, port: Number(port) };
}

/** True for addresses that only this host can reach. */
export function isLoopback(host: string): boolean {
  return host.startsWith('127.') || host === '::1';
}

/** Opens a TCP connection and closes it. Resolves in any case; the signal is the deadline. */
export async function knockTcp(host: string, port: number, signal: AbortSignal): Promise<Knock> {
  const socket = connect({ host, port });
  try {
    await once(socket, 'connect', { signal });
    return 'answers';
  } catch (error) {
    return reasonOf(error, signal);
  } finally {
    socket.destroy();
  }
}

/** A version no QUIC has: servers must answer it with the versions they know (RFC 9000 section 6.1, 15). */
const RESERVED_VERSION = 0x1a2a3a4a;
/** Servers drop first packets that are smaller (RFC 9000 section 14.1). */
const FIRST_PACKET_BYTES = 1200;
/** UDP may lose a packet: ask this often, this far apart. */
const TRIES = 3;
const TRY_EVERY_MS = 250;

/** The first packet of a connection in a version that does not exist. */
export function versionProbe(): Uint8Array {
  const packet = Buffer.alloc(FIRST_PACKET_BYTES);
  packet[0] = 0xc0;
  packet.writeUInt32BE(RESERVED_VERSION, 1);
  packet[5] = 8;
  packet.fill(0x6c, 6, 14);
  packet[14] = 8;
  packet.fill(0x73, 15, 23);
  return packet;
}

/** True for a Version Negotiation packet: long header, version 0 (RFC 9000 section 17.2.1). */
export function isVersionAnswer(packet: Uint8Array): boolean {
  return (
    packet.length >= 7 && (packet[0]! & 0x80) !== 0 && packet.subarray(1, 5).every((b) => b === 0)
  );
}

/** Asks whether a QUIC server is at an IP address, without a handshake. Resolves in any case; the signal is the deadline. */
export async function knockQuic(
  ip: string,
  port: number,
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<Knock> {
  const socket = createSocket(isIP(ip) === 6 ? 'udp6' : 'udp4');
  try {
    // Connected, so that "nobody listens there" (ICMP) is reported and others' packets are not taken for answers.
    socket.connect(port, ip);
    await once(socket, 'connect', { signal });
    const answered = once(socket, 'message', { signal }) as Promise<[Uint8Array]>;
    // It is awaited below; until then its failure belongs to nobody.
    answered.catch(() => undefined);
    let packet: Uint8Array | undefined;
    for (let tries = 0; tries < TRIES && packet === undefined; tries++) {
      // Failures come as 'error' events on a connected socket.
      socket.send(versionProbe(), () => undefined);
      const pause = clock.sleep(TRY_EVERY_MS, { signal }).catch(() => undefined);
      packet = (await Promise.race([answered, pause]))?.[0];
    }
    return isVersionAnswer(packet ?? (await answered)[0]) ? 'answers' : 'no QUIC';
  } catch (error) {
    return reasonOf(error, signal);
  } finally {
    socket.close();
  }
}

function reasonOf(error: unknown, signal: AbortSignal): Knock {
  if (signal.aborted) return 'timeout';
  return errnoOf(error) ?? 'unknown error';
}
