import type { Multiaddr } from '@multiformats/multiaddr';
import type { Clock } from '../../base/clock.ts';
import type { ConnectResult } from '../metrics.ts';
import { transportOf } from './addresses.ts';

/** Head start of an address over the next one, in ms: what RFC 8305 advises, and several round trips of a data centre. */
const STEP_MS = 250;
/** Part of the deadline in which every address gets its turn, however many there are. */
const ALL_BEGUN_PART = 0.25;

/** One try of one address, up to admission. Never rejects; ends soon after its signal aborts and leaves nothing open then. */
export type Attempt = (address: Multiaddr, signal: AbortSignal) => Promise<ConnectResult>;

/** Results that speak for the host and not for the way to it: no other address changes them. */
const DECISIVE: ReadonlySet<ConnectResult> = new Set([
  'ok',
  'duplicate',
  'wrong_key',
  'protocol_version',
  'protocol_error',
  'banned',
  'full',
]);

/** Of several failures the one that says most is told. An own address among others says nothing of the host. */
const TELLING: readonly ConnectResult[] = [
  'wrong_peer',
  'refused',
  'gone',
  'timeout',
  'unreachable',
  'self',
];

/**
 * Tries the addresses of one host: in order, the next one a little later or as soon as one has failed, so that a silent
 * one costs a head start and not its deadline. The first to be admitted wins and the others are cancelled. Resolves at the latest when `deadline_ms` are over or the signal aborts; never rejects.
 */
export async function raceAddresses(
  addresses: readonly Multiaddr[],
  attempt: Attempt,
  options: {
    readonly clock: Clock;
    readonly deadline_ms: number;
    readonly signal: AbortSignal;
  },
): Promise<ConnectResult> {
  const { clock, deadline_ms } = options;
  const step_ms = Math.min(STEP_MS, (deadline_ms * ALL_BEGUN_PART) / addresses.length);
  const over = new AbortController();
  const signal = AbortSignal.any([options.signal, clock.timeout(deadline_ms), over.signal]);
  const late = new Promise<'late'>((resolve) => {
    signal.addEventListener('abort', () => resolve('late'), { once: true });
    if (signal.aborted) resolve('late');
  });
  const left = [...addresses];
  const running = new Map<Multiaddr, Promise<{ address: Multiaddr; result: ConnectResult }>>();
  const failures: ConnectResult[] = [];
  try {
    for (;;) {
      const address = left.shift();
      if (address !== undefined) {
        running.set(
          address,
          attempt(address, signal).then((result) => ({ address, result })),
        );
      }
      if (running.size === 0) return mostTelling(failures);
      const step = new AbortController();
      const next = left.length === 0 ? [] : [pause(clock, step_ms, step.signal)];
      const news = await Promise.race([...running.values(), late, ...next]);
      step.abort();
      if (news === 'late') return mostTelling([...failures, 'timeout']);
      if (news === 'step') continue;
      running.delete(news.address);
      if (DECISIVE.has(news.result)) return news.result;
      failures.push(news.result);
    }
  } finally {
    over.abort(new Error('another address was faster'));
  }
}

/** QUIC and TCP in turn and within each the families in turn, so that a way that is closed hides no other. Else as given. */
export function raceOrder(addresses: readonly Multiaddr[]): Multiaddr[] {
  const ways = (['quic', 'tcp'] as const).map((transport) => {
    const all = addresses.filter((address) => transportOf(address) === transport);
    const isV6 = (address: Multiaddr): boolean => address.getComponents()[0]?.name === 'ip6';
    return inTurn([all.filter((a) => !isV6(a)), all.filter(isV6)]);
  });
  return inTurn(ways);
}

function inTurn<T>(lists: readonly (readonly T[])[]): T[] {
  const longest = Math.max(0, ...lists.map((list) => list.length));
  return Array.from({ length: longest }, (_, i) =>
    lists.flatMap((list) => list.slice(i, i + 1)),
  ).flat();
}

function mostTelling(failures: readonly ConnectResult[]): ConnectResult {
  return TELLING.find((result) => failures.includes(result)) ?? 'unreachable';
}

/** Never rejects: who stops the pause does not look at it any more. */
function pause(clock: Clock, ms: number, signal: AbortSignal): Promise<'step'> {
  return clock.sleep(ms, { signal }).then(
    () => 'step' as const,
    () => 'step' as const,
  );
}
