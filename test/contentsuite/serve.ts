/**
 * The content door on the real store, for containerd's conformance suite: `serve.ts --root DIR --socket PATH --server h2|grpc-js`.
 * Prints `listening`, and ends in order on SIGTERM.
 */
import { once } from 'node:events';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '../../src/base/clock.ts';
import { DEFAULT_PREFILL_CONFIG } from '../../src/content/prefill.ts';
import { ContainerdCalls } from '../../src/content/containerd-calls.ts';
import { contentService } from '../../src/content/service.ts';
import { createLogger } from '../../src/ops/logger.ts';
import { PrometheusRegister } from '../../src/ops/register.ts';
import type { PullPort } from '../../src/pull/pull-port.ts';
import { listen } from '../../src/rpc/listen.ts';
import { LocalStore } from '../../src/store/local-store.ts';
import { storeConfig } from '../../src/store/store-config.ts';

/** A host without a swarm: nobody ever has anything. */
const noSwarm: PullPort = {
  join: () => undefined,
  manifestCommitted: () => undefined,
  prefixRefuted: () => undefined,
};

const { values } = parseArgs({
  options: {
    root: { type: 'string', default: '' },
    socket: { type: 'string', default: '' },
    server: { type: 'string', default: 'h2' },
  },
});
const logger = createLogger({ level: 'silent' });
const register = new PrometheusRegister();
const stopping = new AbortController();
await using store = await LocalStore.open(
  { clock: systemClock, logger, register },
  storeConfig({
    content_directory: join(values.root, 'content'),
    state_directory: join(values.root, 'state'),
    cache_max_bytes: 0,
    disk_floor_bytes: 0,
    create_content_directory: true,
  }),
);
const table = contentService(
  {
    ...{ catalog: store, ingests: store, pull: noSwarm, clock: systemClock, logger, register },
    calls: new ContainerdCalls({ clock: systemClock }),
  },
  DEFAULT_PREFILL_CONFIG,
);
const stopped = once(process, 'SIGTERM');
const listening = await listen(
  { table, logger, register, server: values.server === 'grpc-js' ? 'grpc-js' : 'h2' },
  { socket_path: values.socket },
);
console.log('listening');
await stopped;
stopping.abort();
await listening.drain(1000);
