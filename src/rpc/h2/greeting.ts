import { OWN_WINDOW } from './credit-pool.ts';
import { CONNECTION_WINDOW } from './flow.ts';
import { encodeFrame, FRAME, settingsPayload, writeUint32 } from './frames.ts';
import { MAX_HEADER_BYTES } from './request-head.ts';
import { DEFAULT_WINDOW, MAX_STREAMS } from './streams.ts';

/** Identifiers of RFC 9113, 6.5.2: no dynamic table (see HeadDecoder), calls at once, a stream's window, header size. */
const OUR_SETTINGS = [
  [1, 0],
  [3, MAX_STREAMS],
  [4, OWN_WINDOW],
  [6, MAX_HEADER_BYTES],
] as const;

const window = Buffer.alloc(4);
writeUint32(window, 0, CONNECTION_WINDOW - DEFAULT_WINDOW);

/** What the server says first on a connection: SETTINGS, and a larger window for all streams together. */
export const GREETING: Buffer = Buffer.concat([
  encodeFrame(FRAME.settings, 0, 0, settingsPayload(OUR_SETTINGS)),
  encodeFrame(FRAME.window_update, 0, 0, window),
]);
