// A real registry (Debian's docker-registry) on a lab host; its access log is the witness of what was fetched.
import { readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { TestImage } from '../../fixtures/image.ts';
import type { DebianTools } from './debian-packages.ts';
import type { LabHost } from './host.ts';
import type { LabProcess } from './process.ts';

const PORT = 5000;

/** One answered request, as the access log tells it. */
export interface RegistryEvent {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  /** Bytes of the answer's body. */
  readonly bytes: number;
  readonly user_agent: string;
  /** Address of the asking host. */
  readonly client: string;
}

/** Reads an access log in Apache's combined format; other lines are left out. */
export function parseAccessLog(text: string): RegistryEvent[] {
  const line = /^(\S+) \S+ \S+ \[[^\]]*\] "(\S+) (\S+) [^"]*" (\d{3}) (\d+|-) "[^"]*" "([^"]*)"/gm;
  return [...text.matchAll(line)].map((m) => ({
    client: m[1]!.replace(/:\d+$/, ''),
    method: m[2]!,
    path: m[3]!,
    status: Number(m[4]),
    bytes: m[5] === '-' ? 0 : Number(m[5]),
    user_agent: m[6]!,
  }));
}

/** The registry of one lab network: plain HTTP, no authentication. */
export class LabRegistry implements AsyncDisposable {
  /** `address:port`, the first part of every reference. */
  readonly address: string;
  readonly #host: LabHost;
  readonly #process: LabProcess;
  #mark = 0;

  private constructor(host: LabHost, child: LabProcess) {
    this.address = `${host.address}:${PORT}`;
    this.#host = host;
    this.#process = child;
  }

  /** Starts it on `host` and resolves when it accepts connections. */
  static async start(host: LabHost, tools: DebianTools): Promise<LabRegistry> {
    const config = join(host.dir, 'registry.yml');
    await writeFile(
      config,
      `version: 0.1
log: {level: warn, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: "${join(host.dir, 'registry')}"}, delete: {enabled: true}}
http: {addr: "0.0.0.0:${PORT}"}
`,
    );
    const child = await host.spawn('registry', [tools.registry, 'serve', config], {
      env: { OTEL_TRACES_EXPORTER: 'none' },
    });
    const probe = `exec 3<>/dev/tcp/127.0.0.1/${PORT}`;
    await child.ready(async () => (await host.tryRun(['bash', '-c', probe])).code === 0, {
      deadline_ms: 10_000,
    });
    return new LabRegistry(host, child);
  }

  /** Pushes `image`; resolves to its full reference `address/repository:tag`. Layers already there are not sent again. */
  async push(image: TestImage, repository: string, tag = 'latest'): Promise<string> {
    const script = resolve(import.meta.dirname, 'push-image.ts');
    const args = [this.address, repository, tag, image.dir];
    await this.#host.run([process.execPath, script, ...args], { deadline_ms: 120_000 });
    return `${this.address}/${repository}:${tag}`;
  }

  /** Everything answered since the last `forget`. */
  async events(): Promise<RegistryEvent[]> {
    return (await this.#allEvents()).slice(this.#mark);
  }

  /** Blob GETs of `image`'s layers since the last `forget`. A request still running is not there yet. */
  async layerGets(image: TestImage): Promise<RegistryEvent[]> {
    const paths = image.layers.map((layer) => `/blobs/${layer.digest}`);
    const events = await this.events();
    return events.filter((e) => e.method === 'GET' && paths.some((p) => e.path.endsWith(p)));
  }

  /** Bytes of `image`'s layers that left the registry since the last `forget`. */
  async layerBytes(image: TestImage): Promise<number> {
    return (await this.layerGets(image)).reduce((sum, event) => sum + event.bytes, 0);
  }

  /** Starts counting anew. */
  async forget(): Promise<void> {
    this.#mark = (await this.#allEvents()).length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process.stop();
  }

  async #allEvents(): Promise<RegistryEvent[]> {
    return parseAccessLog(await readFile(this.#process.log, 'utf8'));
  }
}
