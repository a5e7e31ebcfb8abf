// The containerd a booted suite carries, used as an operator would: its unit, its default socket, ctr.
import assert from 'node:assert/strict';
import type { TestImage } from '../../fixtures/image.ts';
import type { CommandOptions } from '../../host/lab/run-command.ts';
import { blobsOf } from '../../host/swarm-lab.ts';
import { untilTrue } from '../../host/wait.ts';
import type { BootedHost } from './booted-host.ts';

/** A pull of the tests' images takes a second or two; this one hangs. */
const PULL_DEADLINE_MS = 120_000;
const CONTENT_TYPE = 'io.containerd.content.v1';

/** containerd.service of one booted host. */
export class SuiteContainerd {
  readonly #host: BootedHost;
  #containers = 0;

  constructor(host: BootedHost) {
    this.#host = host;
  }

  /** Upstream version, e.g. `1.7.24`. */
  async version(): Promise<string> {
    const said = await this.#host.sh('containerd --version');
    return /\b(\d+\.\d+\.\d+)/.exec(said)?.[1] ?? said;
  }

  /** Pid of the running containerd, to see whether something restarted it. */
  async pid(): Promise<number> {
    return this.#host.mainPid('containerd.service');
  }

  /** Restarts it by a command; resolves when it answers again. */
  async restart(command = 'systemctl restart containerd.service'): Promise<void> {
    // Tests restart it more often than its start limit allows an operator to.
    await this.#host.sh(`systemctl reset-failed containerd; ${command}`);
    await untilTrue('containerd answers', async () => {
      return (await this.#host.tryRun(['ctr', 'version'])).code === 0;
    });
  }

  /** Waits until a read reaches the content store; after a failed one containerd itself waits a second or more. */
  async storeAnswers(): Promise<void> {
    const script = 'ctr content get $(ctr content ls --quiet | head -n 1) > /dev/null';
    await untilTrue('the content store answers', async () => {
      return (await this.#host.tryRun(['sh', '-euc', script])).code === 0;
    });
  }

  /** Pulls over plain HTTP; rejects when ctr fails. */
  async pull(ref: string, options: CommandOptions = {}): Promise<void> {
    const argv = ['ctr', 'image', 'pull', '--plain-http', ref];
    await this.#host.run(argv, { deadline_ms: PULL_DEADLINE_MS, ...options });
  }

  async images(): Promise<string[]> {
    return (await this.#host.sh('ctr image ls --quiet')).split('\n').filter(Boolean).toSorted();
  }

  async removeImage(ref: string): Promise<void> {
    await this.#host.run(['ctr', 'image', 'rm', '--sync', ref]);
  }

  /** Ends every lease: a client that was killed leaves one, which keeps what it had pulled for a day. */
  async endLeases(): Promise<void> {
    await this.#host.sh('for l in $(ctr leases ls --quiet); do ctr leases rm --sync $l; done');
  }

  /** Runs a container of the image to its end; resolves to what it printed. */
  async runContainer(ref: string): Promise<string> {
    this.#containers += 1;
    const id = `${this.#host.lab.namespace}-c${this.#containers}`;
    const { stdout } = await this.#host.run(['ctr', 'run', '--rm', '--cgroup', `/${id}`, ref, id]);
    return stdout;
  }

  /** Ids of the content plugins that run: `content` is the built-in one. */
  async contentPlugins(): Promise<string[]> {
    const rows = (await this.#host.sh('ctr plugins ls'))
      .split('\n')
      .map((row) => row.trim().split(/\s+/));
    return rows
      .filter((row) => row[0] === CONTENT_TYPE && row.at(-1) === 'ok')
      .map((row) => row[1]!);
  }

  /** Reads every blob of the image through containerd and asserts that it is what its digest says. */
  async assertReadable(image: TestImage): Promise<void> {
    const digests = blobsOf(image).map((blob) => blob.digest);
    const script = `for d in ${digests.join(' ')}; do
      echo "sha256:$(ctr content get $d | sha256sum | cut -d' ' -f1)"; done`;
    assert.deepEqual((await this.#host.sh(script)).split('\n'), digests);
  }
}
