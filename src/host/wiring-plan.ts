import { posix } from 'node:path';
import { DaemonError } from '../base/errors.ts';
import type { Config } from '../config/schema.ts';
import {
  BUILTIN_CONTENT,
  CONF_D,
  DROP_IN,
  dropInText,
  PROXY_NAME,
  parseContainerd,
  wireMain,
} from './containerd-config.ts';
import { type DumpFacts, isWired, METADATA_PLUGIN } from './config-dump.ts';
import { type FileEdit, type FileKind, isUnchanged } from './file-edit.ts';
import type { FileState } from './host-files.ts';
import { UNIT_OVERRIDE, unitOverrideText } from './unit-override.ts';

/** Where the packaged socket unit listens. */
const PACKAGED_SOCKET = '/run/layerswarm/layerswarm.sock';

/** What a plan is made from: everything was read already, nothing is looked up here. */
export type SetupFacts = {
  readonly containerd: {
    readonly config_file: string;
    readonly major: number;
    readonly unit: string | undefined;
    /** Root directory: of its command line, else of its configuration. */
    readonly root: string;
  };
  /** What containerd makes of its configuration as it is. */
  readonly dump: DumpFacts;
  readonly main: FileState | undefined;
  readonly drop_in: FileState | undefined;
  readonly unit_override: FileState | undefined;
  readonly own: {
    readonly path: string;
    readonly file: FileState | undefined;
    /** Its text with the settings of this run; undefined = no file is needed. */
    readonly settled: string | undefined;
    /** What that text means. */
    readonly config: Config;
  };
  readonly key: FileState | undefined;
  /** A cluster key to install; undefined keeps the one that is there. */
  readonly new_key: { readonly text: string; readonly generated: boolean } | undefined;
  readonly content_directory_exists: boolean;
  /** Docker runs here, too; whether it pulls through this containerd is its own setting. */
  readonly docker: boolean;
};

/** A directory that has to be there. */
type NeededDirectory = {
  readonly path: string;
  readonly mode: number;
  readonly parent_mode: number;
};

/** What setup is going to do, in the order in which it will be written: what makes it live comes last. */
export type SetupPlan = {
  readonly edits: readonly FileEdit[];
  readonly directories: readonly NeededDirectory[];
  /** Sentences about what happens and why. */
  readonly notes: readonly string[];
  readonly warnings: readonly string[];
  /** False when containerd was wired by hand and is left so. */
  readonly wires: boolean;
};

/** Facts to plan. Throws what `wireMain` throws; conflicts with other plugins are found by the dry run of the result. */
export function planSetup(facts: SetupFacts): SetupPlan {
  const { containerd, own } = facts;
  const notes: string[] = [];
  const socket = own.config.content.socket_path;
  refuseIsolated(facts);
  const by_hand = isWiredByHand(facts, socket);
  const edits = [ownEdit(facts), keyEdit(facts), overrideEdit(facts)];
  if (by_hand) {
    notes.push(`containerd is wired to ${socket} by hand already; setup leaves that as it is`);
  } else {
    refuseHalfWired(facts);
    const wired = wireMain(textOf(facts.main), {
      file: containerd.config_file,
      major: containerd.major,
    });
    notes.push(...wired.notes);
    edits.push(
      edit(
        'drop-in',
        DROP_IN,
        facts.drop_in,
        dropInText(socket),
        'makes layerswarm the content store',
      ),
      edit(
        'containerd-config',
        containerd.config_file,
        facts.main,
        wired.text,
        'imports the drop-in',
      ),
    );
  }
  const needed = edits.filter((e) => e !== undefined && !isUnchanged(e)) as FileEdit[];
  return {
    edits: needed,
    directories: directories(facts, needed),
    notes,
    warnings: warnings(facts),
    wires: !by_hand,
  };
}

/** Refuses, with the reason, a configuration that would not leave exactly our store. `failed_precondition`. */
export function requireWired(
  facts: DumpFacts,
  socket_path: string,
  definers: (holds: 'proxy' | 'required') => readonly string[],
): void {
  const other = facts.content_proxies.find((p) => p.name !== PROXY_NAME);
  if (other !== undefined) {
    throw new DaemonError(
      'failed_precondition',
      `containerd has another content store already: the proxy plugin "${other.name}" at ${other.address} (${definers('proxy').join(', ')}). There can be only one; remove it there and run this again`,
      { plugin: other.name },
    );
  }
  if (facts.builtin_required) {
    throw new DaemonError(
      'failed_precondition',
      `${BUILTIN_CONTENT} is among required_plugins (${definers('required').join(', ')}), so containerd would not start without it; remove it there and run this again`,
    );
  }
  if (isWired(facts, socket_path)) return;
  const address = facts.content_proxies.find((p) => p.name === PROXY_NAME)?.address ?? 'nothing';
  throw new DaemonError(
    'failed_precondition',
    `with the drop-in in place containerd would use ${address} and not ${socket_path}: another file sets it (${definers('proxy').join(', ')}); remove it there and run this again`,
  );
}

function isWiredByHand(facts: SetupFacts, socket: string): boolean {
  const { dump, drop_in, main, containerd } = facts;
  if (drop_in !== undefined || !isWired(dump, socket)) return false;
  const version = Number(
    parseContainerd(textOf(main) ?? '', containerd.config_file)['version'] ?? 1,
  );
  // A version 1 file on 1.x only looks as if it disabled the built-in store.
  return containerd.major > 1 || version >= 2;
}

