/** The block cannot be decoded; the connection must end with COMPRESSION_ERROR, since the two sides disagree from here on. */
export class HpackError extends Error {
  override readonly name = 'HpackError';
}
