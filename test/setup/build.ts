/**
 * `npm run build`: JavaScript of src/ into dist/, with an executable `dist/main.js` that is run once to see that it starts.
 * Also writes the documented default configuration, so that it cannot lag behind the schema.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { renderReference } from '../../src/config/reference.ts';
import { ROOT, runTool } from './run-tool.ts';

process.chdir(ROOT);
for (const [tool, args] of [
  ['test/setup/proto.ts', []],
  ['tsc', ['-p', 'tsconfig.build.json']],
] as const) {
  if (tool === 'tsc') rmSync('dist', { recursive: true, force: true });
  if (runTool(tool, args) !== 0) process.exit(1);
}
writeFileSync('packaging/config.toml', renderReference());

const main = `${ROOT}dist/main.js`;
if (!readFileSync(main, 'utf8').startsWith('#!')) {
  process.stderr.write('dist/main.js has lost its first line "#!/usr/bin/env node"\n');
  process.exit(1);
}
chmodSync(main, 0o755);
const said = execFileSync(process.execPath, [main, '--version'], { encoding: 'utf8' }).trim();
const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
if (said !== version) {
  process.stderr.write(`dist/main.js --version says "${said}", package.json "${version}"\n`);
  process.exit(1);
}
process.stdout.write(`built dist/main.js, version ${said}\n`);
