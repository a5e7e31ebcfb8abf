/** A row of `ctr plugins ls`. */
export type PluginRow = { readonly type: string; readonly id: string; readonly status: string };

/** Rows of `ctr plugins ls`: TYPE ID PLATFORMS STATUS in columns. */
export function parsePlugins(output: string): PluginRow[] {
  return output
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((cells) => cells.length >= 3)
    .map((cells) => ({ type: cells[0] ?? '', id: cells[1] ?? '', status: cells.at(-1) ?? '' }));
}

/** Addresses of content proxies by id, of `ctr plugins ls --detailed`: blocks of `Name: value` lines. */
export function parseProxyAddresses(output: string): Map<string, string> {
  const addresses = new Map<string, string>();
  for (const block of output.split(/^Type:/m).slice(1)) {
    const [type = ''] = block.trim().split(/\s/, 1);
    const id = /^ID:\s+(\S+)/m.exec(block)?.[1];
    const address = /^\s+address\s+(\S+)/m.exec(block)?.[1];
    if (type === 'io.containerd.content.v1' && id !== undefined && address !== undefined) {
      addresses.set(id, address);
    }
  }
  return addresses;
}
