import { constants } from 'node:fs';
import { access, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { CLOCK_SLACK_MS, restartCommand } from './containerd-process.ts';
import type { Check } from './context.ts';
import { type Finding, findingOf, type Remark, remark } from './finding.ts';

const PROGRAMS = ['igzip', 'unpigz'] as const;
type Program = (typeof PROGRAMS)[number];

/** Debian's and Fedora's ways to install them; dnf finds a package by the file it brings. */
const INSTALL = {
  debian: { igzip: 'apt install isal', unpigz: 'apt install pigz' },
  fedora: { igzip: 'dnf install /usr/bin/igzip', unpigz: 'dnf install pigz' },
  other: {
    igzip: 'install igzip (of Intel ISA-L)',
    unpigz: 'install pigz',
  },
} as const satisfies Record<string, Record<Program, string>>;

export type DecompressorFacts =
  | { readonly kind: 'absent' }
  | {
      readonly kind: 'runs';
      readonly version: string | undefined;
      readonly search_path: string;
      /** Where containerd would find each, and whether it came after containerd's start. */
      readonly found: Readonly<Partial<Record<Program, { path: string; is_new: boolean }>>>;
      /** Switched off by containerd's environment. */
      readonly disabled: readonly Program[];
      readonly distribution: keyof typeof INSTALL;
      readonly restart: string;
    };

/** Does containerd find a decompressor that is faster than its own? Unpacking is most of a warm pull. */
export const decompressorsCheck: Check<DecompressorFacts> = {
  deadline_ms: 10_000,
  gather: async (context) => {
    const probe = await context.containerd();
    if (probe.kind === 'absent') return { kind: 'absent' };
    const { environment, started_epoch_ms } = probe.process;
    const search_path = environment['PATH'] ?? '';
    const found: Partial<Record<Program, { path: string; is_new: boolean }>> = {};
    for (const program of PROGRAMS) {
      const path = await findOn(search_path, program);
      if (path === undefined) continue;
      const came_ms = (await stat(path)).ctimeMs;
      found[program] = { path, is_new: came_ms > started_epoch_ms + CLOCK_SLACK_MS };
    }
    const disabled: Program[] = [];
    if ((environment['CONTAINERD_DISABLE_IGZIP'] ?? '') !== '') disabled.push('igzip');
    if ((environment['CONTAINERD_DISABLE_PIGZ'] ?? '') !== '') disabled.push('unpigz');
    return {
      kind: 'runs',
      version: probe.version,
      search_path,
      found,
      disabled,
      distribution: parseDistribution(await readFile('/etc/os-release', 'utf8').catch(() => '')),
      restart: restartCommand(probe.process),
    };
  },
  judge: judgeDecompressors,
};

async function findOn(search_path: string, program: string): Promise<string | undefined> {
  for (const directory of search_path.split(':').filter((d) => d.startsWith('/'))) {
    const path = join(directory, program);
    const is_there = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (is_there) return path;
  }
  return undefined;
}

/** Which packages a host takes, by ID and ID_LIKE of os-release(5). */
export function parseDistribution(os_release: string): keyof typeof INSTALL {
  const ids = [...os_release.matchAll(/^ID(?:_LIKE)?="?([^"\n]*)"?$/gm)].flatMap((m) =>
    (m[1] ?? '').split(' '),
  );
  if (ids.includes('debian') || ids.includes('ubuntu')) return 'debian';
  return ids.includes('fedora') || ids.includes('rhel') ? 'fedora' : 'other';
}

/** 2.1 looks for igzip and then for unpigz; 1.x and 2.0 know unpigz only. */
function looksFor(version: string | undefined): readonly Program[] {
  const [major = 0, minor = 0] = (version ?? '').split('.').map(Number);
  return major > 2 || (major === 2 && minor >= 1) ? ['igzip', 'unpigz'] : ['unpigz'];
}

export function judgeDecompressors(facts: DecompressorFacts): Finding {
  if (facts.kind === 'absent') {
    const text = 'no containerd runs here, so nothing unpacks';
    return findingOf('decompressors', '', [remark('note', text)], {});
  }
  const wanted = looksFor(facts.version);
  const usable = wanted.find((p) => facts.found[p] !== undefined && !facts.disabled.includes(p));
  const used = usable === undefined ? undefined : facts.found[usable];
  const fine = `containerd unpacks with ${usable ?? ''} (${used?.path ?? ''})`;
  const told = {
    containerd: facts.version,
    looks_for: wanted,
    search_path: facts.search_path,
    found: facts.found,
    disabled_by_environment: facts.disabled,
    used: usable ?? null,
  };
  return findingOf('decompressors', fine, remarksOf(facts, wanted, usable), told);
}

function remarksOf(
  facts: Extract<DecompressorFacts, { kind: 'runs' }>,
  wanted: readonly Program[],
  usable: Program | undefined,
): Remark[] {
  const { found, distribution, restart } = facts;
  const install = INSTALL[distribution];
  const best = wanted[0] ?? 'unpigz';
  const version = facts.version ?? 'of unknown version';
  // Nothing is broken: unpacking just takes longer.
  if (usable === undefined) {
    const off = wanted.find((p) => found[p] !== undefined);
    if (off !== undefined) {
      const text = `containerd's environment keeps it from using ${off}; it unpacks with its own gzip, which is slower`;
      const mend = `remove CONTAINERD_DISABLE_${off === 'igzip' ? 'IGZIP' : 'PIGZ'} from containerd's environment`;
      return [remark('note', text, mend, restart)];
    }
    const text = `containerd ${version} finds no ${wanted.join(' or ')} on its PATH; it unpacks with its own gzip, which is slower`;
    return [remark('note', text, install[best], restart)];
  }
  const remarks: Remark[] = [];
  if (found[usable]?.is_new === true) {
    const text = `${usable} was installed after containerd's start; containerd looks for it once and may not have found it`;
    remarks.push(remark('note', text, restart));
  }
  if (usable !== best && !facts.disabled.includes(best)) {
    const text = `containerd ${version} unpacks with ${usable}; with ${best} it would take less time`;
    remarks.push(remark('note', text, install[best], restart));
  }
  return remarks;
}
