/** Protocol ids. The number is the wire version: a peer with another one is refused by name. */
export const ADMISSION_PROTOCOL = '/layerswarm/admission/1';
export const INVENTORY_PROTOCOL = '/layerswarm/inventory/1';
export const PIECE_PROTOCOL = '/layerswarm/piece/1';

/** Version byte inside every frame. */
export const WIRE_VERSION = 1;

/** From the end of the encrypted handshake to mutual proof, in ms; a connection that is slower is closed. */
export const ADMISSION_DEADLINE_MS = 2000;
/** Connections that have not proved the cluster key yet; more are closed at once. */
export const MAX_PENDING_ADMISSIONS = 64;

/** Largest inventory frame body, in bytes. */
export const MAX_CONTROL_BODY_BYTES = 64 * 1024;
/** Prefixes in one inventory frame: 32 KiB of body. */
export const PREFIXES_PER_FRAME = 4096;
/** Bytes of a digest that stand for it in an inventory. */
export const PREFIX_BYTES = 8;
/** Blobs one peer may announce: 16 MB of memory at most. */
export const MAX_PREFIXES = 1_000_000;
/** Changes that may wait for one slow peer; beyond that its whole inventory is sent anew. */
export const MAX_PENDING_CHANGES = 100_000;
/** Changes are gathered this long before they are sent, in ms. */
export const COALESCE_MS = 50;
/** Control frames one peer may send per second in the long run, and at once (a whole inventory is 245 frames). */
export const CONTROL_FRAMES_PER_SECOND = 100;
export const CONTROL_FRAMES_BURST = 600;
/** Unsent control bytes after which a peer counts as not reading. */
export const MAX_CONTROL_BACKLOG_BYTES = 1024 * 1024;

/** Peers in one exchange frame, addresses per peer, characters per address. */
export const MAX_EXCHANGED_PEERS = 64;
export const MAX_PEER_ADDRESSES = 16;
export const MAX_ADDRESS_CHARS = 200;

/** Pipelined requests one peer stream may have waiting with us; more are answered "busy". */
export const MAX_QUEUED_REQUESTS = 16;
/** Waiting requests, refused ones included, after which the requester broke the protocol. */
export const MAX_REQUEST_BACKLOG = 64;
/** Requests we have outstanding with one peer, cancelled ones included. */
export const MAX_OUTSTANDING_REQUESTS = 16;
/** How long an asker that does not say so waits for the first byte, in ms: the first version's stall watch. */
export const ASSUMED_PATIENCE_MS = 1000;
/** Peers whose turn for an upload slot is kept. */
export const MAX_TURNS = 1024;
/** A rate limit is shared by so few uploads at once that each gets this many bytes per second: an asker looks elsewhere below 64 KiB/s. */
export const LEAST_UPLOAD_BYTES_PER_SECOND = 256 * 1024;
/** Answers up to this size need no upload slot: lists, and the blobs that pulls wait 100 ms for. */
export const QUICK_BYTES = 64 * 1024;
/** Quick answers under way for all peers together: 4 MiB but for the lists of blobs above 8 GiB. */
export const MAX_QUICK_ANSWERS = 64;
/** Quick requests one stream may send per second in the long run, and at once; more are answered "busy". */
export const QUICK_REQUESTS_PER_SECOND = 100;
export const QUICK_REQUESTS_BURST = 200;
/** Bytes handed to a stream before its `drain` is waited for: least and most. */
export const MIN_WRITE_BYTES = 16 * 1024;
export const MAX_WRITE_BYTES = 1024 * 1024;
/** Longest wait for one `drain` while serving, in ms. */
export const DRAIN_DEADLINE_MS = 10_000;
/** A receiver that takes less than this on the whole frees its slot, after `DRAIN_DEADLINE_MS`. */
export const LEAST_READER_BYTES_PER_SECOND = 16 * 1024;
/** An abandoned answer of which so much is still to come is not read to its end: its stream is replaced, which costs a round trip. */
export const REPLACE_STREAM_BYTES = 512 * 1024;
/** Opening a stream on a live connection takes one round trip, in ms. */
export const OPEN_STREAM_DEADLINE_MS = 5000;
/** Largest piece list body: 8 bytes of size and 32 bytes per piece of the largest blob. */
export const MAX_LIST_BODY_BYTES = 8 + 32 * 262_144;

/** Streams of one protocol per connection: for pieces one in bulk and one quick, and each of them being replaced. */
export const STREAMS_PER_PROTOCOL = 4;

/** Peers whose standing (rates, exclusions, bans) is remembered. */
export const MAX_STANDINGS = 1024;
/** Addresses the bootstrap keeps, learnt ones included. */
export const MAX_TARGETS = 1024;
/** Addresses one bootstrap name may resolve to. */
export const MAX_RESOLVED_ADDRESSES = 64;
