import type { Logger, MessageStreamDirection } from '@libp2p/interface';
import { AbstractMultiaddrConnection } from '@libp2p/utils';
import { multiaddr } from '@multiformats/multiaddr';
import type { NativeConnection } from './native.ts';

type SendResult = ReturnType<AbstractMultiaddrConnection['sendData']>;

/**
 * A QUIC connection as libp2p's upgrader wants to see it. It carries no bytes of its own: the muxer takes its streams
 * from the native connection. Its end, for whatever reason, shows as the 'close' event. Owns the native connection.
 */
export class QuicConnection extends AbstractMultiaddrConnection {
  readonly native: NativeConnection;

  constructor(init: {
    native: NativeConnection;
    direction: MessageStreamDirection;
    log: Logger;
  }) {
    super({
      remoteAddr: multiaddr(init.native.remoteMultiaddr()),
      direction: init.direction,
      log: init.log,
    });
    this.native = init.native;
    void this.native.closed().then(
      () => this.onTransportClosed(),
      (error: unknown) => this.onTransportClosed(error as Error),
    );
  }

  /** Never called by libp2p for a connection that is multiplexed by its transport. */
  sendData(): SendResult {
    throw new Error('a QUIC connection carries no bytes outside of its streams');
  }

  sendReset(): void {
    this.native.abort();
  }

  // Flow control belongs to the streams; the connection has nothing to pause.
  sendPause(): void {}
  sendResume(): void {}

  sendClose(): Promise<void> {
    this.native.abort();
    return Promise.resolve();
  }
}
