/**
 * `npm run proto`: TypeScript types of every proto text under proto/ into src/gen/, with the options that
 * src/rpc/proto.ts loads them with at run time.
 */
import { spawnSync } from 'node:child_process';
import { globSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { LOAD_OPTIONS } from '../../src/rpc/proto.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const files = globSync('**/*.proto', { cwd: `${root}proto` }).sort();
if (files.length === 0) {
  process.stderr.write('no proto text found under proto/\n');
  process.exit(1);
}
// Types of a text that is gone must not stay behind.
rmSync(`${root}src/gen`, { recursive: true, force: true });
const { status } = spawnSync(
  process.execPath,
  [
    `${root}node_modules/@grpc/proto-loader/build/bin/proto-loader-gen-types.js`,
    `--longs=${LOAD_OPTIONS.longs.name}`,
    `--enums=${LOAD_OPTIONS.enums.name}`,
    ...Object.entries(LOAD_OPTIONS)
      .filter(([, value]) => value === true)
      .map(([option]) => `--${option}`),
    '--grpcLib=@grpc/grpc-js',
    '--importFileExtension=.ts',
    '--includeDirs=.',
    `--outDir=${root}src/gen`,
    ...files,
  ],
  { cwd: `${root}proto`, stdio: 'inherit' },
);
process.exit(status ?? 1);
