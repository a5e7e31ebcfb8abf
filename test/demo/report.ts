// What the pulls came to: rows, table, verdict.
import { humanBytes, table } from '../../src/cli/render.ts';
import type { RegistryEvent } from '../host/lab/registry.ts';
import type { HostPull } from './host-pull.ts';

/** One pull; also an element of the array that `--json` writes. */
export interface PullRow {
  readonly host: string;
  readonly client: 'ctr' | 'cri';
  readonly containerd: string;
  /** The client's time from start to end, unpacking included. */
  readonly seconds: number;
  /** By the daemon's control status: after the pull less before it. */
  readonly bytes_from_peers: number;
  /** Bodies of GET answers to this host in the registry's access log, manifests included. */
  readonly bytes_from_registry: number;
  /** GETs of the image's layers by this host in the registry's access log. */
  readonly registry_layer_gets: number;
  /** Bytes of those. */
  readonly registry_layer_bytes: number;
  /** containerd lists every blob of the image, and each file on its disk has the digest it should. */
  readonly digests_ok: boolean;
  /** Version of the package layerswarm ran from; absent when it ran from the checkout. */
  readonly from_package?: string;
}

/** Joins what a host tells with what the registry's access log tells about that host. */
export function rowOf(
  pull: HostPull,
  events: readonly RegistryEvent[],
  layer_gets: readonly RegistryEvent[],
): PullRow {
  const own = (all: readonly RegistryEvent[]): RegistryEvent[] =>
    all.filter((event) => event.method === 'GET' && event.client === pull.address);
  const bytes = (some: readonly RegistryEvent[]): number =>
    some.reduce((sum, event) => sum + event.bytes, 0);
  return {
    host: pull.planned.label,
    client: pull.planned.client,
    containerd: pull.version,
    seconds: Math.round(pull.seconds * 1000) / 1000,
    bytes_from_peers: pull.bytes_from_peers,
    bytes_from_registry: bytes(own(events)),
    registry_layer_gets: own(layer_gets).length,
    registry_layer_bytes: bytes(own(layer_gets)),
    digests_ok: pull.wrong_digests.length === 0,
  };
}

/** The closing table. */
export function tableOf(rows: readonly PullRow[]): string {
  const head = [
    'host',
    'client',
    'containerd',
    'seconds',
    'from peers',
    'from registry',
    'layer GETs',
    'digests',
  ];
  const cells = rows.map((row) => [
    row.host,
    row.client === 'ctr' ? 'ctr' : 'CRI',
    row.containerd,
    row.seconds.toFixed(1),
    humanBytes(row.bytes_from_peers),
    humanBytes(row.bytes_from_registry),
    `${row.registry_layer_gets}`,
    row.digests_ok ? 'ok' : 'WRONG',
  ]);
  return table(head, cells, head.slice(3, 7)).join('\n');
}

/** What went wrong, a sentence each; empty when the demo showed what it is for. The first row is A's. */
export function complaintsOf(rows: readonly PullRow[]): string[] {
  const complaints: string[] = [];
  for (const [i, row] of rows.entries()) {
    if (!row.digests_ok) complaints.push(`${row.host} has a blob that is missing or wrong.`);
    if (i > 0 && (row.registry_layer_bytes > 0 || row.registry_layer_gets > 0))
      complaints.push(
        `${row.host} fetched ${humanBytes(row.registry_layer_bytes)} of layers from the registry (${row.registry_layer_gets} GETs), though its peers had them.`,
      );
  }
  return complaints;
}

/** What was shown and what to try next, when there is no complaint. */
export function closingOf(rows: readonly PullRow[]): string {
  const [first, ...others] = rows;
  if (first === undefined) return '';
  const names = others.map((row) => row.host);
  const last = names.pop() ?? '';
  const who = names.length === 0 ? last : `${names.join(', ')} and ${last}`;
  const shown = `The image left the registry once, for ${first.host} (${humanBytes(first.registry_layer_bytes)} of layers); ${who} asked it for no layer, because other hosts had them. containerd and its clients are Debian's own.`;
  const note =
    'All hosts share the processors of this machine, so the seconds compare nothing; npm run bench does.';
  return `${shown}\n${note}\nTry next: npm run demo -- --hosts 5 --image-mib 500; then "Install" in README.md.`;
}
