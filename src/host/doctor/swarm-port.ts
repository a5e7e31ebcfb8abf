import type { Check, DaemonView, DoctorContext } from './context.ts';
import {
  type Endpoint,
  endpointOf,
  isLoopback,
  type Knock,
  knockQuic,
  knockTcp,
} from './endpoints.ts';
import { type Finding, findingOf, type Remark, remark } from './finding.ts';
import { activeFirewalls, type Firewall, openPort } from './firewall.ts';
import { boundSockets, socketsOf } from './listening.ts';

/** Longest wait for an answer of our own port, in ms. */
const KNOCK_DEADLINE_MS = 2_000;

/** One transport of the swarm port. */
export type PortFacts = {
  readonly transport: 'udp' | 'tcp';
  /** Who has bound it: our daemon, somebody else, nobody; `unknown` when the daemon cannot be asked for its pid. */
  readonly bound_by: 'daemon' | 'other' | 'unknown' | 'nobody';
  /** What knocking at our own announced address gave; undefined when it announces none. */
  readonly knock: { readonly host: string; readonly result: Knock } | undefined;
};

export type SwarmPortFacts = {
  readonly swarm_enabled: boolean;
  readonly port: number;
  readonly ports: readonly PortFacts[];
  /** Connected peers, and those of them that came to us by themselves; undefined when the daemon does not answer. */
  readonly peers: { readonly connected: number; readonly inbound: number } | undefined;
  readonly firewalls: readonly Firewall[];
};

/** Does the daemon listen for peers, does its port answer, and has a peer ever come in? */
export const swarmPortCheck: Check<SwarmPortFacts> = {
  deadline_ms: 10_000,
  gather: gatherPort,
  judge: judgeSwarmPort,
};

async function gatherPort(context: DoctorContext, signal: AbortSignal): Promise<SwarmPortFacts> {
  const { enabled, listen_port, transports } = context.config.config.swarm;
  const daemon = await context.daemon();
  const view = daemon.kind === 'answers' ? daemon.view : undefined;
  const announced = (view?.swarm?.listenAddresses ?? []).flatMap((a) => endpointOf(a) ?? []);
  const port = listen_port === 0 ? (announced[0]?.port ?? 0) : listen_port;
  const none = { swarm_enabled: false, port, ports: [], peers: undefined, firewalls: [] };
  if (!enabled) return none;
  const wanted = transports.map((name) => (name === 'quic' ? 'udp' : 'tcp'));
  const bound = (await boundSockets()).filter((socket) => socket.port === port);
  const own = view === undefined ? new Set<string>() : await socketsOf(view.pid);
  const ports = wanted.map(async (transport): Promise<PortFacts> => {
    const sockets = bound.filter((socket) => socket.transport === transport);
    const is_ours = sockets.some((socket) => own.has(socket.inode));
    const bound_by =
      sockets.length === 0 ? 'nobody' : is_ours ? 'daemon' : own.size === 0 ? 'unknown' : 'other';
    const target = chooseTarget(announced.filter((e) => e.transport === transport));
    return { transport, bound_by, knock: await knockOwn(target, context, signal) };
  });
  return {
    swarm_enabled: true,
    port,
    ports: await Promise.all(ports),
    peers: view === undefined ? undefined : countPeers(view),
    firewalls: await activeFirewalls(context.run, port, signal),
  };
}

/** The address peers would use: the first that leads out of this host. */
function chooseTarget(endpoints: readonly Endpoint[]): Endpoint | undefined {
  return endpoints.find((e) => !isLoopback(e.host)) ?? endpoints[0];
}

async function knockOwn(
  target: Endpoint | undefined,
  { clock }: DoctorContext,
  signal: AbortSignal,
): Promise<PortFacts['knock']> {
  if (target === undefined) return undefined;
  const deadline = AbortSignal.any([signal, clock.timeout(KNOCK_DEADLINE_MS)]);
  const { host, port } = target;
  const result =
    target.transport === 'udp'
      ? await knockQuic(host, port, { clock, signal: deadline })
      : await knockTcp(host, port, deadline);
  return { host, result };
}

/**
 * Peers whose address is none that this host ever dialled have come in by themselves: a connection we dialled shows
 * the port that was dialled, one that came in shows a port the peer's kernel picked.
 */
export function countPeers(view: Pick<DaemonView, 'swarm'>): {
  connected: number;
  inbound: number;
} {
  const dialled = new Set(
    (view.swarm?.bootstrap ?? []).map(({ address }) => {
      const endpoint = endpointOf(address);
      return endpoint === undefined ? address : shown(endpoint);
    }),
  );
  const peers = (view.swarm?.peers ?? []).map((peer) => endpointOf(peer.address));
  const inbound = peers.filter((e) => e !== undefined && !dialled.has(shown(e)));
  return { connected: peers.length, inbound: inbound.length };
}

function shown({ host, port }: Endpoint): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

export function judgeSwarmPort(facts: SwarmPortFacts): Finding {
  const { port, ports, peers, firewalls } = facts;
  if (!facts.swarm_enabled) {
    const text = 'the configuration turns the swarm off';
    return findingOf('swarm-port', '', [remark('note', text)], { swarm_enabled: false });
  }
  const remarks = ports.flatMap((one) => portRemarks(one, port));
  const inbound = peers?.inbound ?? 0;
  for (const { name, allows } of firewalls) {
    if (allows || inbound > 0) continue;
    const text = `${name} is active and its rules do not name port ${port}: peers cannot come in`;
    remarks.push(remark('warn', text, ...openPort(name)));
  }
  if (peers !== undefined && peers.connected > 0 && inbound === 0) {
    const text = `no peer that is connected now came in by itself: this host dialled every one of the ${peers.connected}. That is normal for the host that started last; otherwise a firewall may be in the way`;
    remarks.push(remark('note', text, `from another host: nc -vz THIS-HOST ${port}`));
  }
  const names = ports.map((one) => one.transport.toUpperCase()).join(' and ');
  const came = inbound > 0 ? `, ${inbound} of ${peers?.connected ?? 0} peers came in` : '';
  const fine = `the daemon listens on ${names} port ${port} and answers there${came}`;
  return findingOf('swarm-port', fine, remarks, { ...facts });
}

function portRemarks({ transport, bound_by, knock }: PortFacts, port: number): Remark[] {
  const name = `${transport.toUpperCase()} port ${port}`;
  if (bound_by === 'nobody') {
    const text = `nobody listens on ${name}: peers cannot come in`;
    const mend = ['layerswarm status', 'journalctl -u layerswarm -n 50'];
    return [remark('fail', text, ...mend, 'systemctl restart layerswarm.service')];
  }
  if (bound_by === 'other') {
    const flag = transport === 'udp' ? 'u' : 't';
    const text = `another program has ${name}`;
    return [
      remark(
        'fail',
        text,
        `ss -l${flag}np 'sport = :${port}'`,
        'or choose another [swarm] listen_port',
      ),
    ];
  }
  if (bound_by === 'unknown') {
    const text = `${name} is bound; whether by the daemon cannot be told`;
    return [remark('note', text)];
  }
  if (knock !== undefined && knock.result !== 'answers') {
    const text = `${name} does not answer at our own address ${knock.host} (${knock.result}): a packet filter of this host, or the daemon hangs`;
    return [remark('warn', text, 'nft list ruleset', 'layerswarm status')];
  }
  return [];
}
