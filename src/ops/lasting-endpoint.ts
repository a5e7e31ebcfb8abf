import { backoff_ms } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { DaemonError } from '../base/errors.ts';
import type { ConditionReport } from './conditions.ts';
import { type Address, type EndpointModules, LISTEN_FAULTS, OpsEndpoint } from './endpoint.ts';

/** Pauses between tries to listen, in ms. */
const BACKOFF = { first_ms: 1_000, longest_ms: 30_000 } as const;

type Modules = EndpointModules & { readonly clock: Clock; readonly conditions: ConditionReport };

/**
 * The endpoint of a daemon that needs none to do its work: an address that cannot be had becomes the condition `metrics_listen` and
 * is tried again, with pauses of up to 30 s, until it can.
 */
export class LastingEndpoint implements AsyncDisposable {
  readonly #modules: Modules;
  readonly #address: Address;
  readonly #tried = Promise.withResolvers<undefined>();
  #endpoint: OpsEndpoint | undefined;

  constructor(modules: Modules, address: Address) {
    this.#modules = modules;
    this.#address = address;
  }

  /** The port it listens on; undefined while it does not. */
  get port(): number | undefined {
    return this.#endpoint?.port;
  }

  /** Resolves when the first try is over, whatever came of it. */
  get tried(): Promise<undefined> {
    return this.#tried.promise;
  }

  /** Tries until it listens or the signal aborts. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    for (let failures = 1; !(await this.#listen(signal)); failures++) {
      this.#tried.resolve(undefined);
      try {
        await this.#modules.clock.sleep(backoff_ms(BACKOFF, failures), { signal });
      } catch {
        return;
      }
    }
    this.#tried.resolve(undefined);
  }

  /** One try; false when another one may help. */
  async #listen(signal: AbortSignal): Promise<boolean> {
    const { conditions } = this.#modules;
    const { host, port } = this.#address;
    try {
      const endpoint = await OpsEndpoint.listen(this.#modules, this.#address);
      // A name may take long to become an address; nobody waits for the endpoint any more then.
      if (signal.aborted) await endpoint[Symbol.asyncDispose]();
      else this.#endpoint = endpoint;
      conditions.clear('metrics_listen');
      return true;
    } catch (error) {
      if (!(error instanceof DaemonError)) throw error;
      const errno = String(error.facts['errno']);
      conditions.raise('metrics_listen', {
        what: `no metrics on ${host}:${port}: ${LISTEN_FAULTS[errno] ?? errno}`,
        mend: [
          `ss -lntp 'sport = :${port}'`,
          'end the program that has the port; or change [metrics] listen, then: systemctl restart layerswarm',
        ],
      });
      return false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#endpoint?.[Symbol.asyncDispose]();
  }
}
