import { stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type DumpFacts, METADATA_PLUGIN, type SharingPolicy } from '../config-dump.ts';
import { BUILTIN_CONTENT, DROP_IN, PROXY_NAME } from '../containerd-config.ts';
import type { Distribution } from '../managed-containerd.ts';
import { type PluginRow, parsePlugins, parseProxyAddresses } from './containerd-plugins.ts';
import { CLOCK_SLACK_MS, type ContainerdProbe, restartCommand } from './containerd-process.ts';
import type { Check, DoctorContext } from './context.ts';
import { type Finding, findingOf, type Remark, remark } from './finding.ts';

const CONTENT_TYPE = 'io.containerd.content.v1';

/** What runs: the content plugins containerd has loaded now. */
type RunningPlugins =
  | { readonly rows: readonly PluginRow[]; readonly addresses: ReadonlyMap<string, string> }
  | { readonly failure: string };

export type WiringFacts =
  | {
      readonly kind: 'absent';
      readonly config_file?: string | undefined;
      readonly unit?: string | undefined;
    }
  | {
      readonly kind: 'runs';
      readonly socket_path: string;
      /** The daemon's own `[content] sharing_policy`. */
      readonly sharing_policy: SharingPolicy;
      readonly config_file: string;
      readonly distribution: Distribution;
      readonly version: string | undefined;
      readonly others: readonly string[];
      readonly restart: string;
      readonly replaced: boolean;
      readonly effective: DumpFacts | { readonly failure: string };
      readonly running: RunningPlugins;
      /** Why the daemon sees containerd using another store; undefined when it does not. */
      readonly unused: string | undefined;
      /** Our drop-in is where setup puts it. */
      readonly drop_in: boolean;
      readonly changed_since_start: readonly string[];
    };

/** Does the running containerd take its content from our socket, and will it after its next start? */
export const wiringCheck: Check<WiringFacts> = {
  deadline_ms: 15_000,
  gather: async (context, signal) => {
    const probe = await context.containerd();
    return probe.kind === 'absent' ? probe : gatherRunning(context, probe, signal);
  },
  judge: judgeWiring,
};

/** Why the daemon believes that containerd does not use it, if it does. */
async function unused({ daemon }: DoctorContext): Promise<string | undefined> {
  const probe = await daemon();
  const seen = probe.kind === 'answers' ? probe.view.containerd : null;
  return seen?.state === 'not_wired' ? seen.reason : undefined;
}

async function gatherRunning(
  context: DoctorContext,
  probe: Extract<ContainerdProbe, { kind: 'runs' }>,
  signal: AbortSignal,
): Promise<WiringFacts> {
  const { config, run } = context;
  const { process, effective } = probe;
  const list = ['--address', probe.address, 'plugins', 'ls'];
  const limits = { signal, deadline_ms: 5_000 };
  const running = await Promise.all([
    run([probe.ctr, ...list], limits),
    run([probe.ctr, ...list, '--detailed'], limits),
  ]).then(
    ([plain, detailed]): RunningPlugins =>
      plain.code === 0
        ? { rows: parsePlugins(plain.stdout), addresses: parseProxyAddresses(detailed.stdout) }
        : { failure: plain.stderr.trim().split('\n').at(-1)?.slice(0, 300) ?? 'no answer' },
    (error: unknown): RunningPlugins => ({
      failure: error instanceof Error ? error.message : String(error),
    }),
  );
  const drop_in = join(dirname(process.config_file), 'conf.d', '50-layerswarm.toml');
  const imports = 'failure' in effective ? [] : effective.imports;
  const files = [process.config_file, drop_in, ...imports.filter((path) => !path.includes('*'))];
  const changed = new Set<string>();
  for (const file of files) {
    const since_ms = (await modifiedMs(file)) - process.started_epoch_ms;
    if (since_ms > CLOCK_SLACK_MS) changed.add(file);
  }
  return {
    kind: 'runs',
    socket_path: config.config.content.socket_path,
    sharing_policy: config.config.content.sharing_policy,
    unused: await unused(context),
    config_file: process.config_file,
    distribution: process.distribution,
    version: probe.version,
    others: probe.others,
    restart: restartCommand(process),
    replaced: process.replaced,
    effective,
    running,
    drop_in: (await modifiedMs(drop_in)) > 0 || (await modifiedMs(DROP_IN)) > 0,
    changed_since_start: [...changed],
  };
}

