/**
 * `npm test [STAGE]`: check, unit, flow, contentsuite, host, powercut, packaging, in this order, or one of them, or host-2.4 or soak, which run only by
 * their names. Goes on after a failure and ends
 * with one summary over all stages, in node's own words. With CI set in the environment a skipped test is a failure:
 * nothing may be left out there without somebody noticing.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Counts } from './count-reporter.ts';
import { ROOT } from './run-tool.ts';

type Stage = {
  readonly name: string;
  /** Patterns of test files; none = the gate, which is a script. */
  readonly include: readonly string[];
  readonly exclude?: RegExp;
  /** Files at the same time. The reference machine has two cores. */
  readonly concurrency: number;
  /** Longest time of one test, and of one file, before it counts as hung. */
  readonly timeout_ms: number;
  /** Runs only when it is named. */
  readonly on_demand?: boolean;
};

const OWN_STAGE = /^test\/(flow|contentsuite|host|powercut|packaging|soak)\//;
/** The newest containerd is looked at now and then; its two-minute build and four-minute run are not everybody's. */
const ON_DEMAND = /^test\/host\/containerd-2\.4/;
const STAGES: readonly Stage[] = [
  { name: 'check', include: [], concurrency: 1, timeout_ms: 0 },
  {
    name: 'unit',
    include: ['test/*/**/*.test.ts'],
    exclude: OWN_STAGE,
    concurrency: 2,
    timeout_ms: 120_000,
  },
  { name: 'flow', include: ['test/flow/**/*.test.ts'], concurrency: 1, timeout_ms: 180_000 },
  {
    name: 'contentsuite',
    include: ['test/contentsuite/**/*.test.ts'],
    concurrency: 1,
    timeout_ms: 900_000,
  },
  {
    name: 'host',
    include: ['test/host/**/*.test.ts'],
    exclude: ON_DEMAND,
    // Mostly waiting for links, restarts and pulls: two files at a time still leave the processors room.
    concurrency: 2,
    timeout_ms: 1_800_000,
  },
  {
    name: 'host-2.4',
    include: ['test/host/containerd-2.4*.test.ts'],
    concurrency: 1,
    timeout_ms: 1_800_000,
    on_demand: true,
  },
  {
    name: 'powercut',
    include: ['test/powercut/**/*.test.ts'],
    concurrency: 1,
    // Hundreds of cuts on request.
    timeout_ms: 7_200_000,
  },
  {
    name: 'packaging',
    include: ['test/packaging/**/*.test.ts'],
    concurrency: 1,
    timeout_ms: 1_800_000,
  },
  {
    name: 'soak',
    include: ['test/soak/**/*.test.ts'],
    concurrency: 1,
    // Hours of cycles on request.
    timeout_ms: 14_400_000,
    on_demand: true,
  },
];

type Result = { readonly name: string; readonly seconds: number; readonly counts: Counts };

const NOTHING: Counts = { tests: 0, passed: 0, failed: 0, cancelled: 0, skipped: 0, todo: 0 };
/** How long children may take to end after a signal before they are killed. */
const GRACE_MS = 10_000;

let child: ChildProcess | undefined;
/** An object, because a signal handler changes it behind the compiler's back. */
const run = { interrupted: false };

function onSignal(signal: NodeJS.Signals): void {
  run.interrupted = true;
  const running = child;
  running?.kill(signal);
  setTimeout(() => running?.kill('SIGKILL'), GRACE_MS).unref();
}

function runNode(args: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    child = spawn(process.execPath, args, { cwd: ROOT, stdio: 'inherit' });
    child.once('error', reject);
    child.once('exit', (status) => {
      child = undefined;
      resolve(status ?? 1);
    });
  });
}

async function runTests(stage: Stage): Promise<Counts> {
  const { exclude } = stage;
  const files = globSync([...stage.include], { cwd: ROOT })
    .filter((file) => exclude === undefined || !exclude.test(file))
    .sort();
  if (files.length === 0) {
    process.stdout.write(`${stage.name}: there is no test file\n`);
    return { ...NOTHING, tests: 1, failed: 1 };
  }
  const scratch = mkdtempSync(join(tmpdir(), 'layerswarm-tests-'));
  try {
    const summary = join(scratch, 'counts.json');
    const status = await runNode([
      '--test',
      `--test-concurrency=${stage.concurrency}`,
      `--test-timeout=${stage.timeout_ms}`,
      '--test-reporter=spec',
      '--test-reporter-destination=stdout',
      `--test-reporter=${ROOT}test/setup/count-reporter.ts`,
      `--test-reporter-destination=${summary}`,
      ...files,
    ]);
    const counts = readCounts(summary);
    // A run that ended without a failed test and still not well (a crash, a signal) must not pass.
    return status !== 0 && counts.failed + counts.cancelled === 0
      ? { ...counts, tests: counts.tests + 1, failed: 1 }
      : counts;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function readCounts(file: string): Counts {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Counts;
  } catch {
    // The runner ended before its summary; its exit status tells.
    return NOTHING;
  }
}

async function runStage(stage: Stage): Promise<Result> {
  process.stdout.write(`\n=== ${stage.name}\n`);
  const start_ms = performance.now();
  let counts: Counts;
  if (stage.include.length > 0) counts = await runTests(stage);
  else {
    const passed = (await runNode(['test/setup/check.ts'])) === 0;
    counts = { ...NOTHING, tests: 1, passed: passed ? 1 : 0, failed: passed ? 0 : 1 };
  }
  return { name: stage.name, seconds: (performance.now() - start_ms) / 1000, counts };
}

function summarize(results: readonly Result[]): boolean {
  const sum = (key: keyof Counts): number => results.reduce((n, r) => n + r.counts[key], 0);
  process.stdout.write('\n=== summary\n');
  for (const { name, seconds, counts } of results) {
    const failed = counts.failed + counts.cancelled;
    process.stdout.write(
      `${name.padEnd(13)}${seconds.toFixed(1).padStart(7)} s  ${counts.passed} passed, ${failed} failed, ${counts.skipped} skipped\n`,
    );
  }
  for (const key of ['tests', 'passed', 'failed', 'cancelled', 'skipped', 'todo'] as const) {
    const word = key === 'passed' ? 'pass' : key === 'failed' ? 'fail' : key;
    process.stdout.write(`ℹ ${word} ${sum(key)}\n`);
  }
  const in_ci = (process.env['CI'] ?? '') !== '';
  const failed = sum('failed') + sum('cancelled');
  if (in_ci && sum('skipped') > 0) {
    process.stdout.write('a skipped test is a failure in CI: see its reason above\n');
  }
  process.stdout.write(`${sum('passed')} passed, ${failed} failed, ${sum('skipped')} skipped\n`);
  return failed === 0 && !(in_ci && sum('skipped') > 0);
}

const wanted = process.argv.slice(2);
const unknown = wanted.find((name) => !STAGES.some((s) => s.name === name));
if (unknown !== undefined) {
  const names = STAGES.map((s) => s.name).join(', ');
  process.stderr.write(`no test stage is called "${unknown}"; there are ${names}\n`);
  process.exit(64);
}
process.on('SIGINT', onSignal);
process.on('SIGTERM', onSignal);
const results: Result[] = [];
for (const stage of STAGES) {
  if (wanted.length > 0 ? !wanted.includes(stage.name) : stage.on_demand === true) continue;
  results.push(await runStage(stage));
  if (run.interrupted) break;
}
const passed = summarize(results);
process.exit(run.interrupted ? 130 : passed ? 0 : 1);
