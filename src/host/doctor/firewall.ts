import type { RunProgram } from '../run-program.ts';

/** A firewall that is active here and whether its rules name the swarm port. */
export type Firewall = { readonly name: 'ufw' | 'firewalld'; readonly allows: boolean };

/** Asks ufw and firewalld, where they are installed. What they do not know (nftables by hand, clouds) cannot be seen here. */
export async function activeFirewalls(
  run: RunProgram,
  port: number,
  signal: AbortSignal,
): Promise<Firewall[]> {
  const ask = async (...argv: string[]): Promise<string> => {
    const result = await run(argv, { signal, deadline_ms: 3_000 }).catch(() => undefined);
    return result?.code === 0 ? result.stdout : '';
  };
  const found: Firewall[] = [];
  const ufw = await ask('ufw', 'status');
  if (/^Status: active/m.test(ufw)) found.push({ name: 'ufw', allows: ufwAllows(ufw, port) });
  if (/^running/m.test(await ask('firewall-cmd', '--state'))) {
    const zone = await ask('firewall-cmd', '--list-all');
    found.push({ name: 'firewalld', allows: firewalldAllows(zone, port) });
  }
  return found;
}

/** True when `ufw status` has an ALLOW line for our application profile or the port, over both transports. */
export function ufwAllows(status: string, port: number): boolean {
  const allowed = status.split('\n').filter((line) => line.includes('ALLOW'));
  const names = allowed.map((line) => (line.trim().split(/\s{2,}/)[0] ?? '').toLowerCase());
  if (names.some((name) => name === 'layerswarm' || name === String(port))) return true;
  return ['udp', 'tcp'].every((transport) => names.includes(`${port}/${transport}`));
}

/** True when a zone lists our service or the port, over both transports. */
export function firewalldAllows(zone: string, port: number): boolean {
  const words = (name: string): string[] =>
    (new RegExp(`^\\s*${name}:(.*)$`, 'm').exec(zone)?.[1] ?? '').trim().split(/\s+/);
  if (words('services').includes('layerswarm')) return true;
  const ports = words('ports');
  return ['udp', 'tcp'].every((transport) => ports.includes(`${port}/${transport}`));
}

/** The commands that open the port. */
export function openPort(firewall: Firewall['name']): readonly string[] {
  return firewall === 'ufw'
    ? ['ufw allow layerswarm']
    : ['firewall-cmd --permanent --add-service=layerswarm', 'firewall-cmd --reload'];
}
