// Who pulls, with which client, on which containerd.
import type { ContainerdLine } from '../host/lab/debian-packages.ts';
import type { DemoOptions } from './options.ts';

/** One host of the demo and its pull. */
export interface PlannedHost {
  /** Its name in the lab: `a`, `b`, ... */
  readonly name: string;
  /** Its name for people: `A`, `B`, ... */
  readonly label: string;
  readonly client: 'ctr' | 'cri';
  readonly line: ContainerdLine;
}

/** In turn, so that three hosts already show every line that is supported. */
const MIXED = ['1.7', '2.1', '1.6'] as const satisfies readonly ContainerdLine[];

/** The hosts in the order they pull. A is the one that goes to the registry. */
export function planHosts(options: Pick<DemoOptions, 'hosts' | 'containerd'>): PlannedHost[] {
  return Array.from({ length: options.hosts }, (_, i) => {
    const name = String.fromCharCode('a'.charCodeAt(0) + i);
    return {
      name,
      label: name.toUpperCase(),
      // A and B by ctr, C over CRI, then in turn.
      client: i >= 2 && i % 2 === 0 ? 'cri' : 'ctr',
      line: options.containerd === 'mixed' ? MIXED[i % MIXED.length]! : options.containerd,
    };
  });
}
