import {
  type AbortOptions,
  type ComponentLogger,
  type CreateStreamOptions,
  type EventHandler,
  type Logger,
  type MessageStream,
  type MessageStreamDirection,
  MuxerClosedError,
  type StreamMuxer,
  type StreamMuxerEvents,
  type StreamMuxerFactory,
  type StreamMuxerStatus,
  TypedEventEmitter,
} from '@libp2p/interface';
import { DaemonError } from '../../../base/errors.ts';
import type { Clock } from '../../../base/clock.ts';
import { orAbort } from './bounded-wait.ts';
import type { QuicConfig } from './config.ts';
import type { NativeConnection, NativeStream } from './native.ts';
import { QuicStream } from './stream.ts';

type Modules = { readonly logger: ComponentLogger; readonly clock: Clock };

/** Hands the upgrader the muxer of one connection: QUIC brings its streams along, nothing is negotiated. */
export class QuicMuxerFactory implements StreamMuxerFactory<QuicMuxer> {
  readonly protocol = 'quic';
  readonly #native: NativeConnection;
  readonly #modules: Modules;
  readonly #config: QuicConfig;

  constructor(native: NativeConnection, modules: Modules, config: QuicConfig) {
    this.#native = native;
    this.#modules = modules;
    this.#config = config;
  }

  createStreamMuxer(connection: MessageStream): QuicMuxer {
    return new QuicMuxer(this.#native, connection, this.#modules, this.#config);
  }
}

/**
 * The streams of one QUIC connection. Inbound streams are taken from the connection once somebody listens for 'stream',
 * so none is lost before. At most `max_inbound_streams` are open at a time; further ones wait at the peer. When the
 * connection ends, every stream still open ends with an error.
 */
export class QuicMuxer
  extends TypedEventEmitter<StreamMuxerEvents<QuicStream>>
  implements StreamMuxer<QuicStream>
{
  readonly protocol = 'quic';
  readonly streams: QuicStream[] = [];
  status: StreamMuxerStatus = 'open';
  readonly #native: NativeConnection;
  readonly #modules: Modules;
  readonly #config: QuicConfig;
  readonly #log: Logger;
  readonly #ended = new AbortController();
  #accepting = false;

  constructor(
    native: NativeConnection,
    connection: MessageStream,
    modules: Modules,
    config: QuicConfig,
  ) {
    super();
    this.#native = native;
    this.#modules = modules;
    this.#config = config;
    this.#log = modules.logger.forComponent('layerswarm:quic:muxer');
    // Registered before libp2p's own listener: streams end before their connection reports its end.
    connection.addEventListener(
      'close',
      ({ error }) => this.abort(error ?? new MuxerClosedError('the QUIC connection has ended')),
      { once: true },
    );
  }

  override addEventListener(
    type: 'stream',
    listener: EventHandler<CustomEvent<QuicStream>> | null,
    options?: boolean | { readonly once?: boolean; readonly signal?: AbortSignal },
  ): void {
    super.addEventListener(type, listener, options);
    if (this.#accepting) return;
    this.#accepting = true;
    void this.#accept();
  }

  /**
   * Opens a stream; the peer hears of it with the first bytes. Waits at most `open_stream_timeout_ms` while the peer's
   * stream limit is reached, then throws `resource_exhausted`. Throws libp2p's MuxerClosedError after the end.
   */
  async createStream(options: CreateStreamOptions = {}): Promise<QuicStream> {
    if (this.status !== 'open') throw new MuxerClosedError();
    const deadline = this.#modules.clock.timeout(this.#config.open_stream_timeout_ms);
    const signals = [deadline, this.#ended.signal];
    const native = await orAbort(
      this.#native.outboundStream(),
      AbortSignal.any(options.signal === undefined ? signals : [...signals, options.signal]),
      drop,
      () => this.#whyNoStream(deadline, options.signal),
    );
    if (this.#ended.signal.aborted) {
      drop(native);
      throw new MuxerClosedError();
    }
    return this.#adopt(native, 'outbound');
  }

  /**
   * Ends our half of every stream, waits at most `close_timeout_ms` for that, then resets what is still open. QUIC then
   * drops bytes the peer has not acknowledged: who needs an answer waits for it before closing.
   */
  async close(options: AbortOptions = {}): Promise<void> {
    if (this.status !== 'open') return;
    this.status = 'closing';
    const deadline = this.#modules.clock.timeout(this.#config.close_timeout_ms);
    const signal =
      options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
    await Promise.allSettled(this.streams.map((stream) => stream.close({ signal })));
    this.abort(new MuxerClosedError('the QUIC connection is closed'));
  }

  /** Resets every stream with this error, at once. */
  abort(error: Error): void {
    if (this.status === 'closed') return;
    this.status = 'closed';
    this.#ended.abort();
    for (const stream of [...this.streams]) stream.abort(error);
  }

  async #accept(): Promise<void> {
    while (this.status === 'open') {
      let native: NativeStream;
      try {
        native = await this.#native.inboundStream();
      } catch (error) {
        // Only a lost connection ends here; its 'close' event ends the muxer.
        this.#log('no more inbound streams - %e', error);
        return;
      }
      if (this.#ended.signal.aborted) drop(native);
      else this.safeDispatchEvent('stream', { detail: this.#adopt(native, 'inbound') });
    }
  }

  #adopt(native: NativeStream, direction: MessageStreamDirection): QuicStream {
    const log = this.#log.newScope(direction);
    const stream = new QuicStream(native, { direction, log }, this.#config);
    this.streams.push(stream);
    stream.addEventListener(
      'close',
      () => void this.streams.splice(this.streams.indexOf(stream), 1),
      { once: true },
    );
    return stream;
  }

  #whyNoStream(deadline: AbortSignal, caller: AbortSignal | undefined): Error {
    if (this.#ended.signal.aborted) return new MuxerClosedError();
    if (caller?.aborted === true || !deadline.aborted) return caller?.reason as Error;
    return new DaemonError(
      'resource_exhausted',
      'the peer grants no further QUIC stream; close streams or raise its max_inbound_streams',
      { waited_ms: this.#config.open_stream_timeout_ms },
    );
  }
}

/** A native stream nobody wants any more: dropped without this it would send a FIN when it is garbage collected. */
function drop(native: NativeStream): void {
  void native.resetWrite();
  void native.stopRead();
}