/** Where namespaces are isolated, a peer's or another namespace's bytes may not reach one that only names their digest. */
function refuseIsolated({ containerd, dump, own }: SetupFacts): void {
  if (dump.sharing_policy === 'shared' || own.config.content.sharing_policy === 'isolated') return;
  throw new DaemonError(
    'failed_precondition',
    `${containerd.config_file} has content_sharing_policy = "isolated" under [plugins."${METADATA_PLUGIN}"]: a namespace must not get a blob by naming it, which is what layerswarm is for. Nothing was changed. Set it to "shared"; or, where this host is only to serve its peers and to pull from the registry itself, set sharing_policy = "isolated" under [content] in ${own.path}, and run this again`,
    { file: containerd.config_file },
  );
}

/** A proxy of our name that setup did not write would be there again after teardown, beside the built-in store. */
function refuseHalfWired({ dump, drop_in, containerd }: SetupFacts): void {
  const proxy = dump.content_proxies.find((p) => p.name === PROXY_NAME);
  if (drop_in !== undefined || proxy === undefined) return;
  throw new DaemonError(
    'failed_precondition',
    `the configuration of containerd (${containerd.config_file}) holds a [proxy_plugins.${PROXY_NAME}] at ${proxy.address} that setup did not write and that is not in force as the only content store; remove it there and run this again`,
  );
}

function ownEdit({ own }: SetupFacts): FileEdit | undefined {
  if (own.settled === undefined) return undefined;
  return edit('own-config', own.path, own.file, own.settled, "layerswarm's own settings");
}

function keyEdit({ own, key, new_key }: SetupFacts): FileEdit | undefined {
  const path = own.config.swarm.cluster_key_file;
  const kept = key !== undefined && (new_key === undefined || isSameKey(key, new_key.text));
  const bytes = kept ? key.bytes : Buffer.from(new_key?.text ?? '');
  if (bytes.length === 0) return undefined;
  const after = { ...owned(), bytes, mode: 0o600 };
  const kind: FileKind = new_key?.generated === true ? 'generated-key' : 'cluster-key';
  return { kind, path, before: key, after, why: 'the cluster key, for root only' };
}

function overrideEdit(facts: SetupFacts): FileEdit | undefined {
  const text = unitOverrideText({
    content_directory: facts.own.config.store.content_directory,
    containerd_unit: facts.containerd.unit,
  });
  if (text === undefined && facts.unit_override === undefined) return undefined;
  const why = 'lets the service write to the content directory of this host';
  return edit('unit-override', UNIT_OVERRIDE, facts.unit_override, text, why);
}

function directories(facts: SetupFacts, edits: readonly FileEdit[]): NeededDirectory[] {
  const needed: NeededDirectory[] = [];
  if (!facts.content_directory_exists) {
    const path = facts.own.config.store.content_directory;
    // containerd's root is 0711 by its own doing; the content directory is nobody's but root's.
    needed.push({ path, mode: 0o700, parent_mode: 0o711 });
  }
  for (const { path, after } of edits) {
    if (after === undefined) continue;
    needed.push({ path: posix.dirname(path), mode: 0o755, parent_mode: 0o755 });
  }
  if (edits.some((e) => e.kind === 'drop-in'))
    needed.push({ path: CONF_D, mode: 0o755, parent_mode: 0o755 });
  return needed;
}

function warnings({ own, key, new_key, docker }: SetupFacts): string[] {
  const { swarm, content } = own.config;
  const found: string[] = [];
  if (content.socket_path !== PACKAGED_SOCKET) {
    found.push(
      `[content] socket_path is ${content.socket_path}, but under systemd layerswarm.socket listens: give it the same path (systemctl edit layerswarm.socket: ListenStream=, then ListenStream=${content.socket_path})`,
    );
  }
  if (docker) {
    found.push(
      'docker pulls through containerd only with its containerd image store ("features": {"containerd-snapshotter": true} in /etc/docker/daemon.json); otherwise its pulls stay as they are',
    );
  }
  if (!swarm.enabled) found.push('[swarm] enabled is false: this host shares nothing');
  else if (swarm.bootstrap.length === 0) {
    found.push(
      'no peer to look for is known; on the other hosts, or here later: layerswarm setup --join HOST:7878',
    );
  }
  if (new_key !== undefined && key !== undefined && !isSameKey(key, new_key.text)) {
    found.push(
      `${swarm.cluster_key_file} held another key; hosts that still have that one are shut out`,
    );
  }
  return found;
}

function edit(
  kind: FileKind,
  path: string,
  before: FileState | undefined,
  text: string | undefined,
  why: string,
): FileEdit {
  const { mode, uid, gid } = before ?? { ...owned(), mode: 0o644 };
  const after = text === undefined ? undefined : { bytes: Buffer.from(text), mode, uid, gid };
  return { kind, path, before, after, why };
}

function isSameKey(file: FileState, text: string): boolean {
  return file.bytes.toString('utf8').trim() === text.trim();
}

/** Whoever runs setup: root, except in tests. */
function owned(): Pick<FileState, 'uid' | 'gid'> {
  return { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
}

function textOf(file: FileState | undefined): string | undefined {
  return file?.bytes.toString('utf8');
}