/** 0 when there is no such file. */
async function modifiedMs(path: string): Promise<number> {
  return stat(path).then(
    (s) => s.mtimeMs,
    () => 0,
  );
}

export function judgeWiring(facts: WiringFacts): Finding {
  if (facts.kind === 'absent') return judgeAbsent(facts);
  const configured = configuredRemarks(facts);
  const running = runningRemarks(facts, configured.length === 0);
  const remarks = [
    ...running,
    ...configured,
    ...policyRemarks(facts),
    ...sideRemarks(facts, running.length === 0),
  ];
  const fine = `containerd ${facts.version ?? ''} (${facts.config_file}) takes its content from ${facts.socket_path}`;
  return findingOf('wiring', fine.replace('  ', ' '), remarks, shownFacts(facts));
}

function judgeAbsent(facts: Extract<WiringFacts, { kind: 'absent' }>): Finding {
  const { config_file, unit } = facts;
  const which = config_file === undefined ? '' : ` with the configuration ${config_file}`;
  const mend =
    config_file === undefined
      ? [`systemctl start ${unit ?? 'containerd'}`]
      : ['ps -C containerd -o pid,args'];
  const remarks = [remark('fail', `no containerd${which} runs here`, ...mend)];
  return findingOf('wiring', '', remarks, { containerd: null });
}

type Runs = Extract<WiringFacts, { kind: 'runs' }>;

/** What the configuration says, which counts from the next start on. */
function configuredRemarks({
  effective,
  socket_path,
  config_file,
  drop_in,
  distribution,
}: Runs): Remark[] {
  // Where somebody else generates the configuration, setup prints what to do instead of doing it.
  const setup =
    distribution === 'plain'
      ? 'layerswarm setup'
      : `layerswarm setup --dry-run   # says what to do for ${distribution}`;
  if ('failure' in effective) {
    const text = `containerd cannot read its configuration ${config_file}: ${effective.failure}`;
    return [remark('fail', text, `containerd --config ${config_file} config dump`)];
  }
  const { content_proxies, builtin_disabled, builtin_required } = effective;
  const ours = content_proxies.find((proxy) => proxy.name === PROXY_NAME);
  const rest = content_proxies.filter((proxy) => proxy !== ours).map((proxy) => proxy.name);
  const remarks: Remark[] = [];
  if (ours === undefined) {
    const why = drop_in
      ? `the drop-in is there, but ${config_file} does not import it`
      : `${config_file} has no proxy plugin "${PROXY_NAME}"`;
    return [remark('fail', `containerd is not wired to layerswarm: ${why}`, setup)];
  }
  if (socketOf(ours.address) !== socket_path) {
    const text = `containerd looks for layerswarm at ${ours.address}, the daemon's socket is ${socket_path}`;
    remarks.push(remark('fail', text, setup));
  }
  if (!builtin_disabled) {
    const text = `${config_file} does not disable ${BUILTIN_CONTENT}: with two content stores 2.x does not start and 1.x picks one at random`;
    remarks.push(remark('fail', text, setup));
  }
  if (builtin_required) {
    const text = `${config_file} requires ${BUILTIN_CONTENT}, which is disabled: containerd will not start again`;
    remarks.push(
      remark('fail', text, `remove ${BUILTIN_CONTENT} from required_plugins in ${config_file}`),
    );
  }
  if (rest.length > 0) {
    const text = `containerd has further content stores: ${rest.join(', ')}; it can use one only`;
    remarks.push(
      remark(
        'fail',
        text,
        `remove proxy_plugins.${rest[0] ?? ''} from ${config_file} or its imports`,
      ),
    );
  }
  if (!drop_in && remarks.length === 0) {
    const text = `the wiring stands in ${config_file} itself, not in our drop-in: "layerswarm teardown" will not take it away`;
    remarks.push(remark('note', text));
  }
  return remarks;
}

