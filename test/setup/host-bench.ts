// Prepares a machine for the host tests ahead of time: `sh test/setup/node.sh test/setup/host-bench.ts`.
// Run it where there is network; the host tests then need none.
import { cacheDir, debianTools } from '../host/lab/debian-packages.ts';
import { builtClient, builtContainerd, builtDelay } from '../host/lab/go-programs.ts';

const started = performance.now();
const tools = await debianTools();
const versions = Object.values(tools.containerd).map((c) => c.version);
const built = await builtContainerd('2.3');
versions.push(built.version);
for (const client of ['nerdctl', 'crictl'] as const) await builtClient(client);
await builtDelay();
const seconds = ((performance.now() - started) / 1000).toFixed(1);
console.log(`containerd ${versions.join(', ')} in ${cacheDir()} after ${seconds} s`);
for (const note of tools.notes) console.log(`note: ${note}`);
