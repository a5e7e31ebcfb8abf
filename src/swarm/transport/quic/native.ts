import { closeSync, existsSync, openSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { DaemonError } from '../../../base/errors.ts';
import { INSTALL_ROOT } from '../../../base/install-root.ts';
import type { QuicConfig } from './config.ts';

/**
 * One QUIC stream of the native package (quinn behind N-API). Its two halves each have a lock: a second call on the same
 * half waits until the first has settled, so `resetWrite` waits for a blocked `write` and `stopRead` for a pending `read`.
 */
export interface NativeStream {
  /** Only right after creation: fails while a write is under way. Unique per direction, not per connection. */
  id(): string;
  /** Up to `maxBytes`; null on FIN. Rejects on RESET_STREAM and when the connection is lost. */
  read(maxBytes: number): Promise<Uint8Array | null>;
  /**
   * Resolves when the bytes are copied into the connection's send buffer, which waits for the peer's window. The bytes
   * are read from another thread until then. Rejects on STOP_SENDING and when the connection is lost.
   */
  write(data: Uint8Array): Promise<void>;
  finishWrite(): Promise<void>;
  resetWrite(): Promise<void>;
  stopRead(): Promise<void>;
}

/** One established connection; the peer has proved its identity in the TLS handshake. */
export interface NativeConnection {
  id(): string;
  /** Address with the proven peer id as its `/p2p` part. */
  remoteMultiaddr(): string;
  /** Rejects only when the connection is lost, and then always. */
  inboundStream(): Promise<NativeStream>;
  /** Waits without limit while the peer grants no stream. Rejects only when the connection is lost. */
  outboundStream(): Promise<NativeStream>;
  /** Closes at once, without waiting for unacknowledged data. */
  abort(): void;
  /** Resolves when the connection has ended, for whatever reason. */
  closed(): Promise<void>;
}

/** A listening socket. */
export interface NativeServer {
  port(): number;
  /** Next connection including its handshake; rejects when that handshake fails and when the server is closed. */
  inboundConnection(): Promise<NativeConnection>;
  /** Ends every connection of this server and releases the port. */
  abort(): Promise<void>;
}

/** The dialling socket of one address family. */
export interface NativeClient {
  outboundConnection(ip: string, port: number): Promise<NativeConnection>;
  abort(): void;
}

/** Settings and identity in the native package's form. */
export interface NativeConfig {
  readonly native: unique symbol;
}

type NativeOptions = {
  readonly privateKeyProto: Uint8Array;
  readonly handshakeTimeout: number;
  readonly maxIdleTimeout: number;
  readonly keepAliveInterval: number;
  readonly maxConcurrentStreamLimit: number;
  readonly maxStreamData: number;
  readonly maxConnectionData: number;
  readonly receiveBufferSize: number;
  readonly sendBufferSize: number;
};

type Binding = {
  readonly QuinnConfig: new (options: NativeOptions) => NativeConfig;
  readonly Server: new (config: NativeConfig, ip: string, port: number) => NativeServer;
  /** 0 is IPv4, 1 is IPv6. */
  readonly Client: new (
    config: NativeConfig,
    family: 0 | 1,
  ) => NativeClient;
};

const BINARIES: Readonly<Partial<Record<NodeJS.Architecture, string>>> = {
  x64: '@chainsafe/libp2p-quic-linux-x64-gnu',
  arm64: '@chainsafe/libp2p-quic-linux-arm64-gnu',
};

/**
 * Descriptors that must be free when the native part is loaded. Its runtime takes seven at once, and where it gets less it does not fail:
 * it ends the process, and with it the content service. The rest is for what other threads of ours open meanwhile.
 */
const LOAD_DESCRIPTORS = 16;

/** The native package, loaded once for this process. */
export class NativeQuic {
  readonly #binding: Binding;

  private constructor(binding: Binding) {
    this.#binding = binding;
  }

  /**
   * Throws `unimplemented` on a machine for which no binary exists, `failed_precondition` when it is not installed, and as the file
   * system does (EMFILE) while too few descriptors are free.
   */
  static load(): NativeQuic {
    const name = BINARIES[process.arch];
    if (name === undefined || process.platform !== 'linux') {
      throw new DaemonError(
        'unimplemented',
        `QUIC has no native part for ${process.platform} on ${process.arch}; disable QUIC to run over TCP only`,
      );
    }
    assertFreeDescriptors(LOAD_DESCRIPTORS);
    try {
      const built = join(INSTALL_ROOT, 'native', 'libp2p-quic.node');
      if (existsSync(built)) return new NativeQuic(createRequire(built)(built) as Binding);
      // From source. The binary is a dependency of the JavaScript package, so it is looked up from there.
      const require = createRequire(import.meta.resolve('@chainsafe/libp2p-quic'));
      return new NativeQuic(require(name) as Binding);
    } catch (cause) {
      throw new DaemonError(
        'failed_precondition',
        `the native part of QUIC, ${name}, cannot be loaded; install the optional dependencies or disable QUIC`,
        { package: name },
        { cause },
      );
    }
  }

  /** `privateKey` is the libp2p protobuf form. Throws when the key cannot be used. */
  config(privateKey: Uint8Array, config: QuicConfig): NativeConfig {
    return new this.#binding.QuinnConfig({
      privateKeyProto: privateKey,
      handshakeTimeout: config.handshake_timeout_ms,
      maxIdleTimeout: config.idle_timeout_ms,
      keepAliveInterval: config.keep_alive_ms,
      maxConcurrentStreamLimit: config.max_inbound_streams,
      maxStreamData: config.stream_window_bytes,
      maxConnectionData: config.connection_window_bytes,
      receiveBufferSize: config.socket_buffer_bytes,
      sendBufferSize: config.socket_buffer_bytes,
    });
  }

  /** Binds at once; throws when the address cannot be bound. Its socket keeps the kernel's default buffer sizes. */
  listen(config: NativeConfig, ip: string, port: number): NativeServer {
    return new this.#binding.Server(config, ip, port);
  }

  /** Opens a socket on an unused port; throws when the machine lacks the family. */
  client(config: NativeConfig, family: 4 | 6): NativeClient {
    return new this.#binding.Client(config, family === 4 ? 0 : 1);
  }
}

/** Opens that many and closes them again; throws as the file system does. */
function assertFreeDescriptors(count: number): void {
  const open: number[] = [];
  try {
    for (let i = 0; i < count; i++) open.push(openSync('/dev/null', 'r'));
  } finally {
    for (const fd of open) closeSync(fd);
  }
}
