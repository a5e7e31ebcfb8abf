import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DaemonError } from '../../base/errors.ts';
import { parseContainerd } from '../containerd-config.ts';
import { effectiveConfigPath, isTakenWhole, rootsOf } from '../cri-registries.ts';
import { restartCommand } from './containerd-process.ts';
import type { Check } from './context.ts';
import { type Finding, findingOf, type Remark, remark } from './finding.ts';

/** Most directories of one root that are looked at. */
const DIRECTORIES_MAX = 1024;
/** Most files that are named. */
const NAMED_MAX = 5;

/** A hosts.toml of containerd. */
type HostsFile = {
  readonly file: string;
  /** It names no host beside `server`, or cannot be parsed. */
  readonly kind: 'hosts' | 'server_only' | 'broken';
};

export type RegistriesFacts =
  | { readonly kind: 'absent' }
  | { readonly kind: 'unknown'; readonly why: string }
  | {
      readonly kind: 'runs';
      readonly version: string | undefined;
      readonly config_file: string;
      /** CRI's, as it is in force. */
      readonly config_path: string;
      /** A list that counts as one directory. */
      readonly is_taken_whole: boolean;
      readonly files: readonly HostsFile[];
      readonly restart: string;
    };

/** Does containerd's CRI plugin read the hosts.toml files that somebody has written for it? */
export const registriesCheck: Check<RegistriesFacts> = {
  deadline_ms: 10_000,
  gather: async (context) => {
    const probe = await context.containerd();
    if (probe.kind === 'absent') return { kind: 'absent' };
    const { effective, version, process } = probe;
    if ('failure' in effective) return { kind: 'unknown', why: effective.failure };
    const config_path = effectiveConfigPath(effective.cri_registries, version);
    const is_taken_whole = isTakenWhole(effective.cri_registries, version);
    const files: HostsFile[] = [];
    for (const root of rootsOf(config_path)) {
      files.push(...(await hostsFiles(root)));
    }
    const { config_file } = process;
    const restart = restartCommand(process);
    return { kind: 'runs', version, config_file, config_path, is_taken_whole, files, restart };
  },
  judge: judgeRegistries,
};

async function hostsFiles(root: string): Promise<HostsFile[]> {
  const found: HostsFile[] = [];
  for (const name of (await readdir(root).catch(() => [])).sort().slice(0, DIRECTORIES_MAX)) {
    const file = join(root, name, 'hosts.toml');
    const text = await readFile(file, 'utf8').catch(() => undefined);
    if (text !== undefined) found.push({ file, kind: kindOf(text, file) });
  }
  return found;
}

function kindOf(text: string, file: string): HostsFile['kind'] {
  try {
    const { host, server } = parseContainerd(text, file);
    const has_host = typeof host === 'object' && host !== null && Object.keys(host).length > 0;
    return has_host || server === undefined ? 'hosts' : 'server_only';
  } catch (error) {
    if (!(error instanceof DaemonError)) throw error;
    return 'broken';
  }
}

export function judgeRegistries(facts: RegistriesFacts): Finding {
  if (facts.kind === 'absent') {
    const text = 'no containerd runs here, so nothing is asked of registries';
    return findingOf('registries', '', [remark('note', text)], {});
  }
  if (facts.kind === 'unknown') {
    const text = `what containerd makes of its registries is not known: ${facts.why}`;
    return findingOf('registries', '', [remark('note', text)], {});
  }
  const { version, config_path, files } = facts;
  const fine =
    files.length === 0
      ? 'no hosts.toml says anything about registries'
      : `${files.length} hosts.toml ${files.length === 1 ? 'counts' : 'files count'} for containerd's CRI plugin`;
  const remarks = [...listRemarks(facts), ...fileRemarks(facts)];
  return findingOf('registries', fine, remarks, {
    containerd: version,
    config_path,
    hosts_files: files.map(({ file }) => file),
  });
}

type Runs = RegistriesFacts & { kind: 'runs' };

function listRemarks(facts: Runs): Remark[] {
  const { version, config_path, is_taken_whole, config_file, files, restart } = facts;
  if (!is_taken_whole || files.length === 0) return [];
  const [first = ''] = config_path.split(':');
  const text = `containerd ${version ?? ''} takes CRI's config_path "${config_path}" for one directory: ${named(files)} ${files.length === 1 ? 'does' : 'do'} not count for the kubelet and crictl`;
  const mend = `config_path = "${first}" under [plugins."io.containerd.cri.v1.images".registry] in ${config_file}, and every registry's directory there; ${restart}`;
  return [remark('warn', text, mend)];
}

/** 1.x gives up a file that has no host in it: measured on 1.6 and 1.7. */
function fileRemarks({ version, files }: Runs): Remark[] {
  const broken = files.filter(({ kind }) => kind === 'broken');
  const alone = majorOf(version) === 1 ? files.filter(({ kind }) => kind === 'server_only') : [];
  return [
    ...(broken.length === 0
      ? []
      : [remark('warn', `containerd cannot read ${named(broken)}: no TOML`)]),
    ...(alone.length === 0
      ? []
      : [
          remark(
            'warn',
            `containerd ${version ?? ''} ignores ${named(alone)}: a hosts.toml with a server and no [host] counts from 2.x on`,
            ...alone
              .slice(0, NAMED_MAX)
              .map(({ file }) => `add [host."…"] with the address of its server to ${file}`),
          ),
        ]),
  ];
}

function named(files: readonly HostsFile[]): string {
  const names = files.slice(0, NAMED_MAX).map(({ file }) => file);
  const more = files.length - names.length;
  return `${names.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

function majorOf(version: string | undefined): number | undefined {
  return version === undefined ? undefined : Number(version.split('.')[0]);
}
