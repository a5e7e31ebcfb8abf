import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os';

/** Addresses by the name of the interface, as `os.networkInterfaces` gives them. */
export type Interfaces = Readonly<Record<string, readonly NetworkInterfaceInfo[] | undefined>>;

let latest: Interfaces = {};

/**
 * The host's interfaces now; while the kernel cannot be asked (that takes a descriptor, and there may be none), as they were when
 * it last could. Never throws: nothing that needs them is worth the swarm.
 */
export function hostInterfaces(): Interfaces {
  try {
    latest = networkInterfaces();
  } catch {
    // As before: interfaces change rarely.
  }
  return latest;
}
