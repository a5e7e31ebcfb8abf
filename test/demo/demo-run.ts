// The demo's steps: image, hosts, pulls, in this order; and the removal of everything.
import { globSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { humanBytes } from '../../src/cli/render.ts';
import { buildImage, layerBytes } from '../fixtures/image.ts';
import type { TestImage } from '../fixtures/image.ts';
import { cacheDir, debianTools } from '../host/lab/debian-packages.ts';
import type { DebianTools } from '../host/lab/debian-packages.ts';
import { SwarmLab, blobsOf } from '../host/swarm-lab.ts';
import type { SwarmNode } from '../host/swarm-lab.ts';
import { untilTrue } from '../host/wait.ts';
import { pullOn } from './host-pull.ts';
import type { HostPull } from './host-pull.ts';
import { InstalledProduct } from './installed-product.ts';
import { copyLogs, logTails } from './logs.ts';
import type { DemoOptions } from './options.ts';
import { planHosts } from './plan.ts';
import type { PlannedHost } from './plan.ts';
import { rowOf } from './report.ts';
import type { PullRow } from './report.ts';
import type { Screen } from './screen.ts';

const MIB = 1024 * 1024;
/** Longest wait for the access log of requests that are over, in ms. */
const LOG_DEADLINE_MS = 5000;

interface DemoModules {
  readonly screen: Screen;
  /** Aborts when the user wants to stop; the step under way then ends first. */
  readonly signal: AbortSignal;
}

interface Step {
  readonly name: string;
  /** The host in whose logs one would look if it fails. */
  readonly host?: string;
}

/** One run of the demo. `close` must be called however `run` ends. */
export class DemoRun {
  readonly #screen: Screen;
  readonly #signal: AbortSignal;
  readonly #options: DemoOptions;
  #lab: SwarmLab | undefined;
  #installed: InstalledProduct | undefined;
  #step: Step = { name: 'start' };

  constructor({ screen, signal }: DemoModules, options: DemoOptions) {
    this.#screen = screen;
    this.#signal = signal;
    this.#options = options;
  }

  /** Resolves to a row per pull, A's first. Rejects at the first step that fails; `failure` then tells about it. */
  async run(): Promise<PullRow[]> {
    const { hosts } = this.#options;
    this.#screen.line(
      `${hosts} hosts on this machine: network namespaces, each with its own containerd and its own layerswarm`,
    );
    if (this.#options.from_package) await this.#unpackProduct();
    const tools = await this.#do('Debian packages (containerd, runc, registry)', async () =>
      debianTools({ signal: this.#signal }),
    );
    for (const note of tools.notes) this.#screen.line(`note: ${note}`);
    const image = await this.#image(tools);
    const lab = await this.#do('network and registry', async () => {
      // Kept before anything else can happen: `close` must find it.
      this.#lab = await SwarmLab.create(tools);
      return this.#lab;
    });
    const push = { name: 'push to the registry', host: 'hub' };
    const ref = await this.#do(push, async () => lab.push(image, 'demo/app'));
    const planned = planHosts(this.#options);
    const nodes: SwarmNode[] = [];
    for (const host of planned) nodes.push(await this.#addHost(lab, host));
    this.#screen.line();
    const pulls: HostPull[] = [];
    for (const [i, host] of planned.entries()) {
      await this.#known(lab, host, nodes, i, image);
      this.#begin({ name: `pull on ${host.label}`, host: host.name });
      const modules = {
        planned: host,
        node: nodes[i]!,
        screen: this.#screen,
        signal: this.#signal,
      };
      pulls.push(await pullOn(modules, image, ref));
    }
    this.#begin({ name: "the registry's access log", host: 'hub' });
    return this.#count(lab, image, pulls);
  }

  /** What failed and the ends of the logs that may say why. Call before `close`. */
  async failure(error: unknown): Promise<string> {
    const text = error instanceof Error ? error.message : String(error);
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause.message : '';
    const told = [text, cause].filter(Boolean).join('\n').split('\n').slice(0, 6).join('\n  ');
    const { name, host } = this.#step;
    const found = this.#lab?.network.hosts.find((one) => one.name === host);
    const tails = found === undefined ? '' : await logTails(found.dir);
    const hint =
      this.#options.keep_logs === undefined && found !== undefined
        ? '\nRun it with --keep-logs DIR to keep all logs.'
        : '';
    return `demo: this step failed: ${name}\n  ${told}${tails}${hint}`;
  }

  /** Copies the logs if asked for, then ends every program and removes every trace. */
  async close(): Promise<void> {
    const { keep_logs } = this.#options;
    try {
      if (keep_logs !== undefined && this.#lab !== undefined)
        await copyLogs(this.#lab.network.hosts, keep_logs);
    } finally {
      await this.#lab?.[Symbol.asyncDispose]();
      await this.#installed?.[Symbol.asyncDispose]();
      // An image that was being built when the user stopped.
      const parts = globSync(join(cacheDir(), 'images', `*.${process.pid}.part`));
      for (const part of parts) await rm(part, { recursive: true, force: true });
    }
  }

  async #unpackProduct(): Promise<void> {
    const deb = await this.#do('package', async () => InstalledProduct.build(this.#signal));
    const product = await this.#do('what it installs', async () => {
      this.#installed = await InstalledProduct.unpack(deb);
      return this.#installed;
    });
    this.#screen.line(
      `layerswarm ${product.version} on every host is the package's: ${product.program.join(' ')}`,
    );
  }

  async #image(tools: DebianTools): Promise<TestImage> {
    const { image_mib } = this.#options;
    const recipe = { seed: 'demo', size_bytes: image_mib * MIB, zstd: true, index: true } as const;
    const name = `image of ${image_mib} MiB`;
    // Building knows no signal; what it leaves is removed by `close`.
    const build = async (): Promise<TestImage> =>
      this.#orStopped(buildImage({ ...recipe, busybox: tools.busybox }, cacheDir()));
    const image = await this.#do(name, build);
    const zstd = image.layers.filter((layer) => layer.mediaType.endsWith('zstd')).length;
    const sizes = image.layers.map((layer) => humanBytes(layer.size)).join(', ');
    this.#screen.line(
      `  ${image.layers.length} layers (${image.layers.length - zstd} gzip, ${zstd} zstd): ${sizes}`,
    );
    return image;
  }

  async #addHost(lab: SwarmLab, planned: PlannedHost): Promise<SwarmNode> {
    const { name, label, line } = planned;
    const step = { name: `host ${label}: containerd ${line} and layerswarm`, host: name };
    const level = this.#options.keep_logs === undefined ? 'info' : 'debug';
    return this.#do(step, async () =>
      lab.addNode(name, {
        line,
        igzip: this.#options.igzip,
        config: { log: [`level = "${level}"`] },
        ...(this.#installed === undefined ? {} : { product: this.#installed.program }),
      }),
    );
  }

  /** Waits until host number `i` is connected to all others and knows what those before it hold. */
  async #known(
    lab: SwarmLab,
    planned: PlannedHost,
    nodes: readonly SwarmNode[],
    i: number,
    image: TestImage,
  ): Promise<void> {
    this.#begin({ name: `${planned.label} meets the other hosts`, host: planned.name });
    const want = {
      peers: nodes.length - 1,
      holders: nodes.slice(0, i),
      blobs: blobsOf(image).length,
    };
    const met = this.#orStopped(lab.meshed(nodes[i]!, want));
    await this.#screen.during(met, () => `${this.#step.name} ...`);
  }

  /** Counts at the registry, when its log shows every request that A's layers took. */
  async #count(lab: SwarmLab, image: TestImage, pulls: readonly HostPull[]): Promise<PullRow[]> {
    const logged = untilTrue(
      `the registry's access log with A's pull`,
      async () => (await lab.registry.layerBytes(image)) >= layerBytes(image),
      { deadline_ms: LOG_DEADLINE_MS },
    );
    await this.#screen.during(this.#orStopped(logged), () => `${this.#step.name} ...`);
    const [events, layer_gets] = [await lab.registry.events(), await lab.registry.layerGets(image)];
    const origin = this.#installed === undefined ? {} : { from_package: this.#installed.version };
    return pulls.map((pull) => ({ ...rowOf(pull, events, layer_gets), ...origin }));
  }

  /** Does one step and leaves a line with the time it took. */
  async #do<T>(step: Step | string, work: () => Promise<T>): Promise<T> {
    this.#begin(typeof step === 'string' ? { name: step } : step);
    const { name } = this.#step;
    const started = performance.now();
    const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(1)} s`;
    const result = await this.#screen.during(work(), () => `${name} ... ${seconds()}`);
    this.#signal.throwIfAborted();
    this.#screen.line(`${name}: ${seconds()}`);
    return result;
  }

  #begin(step: Step): void {
    this.#signal.throwIfAborted();
    this.#step = step;
  }

  /** For work that holds nothing and takes no signal: stops waiting for it when the user stops. */
  async #orStopped<T>(work: Promise<T>): Promise<T> {
    const stopped = Promise.withResolvers<never>();
    const stop = (): void => stopped.reject(this.#signal.reason as Error);
    this.#signal.addEventListener('abort', stop, { once: true });
    try {
      return await Promise.race([work, stopped.promise]);
    } finally {
      this.#signal.removeEventListener('abort', stop);
      work.catch(() => undefined);
    }
  }
}
