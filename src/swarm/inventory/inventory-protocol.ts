import { multiaddr } from '@multiformats/multiaddr';
import * as z from 'zod';
import { DaemonError } from '../../base/errors.ts';
import {
  MAX_ADDRESS_CHARS,
  MAX_CONTROL_BODY_BYTES,
  MAX_EXCHANGED_PEERS,
  MAX_PEER_ADDRESSES,
  WIRE_VERSION,
} from '../ground/limits.ts';

/** Fixed header: version, type, flags, 0, body length (32 bits). */
export const INVENTORY_HEADER_BYTES = 8;
/** Flag: whoever does not know the frame's type may skip it. */
const OPTIONAL = 1;

const TYPES = [
  'hello',
  'add',
  'remove',
  'clear',
  'synced',
  'ping',
  'state',
  'peers',
  'refuse',
] as const;
export type InventoryFrameType = (typeof TYPES)[number];

const Address = z.string().max(MAX_ADDRESS_CHARS).refine(isDialable);
const Addresses = z.array(Address).max(MAX_PEER_ADDRESSES);

/**
 * What this version can do beyond the first one, as its hello says it; a later version asks only for what it finds here.
 * `busy-in`: "busy" says when to ask again, and the patience in a request is heeded. `quick`: lists and small blobs need no upload slot.
 * `unsupported`: an unknown request is answered so and costs nobody anything.
 */
export const FEATURES: readonly string[] = ['busy-in', 'quick', 'unsupported'];
const MAX_FEATURES = 64;

const Hello = z.object({
  protocol: z.number().int(),
  software: z.string().max(64),
  zone: z.string().max(64),
  host: z.string().max(64),
  listen: Addresses,
  // The first version says nothing. A list that makes no sense is nobody's fault: nothing more is asked of that peer.
  features: z.array(z.string().max(32)).max(MAX_FEATURES).catch([]),
});
const State = z.object({ disk_full: z.boolean(), load: z.number().min(0).max(1) });
const Peers = z
  .array(z.object({ id: z.string().min(1).max(128), addresses: Addresses }))
  .max(MAX_EXCHANGED_PEERS);
const Refuse = z.object({
  reason: z.enum(['protocol_version', 'protocol_error', 'full', 'shutdown']),
});

/** First frame of each side. `host` is for display only; `listen` are the sender's own addresses; `features` as of `FEATURES`. */
export type Hello = Readonly<z.infer<typeof Hello>>;
/** What a host says of itself; what its software can do is added when it is sent. */
export type HelloFacts = Omit<Hello, 'features'>;
/** How the sender is; the load is the share of its upload slots in use. */
export type PeerState = Readonly<z.infer<typeof State>>;
/** Admitted peers the sender knows, with their addresses. */
export type ExchangedPeer = Readonly<z.infer<typeof Peers>[number]>;
/** Why the sender closes the connection. */
export type Refusal = Readonly<z.infer<typeof Refuse>>;

/** One frame. Unknown fields of JSON bodies are ignored, and frames marked optional are skipped by who does not know them, so later versions can grow. */
export function encodeInventory(
  type: InventoryFrameType,
  body: Uint8Array | object = new Uint8Array(),
): Uint8Array {
  const bytes = body instanceof Uint8Array ? body : Buffer.from(JSON.stringify(body));
  const frame = new Uint8Array(INVENTORY_HEADER_BYTES + bytes.length);
  frame[0] = WIRE_VERSION;
  frame[1] = TYPES.indexOf(type) + 1;
  frame[2] = type === 'state' ? OPTIONAL : 0;
  new DataView(frame.buffer).setUint32(4, bytes.length);
  frame.set(bytes, INVENTORY_HEADER_BYTES);
  return frame;
}

/**
 * The type (undefined = unknown but optional: skip the body) and the body's length. `protocol_error` for a body beyond the limit and,
 * with `reason: 'protocol_version'` and so without blame, for another version or a mandatory frame of unknown type.
 */
export function decodeInventoryHeader(header: Uint8Array): {
  readonly type: InventoryFrameType | undefined;
  readonly length: number;
} {
  if (header[0] !== WIRE_VERSION) {
    throw new DaemonError('protocol_error', 'the peer speaks another version of the inventory', {
      reason: 'protocol_version',
      version: header[0],
    });
  }
  const type = TYPES[header[1]! - 1];
  const length = new DataView(header.buffer, header.byteOffset).getUint32(4);
  if (length > MAX_CONTROL_BODY_BYTES) {
    throw new DaemonError('protocol_error', 'an inventory frame is too long', { bytes: length });
  }
  if (type === undefined && (header[2]! & OPTIONAL) === 0) {
    throw new DaemonError('protocol_error', 'the peer sent a frame of unknown type', {
      reason: 'protocol_version',
      type: header[1],
    });
  }
  return { type, length };
}

/** `protocol_error` for anything that is not a hello of our protocol version. */
export function decodeHello(body: Uint8Array): Hello {
  const hello = decodeJson(Hello, body);
  if (hello.protocol !== WIRE_VERSION) {
    throw new DaemonError('protocol_error', 'the peer speaks another version of the inventory', {
      reason: 'protocol_version',
      version: hello.protocol,
    });
  }
  return hello;
}

/** `protocol_error`. */
export function decodeState(body: Uint8Array): PeerState {
  return decodeJson(State, body);
}

/** `protocol_error`. */
export function decodePeers(body: Uint8Array): readonly ExchangedPeer[] {
  return decodeJson(Peers, body);
}

/** `protocol_error`. */
export function decodeRefusal(body: Uint8Array): Refusal {
  return decodeJson(Refuse, body);
}

function decodeJson<T>(schema: z.ZodType<T>, body: Uint8Array): T {
  try {
    return schema.parse(JSON.parse(Buffer.from(body).toString('utf8')));
  } catch (error) {
    throw new DaemonError(
      'protocol_error',
      'an inventory frame is malformed',
      {},
      { cause: error },
    );
  }
}

/** An address with a plain IP and a transport of ours: names from peers are never resolved. */
function isDialable(text: string): boolean {
  try {
    const names = multiaddr(text)
      .getComponents()
      .map((c) => c.name)
      .join('/');
    return /^ip[46]\/(tcp|udp\/quic-v1)(\/p2p)?$/.test(names);
  } catch {
    return false;
  }
}
