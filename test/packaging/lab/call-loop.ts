// Calls to the daemon through containerd, one after the other, while something happens to the daemon.
import assert from 'node:assert/strict';
import { untilTrue } from '../../host/wait.ts';
import type { BootedHost } from './booted-host.ts';

/** Longest time that the loop may go on; also the deadline of a call that hangs. */
const LOOP_DEADLINE_MS = 180_000;
let loops = 0;

/**
 * Reads one blob through containerd again and again (each time a new ctr, so new calls; containerd keeps no bytes of its own)
 * and hashes it. `stopWithoutFailure` ends it.
 */
export class CallLoop {
  readonly #host: BootedHost;
  readonly #stop_file: string;
  readonly #count_file: string;
  readonly #output: Promise<string>;

  private constructor(host: BootedHost, digest: string) {
    loops += 1;
    this.#host = host;
    this.#stop_file = `/tmp/calls-${loops}.stop`;
    this.#count_file = `/tmp/calls-${loops}`;
    const script = `calls=0
      while [ ! -e ${this.#stop_file} ]; do
        got=$(ctr content get ${digest} 2>/tmp/calls-error-${loops} | sha256sum | cut -d' ' -f1)
        [ "sha256:$got" = ${digest} ] || { echo "call $calls at $(date +%T.%N): $got"; cat /tmp/calls-error-${loops}; }
        calls=$((calls + 1)); echo $calls > ${this.#count_file}
        sleep 0.05
      done`;
    this.#output = host.sh(script, { deadline_ms: LOOP_DEADLINE_MS });
    // Awaited in `stopWithoutFailure`; a host that ends first is told there.
    this.#output.catch(() => undefined);
  }

  /** Resolves when the first call has come back. */
  static async start(host: BootedHost, digest: string): Promise<CallLoop> {
    const loop = new CallLoop(host, digest);
    await loop.more(1);
    return loop;
  }

  /** Waits for this many further calls. */
  async more(calls: number): Promise<void> {
    const goal = (await this.#calls()) + calls;
    await untilTrue(`${calls} more calls`, async () => (await this.#calls()) >= goal);
  }

  /** Ends the loop and asserts that not one call failed; resolves to how many there were. */
  async stopWithoutFailure(): Promise<number> {
    await this.#host.sh(`touch ${this.#stop_file}`);
    assert.equal(await this.#output, '', 'calls failed');
    const calls = await this.#calls();
    await this.#host.sh(`rm -f ${this.#count_file} ${this.#stop_file} /tmp/calls-error-*`);
    return calls;
  }

  async #calls(): Promise<number> {
    return Number(await this.#host.sh(`cat ${this.#count_file} 2>/dev/null || echo 0`)) || 0;
  }
}
