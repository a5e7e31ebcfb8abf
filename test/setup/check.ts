/** `npm run check`: the gate. Everything that can be said about the code without running it; stops at the first failure. */
import { ROOT, runTool } from './run-tool.ts';

process.chdir(ROOT);

const steps: readonly (readonly [name: string, tool: string, args: readonly string[]])[] = [
  ['proto types', 'test/setup/proto.ts', []],
  ['format', 'biome', ['format', '--reporter=summary']],
  ['lint', 'eslint', ['--max-warnings', '0', 'src', 'test', 'packaging']],
  ['types', 'tsc', ['--noEmit', '-p', 'tsconfig.json']],
  ['floors', 'depcruise', ['--output-type', 'err', 'src']],
  ['dead code', 'knip', ['--no-progress']],
];

for (const [name, tool, args] of steps) {
  const start_ms = performance.now();
  const status = runTool(tool, args);
  const seconds = ((performance.now() - start_ms) / 1000).toFixed(1);
  process.stdout.write(`check: ${name} ${status === 0 ? 'ok' : 'FAILED'} (${seconds} s)\n`);
  if (status !== 0) process.exit(1);
}
