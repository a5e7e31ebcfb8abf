// `npm run demo`: layerswarm beside real containerds on several hosts of this one machine. See `--help`.
import { writeFile } from 'node:fs/promises';
import { isDeepStrictEqual } from 'node:util';
import { NOTHING_LEFT, leftBehind } from '../host/swarm-lab.ts';
import { DemoRun } from './demo-run.ts';
import { Interruption } from './interruption.ts';
import { EXIT_USAGE, HELP, parseCommand } from './options.ts';
import type { DemoOptions } from './options.ts';
import { whyNot } from './preconditions.ts';
import { closingOf, complaintsOf, tableOf } from './report.ts';
import type { PullRow } from './report.ts';
import { Screen } from './screen.ts';

const screen = new Screen(process.stdout);

/** Runs the demo to its end; resolves to the exit code. Nothing of it is left on the machine then. */
async function demo(options: DemoOptions): Promise<number> {
  const interruption = new Interruption(() => {
    screen.line('demo: stopping; removing hosts, mounts and files (Ctrl-C again ends at once)');
  });
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', () => interruption.readerGone());
  const run = new DemoRun({ screen, signal: interruption.signal }, options);
  let ending: string | undefined;
  let code = 1;
  try {
    const rows = await run.run();
    screen.line(`\n${tableOf(rows)}\n`);
    if (options.json !== undefined) await writeJson(options.json, rows);
    const complaints = complaintsOf(rows);
    code = complaints.length === 0 ? 0 : 1;
    ending = complaints.length === 0 ? closingOf(rows) : complaints.join('\n');
  } catch (error) {
    if (!interruption.signal.aborted) process.stderr.write(`${await run.failure(error)}\n`);
  }
  const clean = await cleanUp(run);
  if (interruption.exitCode !== undefined) return interruption.exitCode;
  if (ending !== undefined) screen.line(ending);
  return clean ? code : 1;
}

/** Removes everything; false, with the reason on stderr, when something stays. */
async function cleanUp(run: DemoRun): Promise<boolean> {
  try {
    await screen.during(run.close(), () => 'removing hosts, mounts and files ...');
    const left = await leftBehind();
    if (isDeepStrictEqual(left, NOTHING_LEFT)) return true;
    process.stderr.write(`demo: this was left behind: ${JSON.stringify(left)}\n`);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    process.stderr.write(`demo: could not remove everything, the next run will: ${text}\n`);
  }
  return false;
}

async function writeJson(file: string, rows: readonly PullRow[]): Promise<void> {
  await writeFile(file, `${JSON.stringify(rows, null, 2)}\n`);
}

const command = parseCommand(process.argv.slice(2), process.env['INIT_CWD'] ?? process.cwd());
if (command.kind === 'help') {
  process.stdout.write(HELP);
} else if (command.kind === 'wrong') {
  process.stderr.write(`demo: ${command.message}; --help lists the flags\n`);
  process.exitCode = EXIT_USAGE;
} else {
  const reason = await whyNot(command.options);
  if (reason === undefined) {
    process.exit(await demo(command.options));
  } else {
    process.stderr.write(`demo: ${reason}\n`);
    process.exitCode = 1;
  }
}
