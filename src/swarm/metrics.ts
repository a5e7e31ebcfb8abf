import type { MetricRegister } from '../ops/register.ts';
import type { ExclusionReason, Verdict } from '../piece/exclusion.ts';

/** How an attempt to become neighbours ended; also the reason shown per address. */
export type ConnectResult =
  | 'ok'
  | 'duplicate' // the peer is connected already
  | 'self' // the address turned out to be our own
  | 'timeout'
  | 'refused'
  | 'unreachable' // the network or a name gave no way there
  | 'wrong_key'
  | 'protocol_version'
  | 'protocol_error'
  | 'wrong_peer' // another peer id answers at a learnt address
  | 'banned'
  | 'full' // the mesh has its largest size, or too many wait for admission
  | 'gone'; // closed in the middle

/** How a peer's request was answered; the words of the piece protocol. */
type Answer = 'ok' | 'not_found' | 'busy' | 'error' | 'unsupported';

/** Metrics of the swarm room. */
export type SwarmMetrics = ReturnType<typeof createSwarmMetrics>;

/** Declares them. `peers` and `prefixes` are read at each scrape. */
export function createSwarmMetrics(
  register: MetricRegister,
  gauges: { readonly peers: () => number; readonly announced: () => number },
) {
  register.gauge({
    name: 'swarm_peers',
    help: 'Admitted, connected peers.',
    collect: (set) => set({}, gauges.peers()),
  });
  register.gauge({
    name: 'swarm_announced_blobs',
    help: 'Blobs this host announces to its peers.',
    collect: (set) => set({}, gauges.announced()),
  });
  return {
    dials: register.counter<{ result: ConnectResult }>({
      name: 'dials_total',
      help: 'Dialled addresses by result; "self" stays at what was needed to learn an own address.',
      labels: ['result'],
    }),
    admissions: register.counter<{ result: ConnectResult }>({
      name: 'admissions_total',
      help: 'Proofs of the cluster key after the encrypted handshake, by result.',
      labels: ['result'],
    }),
    closed: register.counter<{ reason: CloseReason }>({
      name: 'swarm_connections_closed_total',
      help: 'Admitted connections that ended, by reason.',
      labels: ['reason'],
    }),
    bans: register.counter<{ fault: Verdict }>({
      name: 'swarm_bans_total',
      help: 'Bans by the fault that led to them.',
      labels: ['fault'],
    }),
    excluded: register.counter<{ reason: ExclusionReason }>({
      name: 'candidates_excluded_total',
      help: 'Peers left out of a candidate list, by reason.',
      labels: ['reason'],
    }),
    served: register.counter<{ kind: 'piece' | 'list' | 'unknown'; status: Answer }>({
      name: 'swarm_requests_served_total',
      help: 'Requests of peers by kind and answer.',
      labels: ['kind', 'status'],
    }),
    uploaded: register.counter({
      name: 'swarm_uploaded_bytes_total',
      help: 'Payload bytes sent to peers.',
    }),
    downloaded: register.counter<{ transport: 'quic' | 'tcp' }>({
      name: 'swarm_downloaded_bytes_total',
      help: 'Payload bytes received from peers, unverified.',
      labels: ['transport'],
    }),
  };
}

/** Why an admitted connection ended. */
export type CloseReason =
  | 'gone' // broken, by the other side or the network, without a word
  | 'goodbye' // the peer is shutting down
  | 'silent' // no sign of life within the limit
  | 'protocol_error'
  | 'protocol_version'
  | 'banned'
  | 'replaced' // a newer or preferred connection to the same peer
  | 'refused' // the peer said why and left
  | 'shutdown';
