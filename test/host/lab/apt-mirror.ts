// Finds the Debian mirror this machine already uses, so that the bench names no host of its own.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** One place packages come from, as the machine's apt configuration states it. */
export interface AptEntry {
  readonly uri: string;
  readonly suites: readonly string[];
  readonly components: readonly string[];
  /** Path of the key ring the entry is bound to; absent when apt's trusted keys decide. */
  readonly signedBy?: string;
}

/**
 * Reads a one-line-format file (sources.list(5)): `deb [options] uri suite component…`.
 * Source and commented-out entries are left out; lines it does not understand are skipped.
 */
export function parseOneLine(text: string): AptEntry[] {
  const entries: AptEntry[] = [];
  for (const line of text.split('\n')) {
    const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)/.exec(line);
    if (match === null) continue;
    const signedBy = /(?:^|\s)signed-by=(\S+)/i.exec(match[1] ?? '')?.[1];
    entries.push({
      uri: match[2]!,
      suites: [match[3]!],
      components: words(match[4]!),
      ...(signedBy?.startsWith('/') === true ? { signedBy } : {}),
    });
  }
  return entries;
}

/**
 * Reads a deb822 file (`*.sources`, sources.list(5)): stanzas of `Key: value` with continuation lines.
 * A stanza with `Enabled: no` or without `deb` among its types is left out.
 */
export function parseDeb822(text: string): AptEntry[] {
  const bare = text.replaceAll(/^#.*\n?/gm, '');
  return bare.split(/\n[ \t]*\n/).flatMap((stanza) => {
    const fields = new Map<string, string>();
    let key = '';
    for (const line of stanza.split('\n')) {
      const field = /^([A-Za-z-]+):\s*(.*)$/.exec(line);
      if (field !== null) {
        key = field[1]!.toLowerCase();
        fields.set(key, field[2]!);
      } else if (/^[ \t]/.test(line) && key !== '') {
        fields.set(key, `${fields.get(key) ?? ''} ${line.trim()}`);
      }
    }
    if (!words(fields.get('types') ?? '').includes('deb')) return [];
    if (/^(no|false|0)$/i.test(fields.get('enabled')?.trim() ?? '')) return [];
    const signedBy = fields.get('signed-by')?.trim();
    return words(fields.get('uris') ?? '').map((uri) => ({
      uri,
      suites: words(fields.get('suites') ?? ''),
      components: words(fields.get('components') ?? ''),
      // A key written inline is not a path; the Debian archive key ring stands in for it.
      ...(signedBy?.startsWith('/') === true ? { signedBy } : {}),
    }));
  });
}

/** The entry that serves Debian's own `main` of bookworm; undefined when no entry does. */
export function debianEntry(entries: readonly AptEntry[]): AptEntry | undefined {
  return entries.find((e) => e.suites.includes('bookworm') && e.components.includes('main'));
}

/** Every enabled binary-package entry of this machine, in apt's own order of files. */
export async function readAptEntries(root = '/etc/apt'): Promise<AptEntry[]> {
  const parts = join(root, 'sources.list.d');
  const names = (await readdir(parts).catch(() => [])).toSorted();
  const entries = parseOneLine(await readText(join(root, 'sources.list')));
  for (const name of names) {
    if (name.endsWith('.list')) entries.push(...parseOneLine(await readText(join(parts, name))));
    if (name.endsWith('.sources')) entries.push(...parseDeb822(await readText(join(parts, name))));
  }
  return entries;
}

async function readText(path: string): Promise<string> {
  // A missing or unreadable file holds no entry; the caller reports when none is left.
  return readFile(path, 'utf8').catch(() => '');
}

function words(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}
