import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { splitHostPort } from '../../config/keys.ts';
import type { Check, DoctorContext } from './context.ts';
import { endpointOf, type Knock, knockTcp } from './endpoints.ts';
import { type Finding, findingOf, type Remark, remark } from './finding.ts';
import { mapBounded } from './map-bounded.ts';

/** Bootstrap addresses looked at. */
const ADDRESSES_MAX = 32;
const AT_ONCE = 8;
/** Longest wait for a name, and for a connection, in ms. */
const STEP_DEADLINE_MS = 2_000;

/** A configured address and what came of it. */
type BootstrapFacts = {
  readonly address: string;
  /** Where it leads; empty when the name does not resolve. */
  readonly resolved: readonly string[];
  /** Of the first resolved address over TCP; undefined without one, or for a UDP-only address. */
  readonly tcp: Knock | undefined;
};

export type PeersFacts = {
  readonly swarm_enabled: boolean;
  readonly configured: number;
  readonly bootstrap: readonly BootstrapFacts[];
  /** What the daemon says; undefined when it does not answer. */
  readonly daemon:
    | {
        readonly connected: number;
        readonly addresses: readonly {
          readonly address: string;
          readonly state: string;
          readonly reason: string;
        }[];
      }
    | undefined;
};

/** Is this host with the others, and if not, which address fails for which reason? */
export const peersCheck: Check<PeersFacts> = {
  deadline_ms: 15_000,
  gather: async (context, signal) => {
    const { enabled, bootstrap } = context.config.config.swarm;
    const daemon = await context.daemon();
    const swarm = daemon.kind === 'answers' ? daemon.view.swarm : null;
    const looked = enabled
      ? await mapBounded(bootstrap.slice(0, ADDRESSES_MAX), AT_ONCE, (address) =>
          lookAt(address, context, signal),
        )
      : [];
    return {
      swarm_enabled: enabled,
      configured: bootstrap.length,
      bootstrap: looked,
      daemon:
        swarm === null
          ? undefined
          : { connected: swarm.peers.length, addresses: swarm.bootstrap.map((b) => ({ ...b })) },
    };
  },
  judge: judgePeers,
};

async function lookAt(
  address: string,
  { clock }: DoctorContext,
  signal: AbortSignal,
): Promise<BootstrapFacts> {
  const endpoint = address.startsWith('/') ? endpointOf(address) : splitHostPort(address);
  if (endpoint === undefined) return { address, resolved: [], tcp: undefined };
  const resolved = await resolve(endpoint.host, clock.timeout(STEP_DEADLINE_MS));
  const [first] = resolved;
  const is_udp = 'transport' in endpoint && endpoint.transport === 'udp';
  if (first === undefined || is_udp) return { address, resolved, tcp: undefined };
  const deadline = AbortSignal.any([signal, clock.timeout(STEP_DEADLINE_MS)]);
  return { address, resolved, tcp: await knockTcp(first, endpoint.port, deadline) };
}

async function resolve(host: string, deadline: AbortSignal): Promise<string[]> {
  if (isIP(host) !== 0) return [host];
  const late = new Promise<string[]>((settle) => {
    deadline.addEventListener('abort', () => settle([]), { once: true });
  });
  // The resolver heeds no signal: the wait is ours.
  const found = lookup(host, { all: true }).then(
    (list) => list.map((one) => one.address),
    () => [],
  );
  return Promise.race([found, late]);
}

/** What each reason of `status` asks for. */
const ADVICE: Readonly<Record<string, string>> = {
  wrong_key: 'copy the cluster key of that host here: layerswarm setup --cluster-key FILE',
  refused: 'on that host: systemctl status layerswarm',
  timeout: 'on that host: open UDP and TCP port 7878 (ufw allow layerswarm)',
  unreachable: 'check name and route: getent hosts NAME; ip route get ADDRESS',
  protocol_version: 'bring both hosts to the same version of layerswarm',
};

export function judgePeers(facts: PeersFacts): Finding {
  const { daemon, configured } = facts;
  const told = {
    swarm_enabled: facts.swarm_enabled,
    configured,
    looked_at: facts.bootstrap,
    connected: daemon?.connected,
    addresses: daemon?.addresses,
  };
  if (!facts.swarm_enabled) {
    const text = 'the configuration turns the swarm off';
    return findingOf('peers', '', [remark('note', text)], told);
  }
  const remarks = [...summaryRemarks(facts), ...addressRemarks(facts)];
  const connected = daemon?.connected ?? 0;
  const fine = `connected to ${connected} ${connected === 1 ? 'peer' : 'peers'}`;
  return findingOf('peers', fine, remarks, told);
}

function summaryRemarks({ daemon, configured }: PeersFacts): Remark[] {
  if (daemon === undefined) {
    return [remark('note', 'the daemon does not answer, so its peers are not known')];
  }
  if (daemon.connected > 0) return [];
  const others = daemon.addresses.filter((a) => a.state !== 'self');
  if (others.length === 0) {
    const why =
      configured === 0
        ? 'no bootstrap address is configured: it waits for others to come'
        : 'every bootstrap address is this host itself';
    const text = `this host is alone; ${why}`;
    return [remark('note', text, 'layerswarm setup --join HOST:7878')];
  }
  return [remark('warn', `this host is alone: none of ${others.length} addresses is connected`)];
}

function addressRemarks({ daemon, bootstrap }: PeersFacts): Remark[] {
  const remarks: Remark[] = [];
  const tried = daemon?.addresses ?? [];
  const told = new Set<string>();
  for (const { address, resolved, tcp } of bootstrap) {
    if (resolved.length === 0) {
      const text = `the bootstrap name ${address} does not resolve`;
      remarks.push(remark('warn', text, `getent hosts ${hostOf(address)}`));
      told.add(address);
      continue;
    }
    const known = tried.find(
      (a) => a.address === address || a.address === keyOf(address, resolved),
    );
    if (known?.state === 'self' || known?.state === 'connected') continue;
    const failed = tcp !== undefined && tcp !== 'answers';
    if (!failed && known?.state !== 'failed') continue;
    const reason = known?.state === 'failed' ? known.reason : '';
    const advice =
      ADVICE[reason] ?? (tcp === 'ECONNREFUSED' ? ADVICE['refused'] : ADVICE['timeout']);
    remarks.push(remark('warn', notConnected(address, reason, tcp), advice ?? ''));
    told.add(known?.address ?? address);
  }
  for (const { address, state, reason } of tried) {
    if (state !== 'failed' || told.has(address)) continue;
    const advice = ADVICE[reason];
    const mend = advice === undefined ? [] : [advice];
    remarks.push(remark('warn', notConnected(address, reason, undefined), ...mend));
  }
  return remarks;
}

function notConnected(address: string, reason: string, tcp: Knock | undefined): string {
  // The last dial went well and the connection has ended since.
  const why = reason === 'ok' || reason === 'duplicate' ? 'connection lost' : reason;
  const here = tcp === undefined ? '' : `over TCP from here: ${tcp}`;
  return `${address} is not connected: ${[why, here].filter((part) => part !== '').join('; ')}`;
}

/** How the daemon names the machine behind a configured name: by its IP address. */
function keyOf(address: string, resolved: readonly string[]): string {
  const ip = resolved[0] ?? '';
  const port = splitHostPort(address)?.port ?? 0;
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}

function hostOf(address: string): string {
  return splitHostPort(address)?.host ?? endpointOf(address)?.host ?? address;
}
