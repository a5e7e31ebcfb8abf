/** Settings of the QUIC transport. Plain data; every wait and every buffer has its bound here. */
export type QuicConfig = {
  /** Most bytes one native read returns. 256 KiB for data-centre links; 64 KiB where links are slow and peers many. */
  readonly read_bytes: number;
  /** Longest slice handed to one native write; an abort takes effect after at most one slice. */
  readonly write_bytes: number;
  /** Longest a dial waits for the handshake, in ms. */
  readonly handshake_timeout_ms: number;
  /** Silence after which a connection is given up, in ms. Also bounds a handshake nobody answers. */
  readonly idle_timeout_ms: number;
  /** A connection that is idle sends a packet this often, in ms; must be below the idle timeout of both sides. */
  readonly keep_alive_ms: number;
  /** Longest wait for the peer's permission to open one more stream, in ms. */
  readonly open_stream_timeout_ms: number;
  /** Longest wait for open streams or for the socket when something is closed, in ms. */
  readonly close_timeout_ms: number;
  /** Streams one peer may have open towards us. Further ones wait at the peer; none is dropped. */
  readonly max_inbound_streams: number;
  /** Bytes a peer may send on one stream beyond what was read: the most a paused stream holds. */
  readonly stream_window_bytes: number;
  /** The same over all streams of one connection. */
  readonly connection_window_bytes: number;
  /** Receive and send buffer of the dialling socket; the kernel's rmem_max and wmem_max cap it. */
  readonly socket_buffer_bytes: number;
  /** Handshakes a listener carries on at once; a stuck one then holds up nobody else. */
  readonly handshakes_at_once: number;
};

/** Defaults for hosts of one network; the windows and reads are the fastest measured, larger ones gain nothing. */
export const defaultQuicConfig: QuicConfig = {
  read_bytes: 256 * 1024,
  write_bytes: 1024 * 1024,
  // Below the idle timeout, so that a host nobody answers at is told as a timeout.
  handshake_timeout_ms: 2_500,
  // The first packet that is not answered starts it anew: a way that closes is noticed after 3 to 4.3 s, so that another
  // one is found within 5 s.
  idle_timeout_ms: 3_000,
  // Two of them and their repetitions may be lost before a connection ends. They cost 0.01 % of a core per peer.
  keep_alive_ms: 1_250,
  open_stream_timeout_ms: 5_000,
  close_timeout_ms: 2_000,
  max_inbound_streams: 256,
  stream_window_bytes: 4 * 1024 * 1024,
  connection_window_bytes: 12 * 1024 * 1024,
  socket_buffer_bytes: 4 * 1024 * 1024,
  handshakes_at_once: 16,
};
