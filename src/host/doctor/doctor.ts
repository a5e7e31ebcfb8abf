import { DaemonError } from '../../base/errors.ts';
import { blobsCheck } from './blobs.ts';
import { clusterKeyCheck } from './cluster-key.ts';
import { configCheck } from './config.ts';
import { probeContainerd } from './containerd-process.ts';
import type { Check, DoctorContext, DoctorModules } from './context.ts';
import { probeDaemon } from './daemon-probe.ts';
import { decompressorsCheck } from './decompressors.ts';
import { degradedCheck } from './degraded.ts';
import { diskCheck } from './disk.ts';
import { CHECK_IDS, type CheckId, type Finding, findingOf, remark } from './finding.ts';
import { imagesCheck } from './images.ts';
import { mapBounded } from './map-bounded.ts';
import { peersCheck } from './peers.ts';
import { registriesCheck } from './registries.ts';
import { serviceCheck } from './service.ts';
import { socketBuffersCheck } from './socket-buffers.ts';
import { socketCheck } from './socket.ts';
import { swarmPortCheck } from './swarm-port.ts';
import { wiringCheck } from './wiring.ts';

/** Checks under way at once: most of them wait. */
const AT_ONCE = 6;

/** A check with its type of facts closed over. */
export type RunnableCheck = {
  readonly deadline_ms: number;
  readonly run: (context: DoctorContext, signal: AbortSignal) => Promise<Finding>;
};

/** Joins looking and judging. */
function runnable<F>(check: Check<F>): RunnableCheck {
  return {
    deadline_ms: check.deadline_ms,
    run: async (context, signal) => check.judge(await check.gather(context, signal)),
  };
}

/** Every check there is. */
const CHECKS: Readonly<Record<CheckId, RunnableCheck>> = {
  socket: runnable(socketCheck),
  service: runnable(serviceCheck),
  degraded: runnable(degradedCheck),
  config: runnable(configCheck),
  wiring: runnable(wiringCheck),
  images: runnable(imagesCheck),
  blobs: runnable(blobsCheck),
  registries: runnable(registriesCheck),
  'swarm-port': runnable(swarmPortCheck),
  'cluster-key': runnable(clusterKeyCheck),
  disk: runnable(diskCheck),
  decompressors: runnable(decompressorsCheck),
  'socket-buffers': runnable(socketBuffersCheck),
  peers: runnable(peersCheck),
};

/** The checks that `--only` names, in the order of the list. `invalid_argument` names the one that does not exist. */
export function parseOnly(only: string | undefined): readonly CheckId[] {
  if (only === undefined) return CHECK_IDS;
  const names = only.split(',').map((name) => name.trim());
  const unknown = names.find((name) => !(CHECK_IDS as readonly string[]).includes(name));
  if (unknown !== undefined) {
    throw new DaemonError(
      'invalid_argument',
      `there is no check "${unknown}"; there are: ${CHECK_IDS.join(', ')}`,
    );
  }
  return CHECK_IDS.filter((id) => names.includes(id));
}

/**
 * Runs checks, a few at a time, and resolves to their findings in the order of `ids`. A check that throws or passes
 * its deadline becomes a finding. Rejects with `cancelled` only when the signal aborts.
 */
export async function runDoctor(
  modules: DoctorModules,
  ids: readonly CheckId[],
  signal: AbortSignal,
  checks: Readonly<Partial<Record<CheckId, RunnableCheck>>> = CHECKS,
): Promise<Finding[]> {
  const context = contextOf(modules, signal);
  // First and alone: the programs that checks start would take from its second.
  await context.daemon();
  return mapBounded(ids, AT_ONCE, async (id) => {
    const check = checks[id];
    if (check === undefined) throw new TypeError(`no check ${id}`);
    const finding = await runCheck(id, check, context, signal);
    if (signal.aborted) throw new DaemonError('cancelled', 'interrupted');
    return finding;
  });
}

function contextOf(modules: DoctorModules, signal: AbortSignal): DoctorContext {
  const { config, run, containerd_config } = modules;
  return {
    ...modules,
    daemon: once(() => probeDaemon(modules, config.config.content.socket_path, signal)),
    containerd: once(() => probeContainerd(run, containerd_config, signal)),
  };
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => (made ??= make());
}

async function runCheck(
  id: CheckId,
  check: RunnableCheck,
  context: DoctorContext,
  signal: AbortSignal,
): Promise<Finding> {
  const { deadline_ms } = check;
  const over = new AbortController();
  const limit = AbortSignal.any([signal, over.signal]);
  const late = context.clock.sleep(deadline_ms, { signal: limit }).then(
    () => {
      const text = `this check did not end within ${deadline_ms / 1000} s`;
      const mend = `layerswarm doctor --only ${id}`;
      return findingOf(id, '', [remark('fail', text, mend)], { deadline_ms });
    },
    // The check was faster, or everything is interrupted, which the caller sees.
    () => findingOf(id, '', [remark('fail', 'this check was interrupted')], {}),
  );
  const ended = check.run(context, limit).catch((error: unknown) => brokenCheck(id, error));
  try {
    return await Promise.race([ended, late]);
  } finally {
    // Ends what the check still does, or the wait for it.
    over.abort();
  }
}

function brokenCheck(id: CheckId, error: unknown): Finding {
  const why = error instanceof Error ? error.message : String(error);
  const code = error instanceof DaemonError ? error.code : 'internal';
  const text = `this check could not be made: ${why.split('\n')[0] ?? ''}`;
  return findingOf(id, '', [remark('fail', text)], { error: code });
}