/** What runs now. `is_configured`: the next start will bring it right. */
function runningRemarks(facts: Runs, is_configured: boolean): Remark[] {
  const { running, restart, socket_path } = facts;
  if ('failure' in running) {
    const text = `containerd does not answer: ${running.failure}`;
    return [remark('fail', text, 'journalctl -u containerd -n 50', restart)];
  }
  const loaded = running.rows.filter((row) => row.type === CONTENT_TYPE && row.status === 'ok');
  const mend = is_configured ? [restart] : ['layerswarm setup', restart];
  const later = is_configured
    ? ' (its configuration is right and counts from its next start on)'
    : '';
  if (!loaded.some((row) => row.id === PROXY_NAME)) {
    const used = loaded.map((row) => (row.id === 'content' ? 'its own store' : row.id)).join(', ');
    const text = `the running containerd does not use layerswarm but ${used === '' ? 'no content store' : used}${later}`;
    return [remark('fail', text, ...mend)];
  }
  const remarks: Remark[] = [];
  const rest = loaded.filter((row) => row.id !== PROXY_NAME).map((row) => row.id);
  if (rest.length > 0) {
    const text = `the running containerd has loaded another content store beside layerswarm: ${rest.join(', ')}${later}`;
    remarks.push(remark('fail', text, ...mend));
  }
  const address = running.addresses.get(PROXY_NAME);
  if (address !== undefined && socketOf(address) !== socket_path) {
    const text = `the running containerd looks for layerswarm at ${address}, the daemon's socket is ${socket_path}${later}`;
    remarks.push(remark('fail', text, ...mend));
  }
  return remarks;
}

/** Isolated namespaces must not get bytes by digest and size alone, and that is what being served by peers comes to. */
function policyRemarks({ effective, sharing_policy, config_file, restart }: Runs): Remark[] {
  if ('failure' in effective) return [];
  const theirs = effective.sharing_policy;
  if (theirs === 'isolated' && sharing_policy === 'shared') {
    const text = `${config_file} isolates namespaces (content_sharing_policy), and this daemon gives every namespace what it has: who knows digest and size of a blob gets it`;
    const share = `content_sharing_policy = "shared" under [plugins."${METADATA_PLUGIN}"] in containerd's configuration; ${restart}`;
    const isolate =
      'or sharing_policy = "isolated" under [content] in layerswarm\'s: this host then serves peers and pulls from the registry; systemctl restart layerswarm.service';
    return [remark('fail', text, share, isolate)];
  }
  if (sharing_policy === 'isolated') {
    const text =
      'sharing_policy is "isolated": this host serves peers, and its own pulls come from the registry';
    return [remark('note', text)];
  }
  return [];
}

function sideRemarks(facts: Runs, runs_right: boolean): Remark[] {
  const remarks: Remark[] = [];
  if (facts.unused !== undefined && runs_right) {
    remarks.push(remark('warn', facts.unused, 'journalctl -u layerswarm -n 50'));
  }
  if (facts.others.length > 0) {
    const text = `further containerds run here, with ${facts.others.join(', ')}; this looked at ${facts.config_file}`;
    remarks.push(
      remark('note', text, `layerswarm doctor --containerd-config ${facts.others[0] ?? ''}`),
    );
  }
  if (facts.replaced) {
    const text = 'the running containerd is older than the installed one';
    remarks.push(remark('note', text, facts.restart));
  }
  // Where the running wiring is wrong, "restart it" has been said.
  if (facts.changed_since_start.length > 0 && runs_right) {
    const text = `changed since containerd started, counts from its next start on: ${facts.changed_since_start.join(', ')}`;
    remarks.push(remark('note', text, facts.restart));
  }
  return remarks;
}

/** `/run/x.sock` of `unix:///run/x.sock` or `/run/x.sock`. */
function socketOf(address: string): string {
  return address.replace(/^unix:(\/\/)?(?=\/)/, '');
}

function shownFacts(facts: Runs) {
  const { effective, running } = facts;
  return {
    containerd: {
      version: facts.version,
      config_file: facts.config_file,
      distribution: facts.distribution,
      other_config_files: facts.others,
    },
    socket_path: facts.socket_path,
    configured: 'failure' in effective ? effective : { ...effective },
    running:
      'failure' in running
        ? running
        : {
            content_plugins: running.rows
              .filter((row) => row.type === CONTENT_TYPE)
              .map(({ id, status }) => ({ id, status, address: running.addresses.get(id) })),
          },
    drop_in: facts.drop_in,
    changed_since_start: facts.changed_since_start,
  };
}
