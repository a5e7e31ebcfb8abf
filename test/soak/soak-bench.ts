// What a soak runs on: two booted hosts with the package in one swarm, a registry, and images that share some of their layers.
import { buildImage } from '../fixtures/image.ts';
import type { ImageRecipe } from '../fixtures/image.ts';
import { cacheDir, debianTools } from '../host/lab/debian-packages.ts';
import { LabNetwork } from '../host/lab/netns.ts';
import { LabRegistry } from '../host/lab/registry.ts';
import { BootedHost } from '../packaging/lab/booted-host.ts';
import { builtPackages } from '../packaging/lab/packages.ts';
import type { PushedImage } from '../packaging/install-bench.ts';
import { SoakedHost } from './soaked-host.ts';

const SUITE = 'trixie';
/** Slow enough that there is a middle of every pull, quick enough for some hundreds of them. */
const LINK_BITS = 200_000_000;
/** The unit's limit in a soak; its page cache counts too, and is given back first. */
export const MEMORY_MAX_BYTES = 400 * 1024 * 1024;
/** Less than the images together, so that the cache is always at its limit. */
export const CACHE_MAX_BYTES = 32_000_000;
const RECIPES: Readonly<Record<string, Omit<ImageRecipe, 'seed'> & { readonly seed?: string }>> = {
  small: { size_bytes: 3_000_000 },
  app: { size_bytes: 12_000_000, zstd: true },
  // All layers of `app` but the last.
  app2: { seed: 'soak-app', version: 2, size_bytes: 12_000_000, zstd: true },
  many: { size_bytes: 16_000_000, even: true, layers: 8 },
  large: { size_bytes: 32_000_000, index: true },
};

/** A's daemon lives from the first cycle to the last; B's may be killed. */
export class SoakBench implements AsyncDisposable {
  readonly a: SoakedHost;
  readonly b: SoakedHost;
  readonly images: readonly PushedImage[];
  readonly #stack: AsyncDisposableStack;

  private constructor(
    stack: AsyncDisposableStack,
    parts: {
      readonly a: SoakedHost;
      readonly b: SoakedHost;
      readonly images: readonly PushedImage[];
    },
  ) {
    this.#stack = stack;
    this.a = parts.a;
    this.b = parts.b;
    this.images = parts.images;
  }

  static async create(): Promise<SoakBench> {
    const { busybox, ...tools } = await debianTools();
    const { deb } = await builtPackages();
    await using stack = new AsyncDisposableStack();
    const network = stack.use(await LabNetwork.create());
    const hub = await network.addHost('hub');
    const registry = stack.use(await LabRegistry.start(hub, { busybox, ...tools }));
    const images: PushedImage[] = [];
    for (const [name, recipe] of Object.entries(RECIPES)) {
      const image = await buildImage({ seed: `soak-${name}`, ...recipe, busybox }, cacheDir());
      images.push({ image, ref: await registry.push(image, name, 'v1') });
    }
    const hosts: SoakedHost[] = [];
    for (const name of ['a', 'b']) {
      const host = stack.use(await BootedHost.boot(await network.addHost(name), SUITE));
      await host.take(deb, 'layerswarm.deb');
      const soaked = new SoakedHost(host);
      await soaked.installed.apt('/root/layerswarm.deb');
      hosts.push(soaked);
    }
    const [a, b] = hosts as [SoakedHost, SoakedHost];
    await wire(a, b);
    for (const { host } of hosts) await host.lab.shape({ rate_bits: LINK_BITS });
    return new SoakBench(stack.move(), { a, b, images });
  }

  get hosts(): readonly SoakedHost[] {
    return [this.a, this.b];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

async function wire(a: SoakedHost, b: SoakedHost): Promise<void> {
  const setup = ['setup', '--yes', '--restart-containerd'];
  await a.installed.succeed(setup);
  const key = await a.host.sh('cat /etc/layerswarm/cluster.key');
  await b.host.run(['sh', '-c', 'umask 077; cat > /root/swarm.key'], { input: `${key}\n` });
  const join = ['--cluster-key', '/root/swarm.key', '--join', `${a.host.address}:7878`];
  await b.installed.succeed([...setup, ...join]);
  await b.host.sh('rm /root/swarm.key');
  const drop_in = `[Service]\nMemoryMax=${MEMORY_MAX_BYTES}\n`;
  const config = `[store]\ncache_max_bytes = ${CACHE_MAX_BYTES}\n[pull]\nlinger_ms = 2000\n`;
  for (const host of [a, b]) await host.configure(drop_in, config);
  for (const host of [a, b]) await host.installed.meshed(1);
}
