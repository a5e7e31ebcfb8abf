import { styleText } from 'node:util';
import type { Condition__Output } from '../gen/layerswarm/control/v1/Condition.ts';
import type { Containerd__Output } from '../gen/layerswarm/control/v1/Containerd.ts';
import type { StatusResponse__Output } from '../gen/layerswarm/control/v1/StatusResponse.ts';
import type { Swarm__Output } from '../gen/layerswarm/control/v1/Swarm.ts';
import type { Transfer__Output } from '../gen/layerswarm/control/v1/Transfer.ts';

type Style = Parameters<typeof styleText>[0];
type Paint = (style: Style, text: string) => string;

const BYTE_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
/** Characters kept of a peer id: its end, because all of them begin alike. */
const PEER_ID_TAIL = 10;
const DIGEST_HEAD = 12;
/** Longest text of another host that a cell shows. */
const CELL_MAX = 48;

/** `1.5 GiB`: three figures at most, powers of 1024. */
export function humanBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < BYTE_UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  const digits = unit > 0 && value < 9.95 ? 1 : 0;
  return `${value.toFixed(digits)} ${BYTE_UNITS[unit] ?? ''}`;
}

/** `12 MiB/s`; `-` for no measurement. */
export function humanRate(bytes_per_second: number): string {
  return bytes_per_second <= 0 ? '-' : `${humanBytes(bytes_per_second)}/s`;
}

/** `3d 4h`, `12m 5s`, `0s`: the two largest units. */
export function humanDuration(seconds: number): string {
  const whole = Math.floor(seconds);
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'm'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([n]) => n > 0);
  if (first === -1) return '0s';
  return parts
    .slice(first, first + 2)
    .filter(([n]) => n > 0)
    .map(([n, unit]) => `${n}${unit}`)
    .join(' ');
}

/**
 * Text of another host as a terminal may show it: one line, no control characters or direction marks, bounded.
 */
export function safeText(text: string): string {
  const clean = text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '?');
  return clean.length > CELL_MAX ? `${clean.slice(0, CELL_MAX - 1)}…` : clean;
}

/** Left-aligned columns, two spaces apart; columns named in `right` are aligned to the right. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  right: readonly string[] = [],
): string[] {
  const widths = head.map((h, i) => Math.max(h.length, ...rows.map((r) => (r[i] ?? '').length)));
  return [head, ...rows].map((row) =>
    row
      .map((cell, i) =>
        right.includes(head[i] ?? '') ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  );
}

/** The whole of `layerswarm status` for a person, without a newline at the end. */
export function renderStatus(
  status: StatusResponse__Output,
  options: { readonly color: boolean },
): string {
  const paint: Paint = (style, text) =>
    options.color ? styleText(style, text, { validateStream: false }) : text;
  const { swarm, transfers } = status;
  const blocks = [summary(status, paint)];
  if (status.conditions.length > 0) blocks.push(conditionLines(status.conditions, paint));
  if (swarm !== null) blocks.push(...swarmTables(swarm));
  if (transfers.length > 0) blocks.push(transferTable(transfers));
  return blocks
    .map((lines, i) =>
      i === 0 ? lines.join('\n') : [paint('dim', lines[0] ?? ''), ...lines.slice(1)].join('\n'),
    )
    .join('\n\n');
}

const STATE_STYLE: Readonly<Record<string, Style>> = {
  connected: 'green',
  alone: 'yellow',
  starting: 'yellow',
  draining: 'yellow',
  degraded: 'red',
};

function summary(status: StatusResponse__Output, paint: Paint): string[] {
  const { swarm, blobs, traffic, state, reason } = status;
  const shown = paint(STATE_STYLE[state] ?? 'bold', state);
  const lines = [
    `layerswarm ${status.version}  ${shown}${reason === '' ? '' : `: ${safeLine(reason)}`}`,
    `process  pid ${status.pid}, up ${humanDuration(status.uptimeSeconds)}, ${humanBytes(status.residentMemoryBytes)} of memory`,
  ];
  if (status.containerd !== null) lines.push(containerdLine(status.containerd, paint));
  if (swarm?.enabled === true) {
    const zone = swarm.zone === '' ? '' : `, zone ${safeText(swarm.zone)}`;
    lines.push(`swarm    ${swarm.peerId}${zone}`);
    for (const address of swarm.listenAddresses) lines.push(`         on ${safeText(address)}`);
    lines.push(
      `peers    ${swarm.connectedPeers} connected of ${swarm.knownPeers} known, ${swarm.holdingPeers} with content, ${swarm.servedPeers} served in the last minute`,
    );
  } else {
    lines.push('swarm    off');
  }
  if (blobs !== null) {
    const lost =
      blobs.lostCount === 0 ? '' : `, ${paint('red', `${blobs.lostCount} lost or damaged`)}`;
    lines.push(
      `blobs    ${blobs.ownedCount} owned (${humanBytes(blobs.ownedBytes)}), ${blobs.cacheCount} cached (${humanBytes(blobs.cacheBytes)} of ${humanBytes(blobs.cacheMaxBytes)})${lost}`,
    );
  }
  if (traffic !== null) {
    lines.push(
      `bytes    ${humanBytes(traffic.receivedFromPeersBytes)} from peers, ${humanBytes(traffic.writtenByContainerdBytes)} from registries, ${humanBytes(traffic.servedToPeersBytes)} served to peers`,
    );
  }
  return lines;
}

