/**
 * `npm run build`: the program as one bundle in dist/, which runs without node_modules; it is run once to see that it starts.
 * Also writes the documented default configuration, so that it cannot lag behind the schema.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { renderReference } from '../../src/config/reference.ts';
import { bundle } from './bundle.ts';
import { ROOT, runTool } from './run-tool.ts';

process.chdir(ROOT);
if (runTool('test/setup/proto.ts', []) !== 0) process.exit(1);
await bundle(`${ROOT}dist`);
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
