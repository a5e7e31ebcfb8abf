import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import type { RegistryConfig } from '../../src/registry/config.ts';
import { RegistryClient } from '../../src/registry/registry-client.ts';
import { runProgram } from '../../src/host/run-program.ts';
import { RegistryServer } from './registry-server.ts';
import { scratch } from './scratch.ts';

export const never = new AbortController().signal;

/** A client whose files are a test's own, and a registry that it reaches by plain HTTP. */
export async function registryBench(
  t: Pick<TestContext, 'after'>,
  options: { readonly clock?: Clock; readonly config?: Partial<RegistryConfig> } = {},
) {
  const files = scratch(t);
  const certs = join(files.directory, 'certs.d');
  const config: RegistryConfig = {
    hosts: [],
    certs_directories: [certs],
    kubelet_directory: join(files.directory, 'kubelet'),
    credential_files: [join(files.directory, 'config.json')],
    kubelet_provider_config: '',
    kubelet_provider_directory: '',
    ...options.config,
  };
  const server = await RegistryServer.start();
  t.after(() => server[Symbol.asyncDispose]());
  const modules = { clock: options.clock ?? systemClock, run: runProgram };
  const client = new RegistryClient(modules, config);
  t.after(() => client[Symbol.asyncDispose]());
  /** Says in hosts.toml how `registry` is reached. */
  const hosts = (registry: string, text: string): string =>
    files.put(`certs.d/${registry}/hosts.toml`, text);
  hosts(server.address, `server = "http://${server.address}"\n`);
  const credentials = (value: object): string => files.put('config.json', JSON.stringify(value));
  const origin = { registry: server.address, repository: 'team/app' };
  return { ...files, server, client, hosts, credentials, origin, modules, config };
}