/** What stands against the daemon, each with the commands that mend it, to be copied as they are. */
function conditionLines(conditions: readonly Condition__Output[], paint: Paint): string[] {
  return [
    'DEGRADED (containerd is served all the same)',
    ...conditions.flatMap(({ cause, what, mend, sinceSeconds }) => [
      `${paint('red', cause)}, for ${humanDuration(sinceSeconds)}: ${safeLine(what)}`,
      ...mend.map((command) => `  mend: ${safeLine(command)}`),
    ]),
  ];
}

/** Whether containerd uses this daemon, and the call that proves it. */
function containerdLine(containerd: Containerd__Output, paint: Paint): string {
  const { state, reason, calls, lastCallMsAgo, lastCallMethod, lastCallNamespace } = containerd;
  if (state === 'not_wired') return `content  ${paint('red', 'not in use')}: ${safeLine(reason)}`;
  if (calls === 0) return `content  ${safeLine(reason)}`;
  const space = lastCallNamespace === '' ? '' : `, namespace ${safeText(lastCallNamespace)}`;
  return `content  containerd uses this daemon: last call ${humanDuration(lastCallMsAgo / 1000)} ago (${safeText(lastCallMethod)}${space})`;
}

/** A reason is a sentence of our own daemon; the socket's other end still gets no control characters through. */
function safeLine(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, ' ');
}

function swarmTables(swarm: Swarm__Output): string[][] {
  const blocks: string[][] = [];
  if (swarm.peers.length > 0) {
    const rows = swarm.peers.map((p) => [
      shortPeer(p.peerId),
      safeText(p.address),
      p.transport,
      p.zone === '' ? '-' : safeText(p.zone),
      p.state,
      String(p.inventoryBlobs),
      humanBytes(p.receivedBytes),
      humanBytes(p.sentBytes),
      humanRate(p.receiveBytesPerSecond),
    ]);
    blocks.push(
      table(['PEER', 'ADDRESS', 'BY', 'ZONE', 'STATE', 'BLOBS', 'RECEIVED', 'SENT', 'RATE'], rows, [
        'BLOBS',
        'RECEIVED',
        'SENT',
        'RATE',
      ]),
    );
  }
  if (swarm.bootstrap.length > 0) {
    const rows = swarm.bootstrap.map((b) => [
      safeText(b.address),
      b.state,
      b.reason === '' ? '-' : safeText(b.reason),
    ]);
    blocks.push(table(['BOOTSTRAP', 'STATE', 'LAST FAILURE'], rows));
  }
  if (swarm.bans.length > 0) {
    const rows = swarm.bans.map((b) => [
      shortPeer(b.peerId),
      b.reason,
      humanDuration(b.remainingSeconds),
    ]);
    blocks.push(table(['BANNED', 'REASON', 'FOR'], rows));
  }
  return blocks;
}

function transferTable(transfers: readonly Transfer__Output[]): string[] {
  const rows = transfers.map((t) => [
    t.digest.replace(/^sha256:/, '').slice(0, DIGEST_HEAD),
    humanBytes(t.sizeBytes),
    t.sizeBytes === 0 ? '-' : `${Math.floor((t.receivedBytes / t.sizeBytes) * 100)}%`,
    t.state,
    humanDuration(t.ageMs / 1000),
    t.sources.map((s) => `${shortPeer(s.source)} ${humanBytes(s.bytes)}`).join(', ') || '-',
  ]);
  return table(['TRANSFER', 'SIZE', 'DONE', 'STATE', 'SINCE', 'FROM'], rows, ['SIZE', 'DONE']);
}

function shortPeer(id: string): string {
  return id.length > 24 ? `…${safeText(id.slice(-PEER_ID_TAIL))}` : safeText(id);
}
