/**
 * What the product costs, as ratios against a yardstick of the same run: `npm run bench [-- --quick] [--only NAME[,NAME]]
 * [--json FILE]`. A missed bound is told and ends with 0; 1 means that a part could not run.
 */
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { describeMachine, machineLine } from './machine.ts';
import type { BenchPart } from './part.ts';
import { type Row, tableOf } from './row.ts';

/** Loaded one by one, so that what one part needs is not needed by the others. */
const PARTS: Readonly<Record<string, () => Promise<BenchPart>>> = {
  read: async () => (await import('./read-cost.ts')).readCostRows,
  transport: async () => (await import('./peer-transfer.ts')).peerTransfer,
  calls: async () => (await import('./call-latency.ts')).callLatency,
  memory: async () => (await import('./footprint.ts')).footprint,
  store: async () => (await import('./store-cost.ts')).storeCost,
  start: async () => (await import('./start-time.ts')).startTime,
  miss: async () => (await import('./miss-cost.ts')).missCost,
  door: async () => (await import('./door-price.ts')).doorPrice,
};

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: Object.keys(PARTS).join(',') },
    quick: { type: 'boolean', default: false },
    json: { type: 'string' },
  },
});

const names = values.only.split(',');
const unknown = names.filter((name) => !Object.hasOwn(PARTS, name));
if (unknown.length > 0) {
  console.error(`bench: no part ${unknown.join(', ')}; there are ${Object.keys(PARTS).join(', ')}`);
  process.exit(64);
}

const interrupted = Promise.withResolvers<never>();
interrupted.promise.catch(() => undefined);
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => interrupted.reject(new Error(`interrupted by ${signal}`)));
}

const machine = await describeMachine();
console.log(`${machineLine(machine)}\n`);
const rows: Row[] = [];
const failed: string[] = [];
for (const name of names) {
  const started = performance.now();
  const found = await runPart(name);
  if (found === undefined) break;
  rows.push(...found);
  console.log(`${name}: ${((performance.now() - started) / 1000).toFixed(0)} s`);
}
console.log(`\n${tableOf(rows)}`);
const missed = rows.filter((r) => r.ok === false).length;
const bounded = rows.filter((r) => r.ok !== null).length;
console.log(`\n${bounded - missed} of ${bounded} bounds held, ${missed} missed`);
if (values.json !== undefined) {
  await writeFile(values.json, `${JSON.stringify({ machine, rows }, null, 2)}\n`);
}
if (failed.length > 0) console.error(`could not run: ${failed.join(', ')}`);
// A part that was cut off may still hold timers and sockets.
process.exit(failed.length > 0 ? 1 : 0);

/** The part's rows, none when it failed; undefined when the bench was interrupted. */
async function runPart(name: string): Promise<Row[] | undefined> {
  const scope = new AsyncDisposableStack();
  const running = (async () => {
    const part = await PARTS[name]!();
    return await part({
      scope,
      quick: values.quick,
      note: (text) => console.log(`  ${text}`),
    });
  })();
  running.catch(() => undefined);
  try {
    return await Promise.race([running, interrupted.promise]);
  } catch (error) {
    failed.push(name);
    console.error(
      `${name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
    );
    const stopped = await Promise.race([
      interrupted.promise.catch(() => true),
      Promise.resolve(false),
    ]);
    return stopped ? undefined : [];
  } finally {
    await scope.disposeAsync().catch((error: unknown) => {
      console.error(`${name}: not everything could be ended: ${String(error)}`);
    });
  }
}
