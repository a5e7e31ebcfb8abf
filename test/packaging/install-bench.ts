// Two booted hosts of one suite, a registry, images and our packages: what the installation scenarios share.
import { buildImage, layerBytes } from '../fixtures/image.ts';
import type { TestImage } from '../fixtures/image.ts';
import { cacheDir, debianTools } from '../host/lab/debian-packages.ts';
import { LabNetwork } from '../host/lab/netns.ts';
import { LabRegistry } from '../host/lab/registry.ts';
import { blobsOf } from '../host/swarm-lab.ts';
import { untilTrue } from '../host/wait.ts';
import type { BootedSuite } from './lab/base-tree.ts';
import { BootedHost } from './lab/booted-host.ts';
import { fileTree } from './lab/file-tree.ts';
import type { FileTree } from './lab/file-tree.ts';
import { CONTAINERD_CONFIG, InstalledHost } from './lab/installed-host.ts';
import { builtPackages } from './lab/packages.ts';
import type { BuiltPackages } from './lab/packages.ts';
import { SuiteContainerd } from './lab/suite-containerd.ts';

/** Time that the access log may lag behind the answers, in ms. */
const LOG_DEADLINE_MS = 5000;

/** An image and where it was pushed. */
export interface PushedImage {
  readonly image: TestImage;
  readonly ref: string;
}

/** One host with what was on it before the package came. */
export interface BenchHost {
  readonly installed: InstalledHost;
  readonly host: BootedHost;
  readonly containerd: SuiteContainerd;
  /** Files before the installation. */
  readonly before: FileTree;
}

/** Paths inside each host. */
interface PackageFiles {
  readonly current: string;
  readonly next: string;
}

/**
 * A has Debian's config.toml and an image that its containerd pulled before there was any layerswarm; B has no config.toml
 * at all. Neither can reach anything but the registry and the other.
 */
export class InstallBench implements AsyncDisposable {
  readonly a: BenchHost;
  readonly b: BenchHost;
  readonly registry: LabRegistry;
  /** Pulled by A before the installation. */
  readonly old: PushedImage;
  readonly app: PushedImage;
  readonly more: PushedImage;
  /** Large enough that something can happen during its pull. */
  readonly large: PushedImage;
  readonly files: PackageFiles;
  readonly versions: { readonly current: string; readonly next: string };
  readonly #stack: AsyncDisposableStack;

  private constructor(stack: AsyncDisposableStack, parts: BenchParts) {
    this.#stack = stack;
    this.a = parts.a;
    this.b = parts.b;
    this.registry = parts.registry;
    [this.old, this.app, this.more, this.large] = parts.images;
    this.files = parts.files;
    this.versions = { current: parts.current.version, next: parts.next.version };
  }

  static async create(suite: BootedSuite): Promise<InstallBench> {
    const tools = await debianTools();
    const current = await builtPackages();
    const next = await builtPackages({ next: true });
    await using stack = new AsyncDisposableStack();
    const network = stack.use(await LabNetwork.create());
    const registry = stack.use(await LabRegistry.start(await network.addHost('hub'), tools));
    const push = async (name: string, size_bytes: number): Promise<PushedImage> => {
      const recipe = { seed: `booted-${name}`, size_bytes, busybox: tools.busybox };
      const image = await buildImage(recipe, cacheDir());
      return { image, ref: await registry.push(image, name, 'v1') };
    };
    const images = [
      await push('old', 6_000_000),
      await push('app', 24_000_000),
      await push('more', 12_000_000),
      await push('large', 40_000_000),
    ] as const;
    const a = stack.use(await BootedHost.boot(await network.addHost('a'), suite));
    const b = stack.use(await BootedHost.boot(await network.addHost('b'), suite));
    const containerd = new SuiteContainerd(a);
    await containerd.pull(images[0].ref);
    await b.sh(`rm ${CONTAINERD_CONFIG}`);
    await new SuiteContainerd(b).restart();
    const debs = { current: current.deb, next: next.deb };
    const files = { current: '/root/current.deb', next: '/root/next.deb' };
    for (const host of [a, b])
      for (const name of ['current', 'next'] as const) await host.take(debs[name], `${name}.deb`);
    await registry.forget();
    const parts = { a: await benchHost(a), b: await benchHost(b), registry, images, files };
    return new InstallBench(stack.move(), { ...parts, current, next });
  }

  get hosts(): readonly BenchHost[] {
    return [this.a, this.b];
  }

  /** Waits until both daemons are connected and B knows that A holds the blobs of `image`. */
  async ready({ image }: PushedImage): Promise<void> {
    await this.a.installed.meshed(1);
    await this.b.installed.meshed(1, blobsOf(image).length);
  }

  /** Bytes of the image's layers that left the registry since the last `forget`, once its log shows at least `least`. */
  async registryBytes({ image }: PushedImage, least = 0): Promise<number> {
    const logged = async (): Promise<boolean> => (await this.registry.layerBytes(image)) >= least;
    await untilTrue('the access log', logged, { deadline_ms: LOG_DEADLINE_MS });
    return this.registry.layerBytes(image);
  }

  /** A pulls it from the registry, and the requests of that are forgotten. */
  async seed(pushed: PushedImage): Promise<void> {
    const before = await this.registry.layerBytes(pushed.image);
    await this.a.containerd.pull(pushed.ref);
    // The base layer is everybody's, so that A may have it already.
    const own = layerBytes(pushed.image) - pushed.image.layers[0]!.size;
    await this.registryBytes(pushed, before + own);
    await this.registry.forget();
    await this.ready(pushed);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
  }
}

interface BenchParts {
  readonly a: BenchHost;
  readonly b: BenchHost;
  readonly registry: LabRegistry;
  readonly images: readonly [PushedImage, PushedImage, PushedImage, PushedImage];
  readonly files: PackageFiles;
  readonly current: BuiltPackages;
  readonly next: BuiltPackages;
}

async function benchHost(host: BootedHost): Promise<BenchHost> {
  return {
    installed: new InstalledHost(host),
    host,
    containerd: new SuiteContainerd(host),
    before: await fileTree(host),
  };
}
